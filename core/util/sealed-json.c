#include "util/sealed-json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "util/file.h"

/* The tail has one form only, so that a change of any of its bytes is noticed too. */
#define TAIL_HEAD "    \"checksum\": \"xxh3-64:"
#define TAIL_END "\"\n}\n"
#define TAIL_LENGTH (sizeof TAIL_HEAD - 1 + 16 + sizeof TAIL_END - 1)

static void format_tail(const char *text, size_t length, char tail[static TAIL_LENGTH + 1]) {
        snprintf(tail, TAIL_LENGTH + 1, TAIL_HEAD "%016" PRIx64 TAIL_END, XXH3_64bits(text, length));
}

int sealed_json_dump(const json_t *object, char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(freep) char *plain = NULL;
        CLEANUP(freep) char *text = NULL;
        size_t length;

        if (!json_is_object(object) || json_object_get(object, "checksum"))
                return fail(reterr, -EINVAL, "cannot seal what is no object or has a checksum");
        plain = json_dumps(object, JSON_INDENT(4));
        if (!plain)
                return fail_oom(reterr);
        /* "{…\n}" becomes "{…,\n" and the tail; "{}" becomes "{\n" and the tail. */
        length = json_object_size(object) > 0 ? strlen(plain) - 2 : 1;
        text = malloc(length + 2 + TAIL_LENGTH + 1);
        if (!text)
                return fail_oom(reterr);
        memcpy(text, plain, length);
        if (json_object_size(object) > 0)
                text[length++] = ',';
        text[length++] = '\n';
        format_tail(text, length, text + length);
        length += TAIL_LENGTH;
        if (length > SEALED_JSON_LIMIT)
                return fail(reterr, -EFBIG, "the text is longer than %u bytes", SEALED_JSON_LIMIT);
        *ret = STEAL_PTR(text);
        *ret_length = length;
        return 0;
}

int sealed_json_parse(const char *text, size_t length, json_t **ret, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *object = NULL;
        char tail[TAIL_LENGTH + 1];
        json_error_t error;

        if (length < TAIL_LENGTH || length > SEALED_JSON_LIMIT ||
            memcmp(text + length - TAIL_LENGTH, TAIL_HEAD, sizeof TAIL_HEAD - 1) != 0)
                return fail(reterr, -EBADMSG, "it does not end with its checksum");
        format_tail(text, length - TAIL_LENGTH, tail);
        if (memcmp(text + length - TAIL_LENGTH, tail, TAIL_LENGTH) != 0)
                return fail(reterr, -EBADMSG, "its checksum does not fit: it was changed or damaged");
        object = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
        if (!object)
                return fail(reterr, -EBADMSG, "line %d is no JSON: %s", error.line, error.text);
        if (!json_is_object(object))
                return fail(reterr, -EBADMSG, "it is no JSON object");
        *ret = STEAL_PTR(object);
        return 0;
}

static int write_sealed(int dir_fd, const char *path, const json_t *object,
                        int (*write_file)(int, const char *, const void *, size_t, Reason *), Reason *reterr) {
        CLEANUP(freep) char *text = NULL;
        size_t length;
        int rc;

        rc = sealed_json_dump(object, &text, &length, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "cannot write %s", path);
        return write_file(dir_fd, path, text, length, reterr);
}

int sealed_json_create(int dir_fd, const char *path, const json_t *object, Reason *reterr) {
        return write_sealed(dir_fd, path, object, create_file, reterr);
}

int sealed_json_replace(int dir_fd, const char *path, const json_t *object, Reason *reterr) {
        return write_sealed(dir_fd, path, object, replace_file, reterr);
}

int sealed_json_read(int dir_fd, const char *path, json_t **ret, Reason *reterr) {
        CLEANUP(freep) char *text = NULL;
        size_t length;
        int rc;

        rc = read_file(dir_fd, path, SEALED_JSON_LIMIT, &text, &length, reterr);
        if (rc == -EFBIG)
                return -EBADMSG;
        if (rc < 0)
                return rc;
        rc = sealed_json_parse(text, length, ret, reterr);
        return rc < 0 ? fail_within(reterr, rc, "%s is damaged", path) : 0;
}
