#include "formats/virtnbdbackup/metadata.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "formats/virtnbdbackup/frame.h"
#include "util/bytes.h"

#define JSON_MAX (256u << 10) /* bytes; it has some 500 */
#define VERSION_MAX 2

int metadata_begins(ByteStore *bytes, Window *window, Reason *reterr) {
        const unsigned char *header;
        Frame frame;
        int rc;

        if (byte_store_size(bytes) < FRAME_HEADER_LENGTH)
                return 0;
        rc = window_get(window, bytes, 0, FRAME_HEADER_LENGTH, UINT64_MAX, &header, reterr);
        return rc < 0 ? rc : frame_parse(header, &frame) && frame.kind == FRAME_META && frame.start == 0;
}

/* The text of the first frame, with what ends it. *ret_long: where it is longer than a window, to be freed. */
static int read_text(ByteStore *bytes, Window *window, const char **ret, size_t *ret_length, char **ret_long,
                     Reason *reterr) {
        uint64_t size = byte_store_size(bytes);
        const unsigned char *header;
        Frame frame;
        int rc = metadata_begins(bytes, window, reterr);

        if (rc < 0)
                return rc;
        if (rc == 0)
                return fail(reterr, -EBADMSG, "%s does not begin as a stream does", byte_store_name(bytes));
        rc = window_get(window, bytes, 0, FRAME_HEADER_LENGTH, UINT64_MAX, &header, reterr);
        if (rc < 0)
                return rc;
        (void) frame_parse(header, &frame);
        if (frame.length > JSON_MAX)
                return fail(reterr, -EBADMSG, "%s is damaged: its metadata is too long", byte_store_name(bytes));
        *ret_length = (size_t) frame.length + FRAME_END_LENGTH;
        if (*ret_length > size - FRAME_HEADER_LENGTH)
                return fail(reterr, -EBADMSG, "%s has been cut off in its metadata", byte_store_name(bytes));
        if (FRAME_HEADER_LENGTH + *ret_length <= WINDOW_SIZE) {
                const unsigned char *text;

                rc = window_get(window, bytes, FRAME_HEADER_LENGTH, *ret_length, UINT64_MAX, &text, reterr);
                *ret = (const char *) text;
                return rc;
        }
        *ret_long = malloc(*ret_length);
        if (!*ret_long)
                return fail_oom(reterr);
        *ret = *ret_long;
        return byte_store_read(bytes, *ret_long, *ret_length, FRAME_HEADER_LENGTH, reterr);
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
        const json_t *data = get_either(object, "dataSize", "data-size");
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
                .data = json_is_integer(data) && json_integer_value(data) >= 0 ? (uint64_t) json_integer_value(data)
                                                                               : UINT64_MAX,
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

int metadata_read(ByteStore *bytes, Window *window, Metadata *ret, Reason *reterr) {
        CLEANUP(metadata_clear) Metadata metadata = { 0 };
        CLEANUP(json_decrefp) json_t *object = NULL;
        CLEANUP(freep) char *long_text = NULL;
        const char *text = NULL;
        json_error_t error;
        size_t length = 0;
        int rc;

        rc = read_text(bytes, window, &text, &length, &long_text, reterr);
        if (rc < 0)
                return rc;
        length -= FRAME_END_LENGTH;
        if (memcmp(text + length, FRAME_END, FRAME_END_LENGTH) != 0)
                return fail(reterr, -EBADMSG, "%s is damaged: its metadata does not end where it should",
                            byte_store_name(bytes));
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
