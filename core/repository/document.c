#include "repository/document.h"

#include <errno.h>
#include <string.h>

json_t *document_new(const char *kind, unsigned version) {
        return json_pack("{s:s, s:i, s:[]}", "format", kind, "version", (int) version, "features");
}

int document_check(const json_t *object, const char *kind, unsigned version, Reason *reterr) {
        uint64_t found_version;
        const char *found_kind;
        json_t *features, *feature;
        size_t i;
        int rc;

        rc = json_take_string(object, "format", &found_kind, reterr);
        if (rc < 0)
                return rc;
        if (strcmp(found_kind, kind) != 0)
                return fail(reterr, -EBADMSG, "it is no \"%s\" but a \"%s\"", kind, found_kind);
        rc = json_take_size(object, "version", &found_version, reterr);
        if (rc < 0)
                return rc;
        if (found_version == 0)
                return fail(reterr, -EBADMSG, "\"version\" is 0");
        if (found_version > version)
                return fail(reterr, -ENOTSUP, "it needs a newer version of virtbackupfs");
        rc = json_take_array(object, "features", &features, reterr);
        if (rc < 0)
                return rc;
        json_array_foreach(features, i, feature)
                return fail(reterr, -ENOTSUP, "it needs a version of virtbackupfs that knows \"%s\"",
                            json_string_value(feature) ?: "?");
        return 0;
}
