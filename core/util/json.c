#include "util/json.h"

#include <errno.h>
#include <string.h>

#include "util/cleanup.h"

json_t *json_text(const char *text) {
        CLEANUP(freep) char *copy = NULL;
        json_t *string = json_string(text);

        if (string)
                return string;
        copy = strdup(text);
        if (!copy)
                return NULL;
        for (char *c = copy; *c; c++)
                if ((unsigned char) *c >= 0x80)
                        *c = '?';
        return json_string(copy);
}

static int take(const json_t *object, const char *key, json_type type, const char *what, json_t **ret, Reason *reterr) {
        json_t *member = json_object_get(object, key);

        if (!member)
                return fail(reterr, -EBADMSG, "\"%s\" is missing", key);
        if (json_typeof(member) != type)
                return fail(reterr, -EBADMSG, "\"%s\" is no %s", key, what);
        *ret = member;
        return 0;
}

int json_take_string(const json_t *object, const char *key, const char **ret, Reason *reterr) {
        json_t *member = NULL;
        int rc = take(object, key, JSON_STRING, "text", &member, reterr);

        if (rc == 0)
                *ret = json_string_value(member);
        return rc;
}

int json_take_optional_string(const json_t *object, const char *key, const char **ret, Reason *reterr) {
        const json_t *member = json_object_get(object, key);

        if (member && !json_is_null(member))
                return json_take_string(object, key, ret, reterr);
        *ret = NULL;
        return 0;
}

static int copy(const char *text, char **ret, Reason *reterr) {
        char *copied = strdup(text);

        if (!copied)
                return fail_oom(reterr);
        *ret = copied;
        return 0;
}

int json_take_copy(const json_t *object, const char *key, char **ret, Reason *reterr) {
        const char *text = NULL;
        int rc = json_take_string(object, key, &text, reterr);

        return rc == 0 ? copy(text, ret, reterr) : rc;
}

int json_take_optional_copy(const json_t *object, const char *key, char **ret, Reason *reterr) {
        const char *text = NULL;
        int rc = json_take_optional_string(object, key, &text, reterr);

        return rc == 0 && text ? copy(text, ret, reterr) : rc;
}

int json_take_size(const json_t *object, const char *key, uint64_t *ret, Reason *reterr) {
        json_t *member = NULL;
        int rc = take(object, key, JSON_INTEGER, "number", &member, reterr);

        if (rc < 0)
                return rc;
        if (json_integer_value(member) < 0)
                return fail(reterr, -EBADMSG, "\"%s\" is negative", key);
        *ret = (uint64_t) json_integer_value(member);
        return 0;
}

int json_take_array(const json_t *object, const char *key, json_t **ret, Reason *reterr) {
        return take(object, key, JSON_ARRAY, "list", ret, reterr);
}
