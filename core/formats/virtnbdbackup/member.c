#include "formats/virtnbdbackup/member.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"

int member_format(const Member *member, char **ret) {
        char size[24] = "";

        if (member->grown_from == UINT64_MAX && !member->name) {
                *ret = NULL;
                return 0;
        }
        if (member->grown_from != UINT64_MAX)
                snprintf(size, sizeof size, "%" PRIu64, member->grown_from);
        return text_format(ret, "%s:%s", size, member->name ?: "");
}

int member_parse(const char *text, Member *ret) {
        const char *colon = text ? strchr(text, ':') : NULL;
        char *end;

        *ret = (Member) { .grown_from = UINT64_MAX };
        if (!text)
                return 0;
        if (!colon)
                return -EBADMSG;
        if (colon[1])
                ret->name = colon + 1;
        if (colon == text)
                return 0;
        errno = 0;
        ret->grown_from = strtoull(text, &end, 10);
        return errno || end != colon || *text < '0' || *text > '9' ? -EBADMSG : 0;
}
