#include "formats/virtnbdbackup/metadata.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "formats/virtnbdbackup/frame.h"
#include "util/bytes.h"

#define JSON_MAX (256u << 10) /* bytes; it has some 500 */
#define READ_FIRST 1024u      /* bytes that hold most */
#define VERSION_MAX 2

int metadata_begins(ByteStore *bytes, Reason *reterr) {
        unsigned char header[FRAME_HEADER_LENGTH];
        Frame frame;
        int rc;

        if (byte_store_size(bytes) < FRAME_HEADER_LENGTH)
                return 0;
        rc = byte_store_read(bytes, header, sizeof header, 0, reterr);
        return rc < 0 ? rc : frame_parse(header, &frame) && frame.kind == FRAME_META && frame.start == 0;
}

/* The text of the first frame. The caller frees *ret. */
static int read_text(ByteStore *bytes, char **ret, size_t *ret_length, Reason *reterr) {
        uint64_t size = byte_store_size(bytes), whole;
        size_t there = (size_t) min_u64(size, READ_FIRST);
        CLEANUP(freep) char *text = malloc(READ_FIRST);
        Frame frame;
        int rc;

        if (!text)
                return fail_oom(reterr);
        rc = byte_store_read(bytes, text, there, 0, reterr);
        if (rc < 0)
                return rc;
        if (there < FRAME_HEADER_LENGTH || !frame_parse((unsigned char *) text, &frame) || frame.kind != FRAME_META ||
            frame.start != 0)
                return fail(reterr, -EBADMSG, "%s does not begin as a stream does", byte_store_name(bytes));
        if (frame.length > JSON_MAX)
                return fail(reterr, -EBADMSG, "%s is damaged: its metadata is too long", byte_store_name(bytes));
        whole = FRAME_HEADER_LENGTH + frame.length + FRAME_END_LENGTH;
        if (whole > size)
                return fail(reterr, -EBADMSG, "%s has been cut off in its metadata", byte_store_name(bytes));
        if (whole > there) {
                char *grown = realloc(text, whole);

                if (!grown)
                        return fail_oom(reterr);
                text = grown;
                rc = byte_store_read(bytes, text + there, (size_t) whole - there, there, reterr);
                if (rc < 0)
                        return rc;
        }
        if (memcmp(text + whole - FRAME_END_LENGTH, FRAME_END, FRAME_END_LENGTH) != 0)
                return fail(reterr, -EBADMSG, "%s is damaged: its metadata does not end where it should",
                            byte_store_name(bytes));
        memmove(text, text + FRAME_HEADER_LENGTH, (size_t) frame.length);
        *ret_length = (size_t) frame.length;
        *ret = STEAL_PTR(text);
        return 0;
}

static const json_t *get_either(const json_t *object, const char *key, const char *older) {
        return json_object_get(object, key) ?: json_object_get(object, older);
}

/* A string that is not empty, or NULL. *rc: -ENOMEM. */
static char *copy_text(const json_t *value, int *rc) {
        const char *text = json_string_value(value);
        char *copy = text && *text ? strdup(text) : NULL;

        if (text && *text && !copy)
                *rc = -ENOMEM;
        return copy;
}

/* "2026-11-20T01:02:03.123456", as Python's isoformat() writes it. */
static struct timespec parse_date(const char *text) {
        struct timespec date = { 0 };
        struct tm tm = { 0 };
        const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
        time_t seconds;

        if (!rest)
                return date;
        tm.tm_isdst = -1;
        seconds = mktime(&tm);
        if (seconds <= 0)
                return date;
        date.tv_sec = seconds;
        if (*rest == '.')
                for (long unit = 100000000; *++rest >= '0' && *rest <= '9' && unit > 0; unit /= 10)
                        date.tv_nsec += unit * (*rest - '0');
        return date;
}

static int load(const json_t *object, const char *name, Metadata *ret, Reason *reterr) {
        const json_t *size = get_either(object, "virtualSize", "virtual-size");
        const json_t *version = get_either(object, "streamVersion", "stream-version");
        const json_t *incremental = json_object_get(object, "incremental");
        const json_t *compressed = json_object_get(object, "compressed");
        int rc = 0;

        if (!json_is_integer(size) || json_integer_value(size) < 0)
                return fail(reterr, -EBADMSG, "%s: its metadata has no size of the disk", name);
        if (version && !json_is_integer(version))
                return fail(reterr, -EBADMSG, "%s: its metadata has a strange version", name);
        if (json_integer_value(version) > VERSION_MAX)
                return fail(reterr, -ENOTSUP, "%s has stream version %" JSON_INTEGER_FORMAT ", which is not known", name,
                            json_integer_value(version));
        *ret = (Metadata) {
                .size = (uint64_t) json_integer_value(size),
                .disk = copy_text(get_either(object, "diskName", "disk_name"), &rc),
                .checkpoint = copy_text(json_object_get(object, "checkpointName"), &rc),
                .parent = copy_text(json_object_get(object, "parentCheckpoint"), &rc),
                .date = parse_date(json_string_value(json_object_get(object, "date"))),
                /* A level of 0 is still a level. Before version 2 nothing was compressed. */
                .compressed = json_integer_value(version) == 2 && (json_is_true(compressed) || json_is_integer(compressed)),
        };
        ret->incremental = incremental ? json_is_true(incremental) : ret->parent != NULL;
        return rc < 0 ? fail_oom(reterr) : 0;
}

int metadata_read(ByteStore *bytes, Metadata *ret, Reason *reterr) {
        CLEANUP(metadata_clear) Metadata metadata = { 0 };
        CLEANUP(json_decrefp) json_t *object = NULL;
        CLEANUP(freep) char *text = NULL;
        json_error_t error;
        size_t length = 0;
        int rc;

        rc = read_text(bytes, &text, &length, reterr);
        if (rc < 0)
                return rc;
        object = json_loadb(text, length, 0, &error);
        if (!json_is_object(object))
                return fail(reterr, -EBADMSG, "%s: its metadata is no JSON object: %s", byte_store_name(bytes),
                            object ? "something else" : error.text);
        rc = load(object, byte_store_name(bytes), &metadata, reterr);
        if (rc < 0)
                return rc;
        metadata.end = FRAME_HEADER_LENGTH + length + FRAME_END_LENGTH;
        *ret = metadata;
        metadata = (Metadata) { 0 };
        return 0;
}

void metadata_clear(Metadata *metadata) {
        free(metadata->disk);
        free(metadata->checkpoint);
        free(metadata->parent);
        *metadata = (Metadata) { 0 };
}
