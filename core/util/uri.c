#include "util/uri.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

int uri_hide_passwords(const char *text, char **ret) {
        CLEANUP(freep) char *shown = malloc(strlen(text) * 2 + 4);
        size_t length = 0;

        if (!shown)
                return -ENOMEM;
        while (*text) {
                const char *authority = strstr(text, "://");
                const char *colon, *at = NULL;
                size_t end;

                if (!authority)
                        break;
                authority += strlen("://");
                end = strcspn(authority, "/?# ");
                for (const char *c = authority; c < authority + end; c++)
                        if (*c == '@')
                                at = c;
                colon = at ? memchr(authority, ':', (size_t) (at - authority)) : NULL;
                if (colon) {
                        memcpy(shown + length, text, (size_t) (colon + 1 - text));
                        length += (size_t) (colon + 1 - text);
                        memcpy(shown + length, "***", 3);
                        length += 3;
                        text = at;
                }
                memcpy(shown + length, text, (size_t) (authority + end - text));
                length += (size_t) (authority + end - text);
                text = authority + end;
        }
        strcpy(shown + length, text);
        *ret = STEAL_PTR(shown);
        return 0;
}
