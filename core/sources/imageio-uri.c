#include "sources/imageio-uri.h"

#include <errno.h>
#include <string.h>

#include "sources/disk-uri.h"
#include "util/cleanup.h"
#include "util/uri.h"

#define TLS "https://"
#define PLAIN "http://"
#define TICKETS "/images/"
#define TICKET_MAX 255   /* bytes; oVirt's have 36 */

#define PARAMETERS(uri)                                                                                                    \
        {                                                                                                                  \
                { "cafile", &(uri)->cafile, true }, DISK_URI_COMMON_PARAMETERS(&(uri)->common)                             \
        }

void imageio_uri_clear(ImageioUri *uri) {
        free(uri->url);
        free(uri->shown);
        free(uri->cafile);
        disk_uri_common_clear(&uri->common);
        *uri = (ImageioUri) { 0 };
}

bool imageio_uri_claims(const char *text) {
        return strncmp(text, TLS, strlen(TLS)) == 0 || strncmp(text, PLAIN, strlen(PLAIN)) == 0;
}

/* Nothing in it needs an escape: so no two spellings are the same ticket, and none ends the header that it goes into. */
static bool is_plain(const char *text, size_t length, const char *besides) {
        for (size_t i = 0; i < length; i++) {
                char c = text[i];
                bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

                if (!letter && !(c >= '0' && c <= '9') && !strchr(besides, c))
                        return false;
        }
        return length > 0;
}

static int load(const char *text, void *into, Reason *reterr) {
        ImageioUri *uri = into;
        const DiskUriParameter parameters[] = PARAMETERS(uri);
        const char *host = strstr(text, "://") + strlen("://"), *path = host + strcspn(host, "/?#"), *ticket, *end;
        int rc;

        uri->tls = strncmp(text, TLS, strlen(TLS)) == 0;
        if (!is_plain(host, (size_t) (path - host), "-._:[]%"))
                return fail(reterr, -EINVAL, "it names no host");
        if (strncmp(path, TICKETS, strlen(TICKETS)) != 0)
                return fail(reterr, -EINVAL, "an image transfer is written https://HOST:54322/images/TICKET");
        ticket = path + strlen(TICKETS);
        end = ticket + strcspn(ticket, "?");
        if (!is_plain(ticket, (size_t) (end - ticket), "-._~") || end - ticket > TICKET_MAX || *ticket == '.')
                return fail(reterr, -EINVAL, "it names no ticket that could be");
        rc = disk_uri_take(*end ? end + 1 : NULL, parameters, sizeof parameters / sizeof *parameters, &uri->common,
                           reterr);
        if (rc < 0)
                return rc;
        uri->url = strndup(text, (size_t) (end - text));
        if (!uri->url || uri_hide_passwords(uri->url, &uri->shown) < 0)
                return fail_oom(reterr);
        uri->ticket = uri->url + (ticket - text);
        return 0;
}

int imageio_uri_parse(const char *text, ImageioUri *ret, Reason *reterr) {
        CLEANUP(imageio_uri_clear) ImageioUri uri = { 0 };
        int rc = disk_uri_load(text, load, &uri, reterr);

        if (rc < 0)
                return rc;
        *ret = uri;
        uri = (ImageioUri) { 0 };
        return 0;
}

int imageio_uri_format(ImageioUri *uri, char **ret) {
        const DiskUriParameter parameters[] = PARAMETERS(uri);

        return disk_uri_format(uri->url, parameters, sizeof parameters / sizeof *parameters, ret);
}
