#include "formats/qcow2/member.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"

#define PARENT "parent="
#define SNAPSHOT "snapshot="

int qcow2_member_parse(const char *member, Qcow2Member *ret, Reason *reterr) {
        Qcow2Member parsed = { 0 };
        const char *at = member ?: "";

        if (strncmp(at, PARENT, strlen(PARENT)) == 0) {
                char *end;

                at += strlen(PARENT);
                errno = 0;
                parsed.parent_size = strtoull(at, &end, 10);
                if (errno != 0 || *at < '0' || *at > '9' || (*end && *end != ' '))
                        return fail(reterr, -EBADMSG, "\"%s\" names nothing in a qcow2 image", member);
                at = *end ? end + 1 : end;
        }
        if (strncmp(at, SNAPSHOT, strlen(SNAPSHOT)) == 0)
                parsed.snapshot = at + strlen(SNAPSHOT);
        else if (*at)
                return fail(reterr, -EBADMSG, "\"%s\" names nothing in a qcow2 image", member);
        *ret = parsed;
        return 0;
}

int qcow2_member_format(const Qcow2Member *member, char **ret) {
        char parent[40] = "", *text = NULL;
        int rc = 0;

        if (member->parent_size > 0)
                snprintf(parent, sizeof parent, PARENT "%" PRIu64, member->parent_size);
        if (member->snapshot)
                rc = text_format(&text, "%s%s" SNAPSHOT "%s", parent, *parent ? " " : "", member->snapshot);
        else if (*parent)
                rc = (text = strdup(parent)) ? 0 : -1;
        if (rc < 0)
                return -ENOMEM;
        *ret = text;
        return 0;
}
