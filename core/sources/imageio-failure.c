#include "sources/imageio-failure.h"

#include <errno.h>
#include <string.h>

#define WORDS_SHOWN 160 /* bytes of the server's */

/* Writes "***" for the ticket in what others say: a server that does not know it says so by name. */
static void hide_ticket(char *words, const char *ticket) {
        size_t length = strlen(ticket), hidden = length < 3 ? length : 3;
        char *at;

        while ((at = strstr(words, ticket))) {
                memcpy(at, "***", hidden);
                memmove(at + hidden, at + length, strlen(at + length) + 1);
                words = at + hidden;
        }
}

static const char *meaning_of(long status) {
        switch (status) {
        case 400: return "the server does not understand the request";
        case 401: return "the server wants more than a ticket";
        case 403: return "the ticket is unknown, has expired or was cancelled: begin another transfer";
        case 404: return "the server has no such thing";
        case 405: return "the server does not know the method";
        case 407: return "the proxy wants more than a ticket";
        case 409: return "the ticket is in use elsewhere";
        case 416: return "the server says that the range is not on the disk";
        }
        return status >= 300 && status < 400   ? "the server sends on to elsewhere, which is not followed"
               : status >= 500 && status < 600 ? "the server cannot do it"
                                               : "that is no answer to it";
}

int imageio_fail_status(long status, char *words, const char *ticket, Reason *reterr) {
        int rc = status == 401 || status == 403 || status == 407 ? -EACCES
                 : status >= 500 || status == 404 || status == 409 ? -EIO
                                                                   : -EPROTO;

        hide_ticket(words, ticket);
        words[strcspn(words, "\r\n")] = 0;
        if (strlen(words) > WORDS_SHOWN)
                words[WORDS_SHOWN] = 0;
        for (char *c = words; *c; c++)
                if (*c & 0x80)
                        *c = '?';
        return fail(reterr, rc, "status %ld: %s%s%s%s", status, meaning_of(status), *words ? " (" : "", words,
                    *words ? ")" : "");
}

int imageio_fail_transfer(CURLcode code, char *words, const char *ticket, Reason *reterr) {
        int rc;

        switch (code) {
        case CURLE_OUT_OF_MEMORY:
                return fail_oom(reterr);
        case CURLE_OPERATION_TIMEDOUT:
                rc = -ETIMEDOUT;
                break;
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY:
                rc = -EHOSTUNREACH;
                break;
        case CURLE_COULDNT_CONNECT:
                rc = -ECONNREFUSED;
                break;
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_CACERT_BADFILE:
                hide_ticket(words, ticket);
                return fail(reterr, -EACCES, "the server cannot be trusted: %s (cafile=PATH of the URI names whom to trust)",
                            *words ? words : curl_easy_strerror(code));
        default:
                rc = -EIO;
        }
        hide_ticket(words, ticket);
        return fail(reterr, rc, "%s", *words ? words : curl_easy_strerror(code));
}
