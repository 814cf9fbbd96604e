#include "sources/nbd-uri.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sources/disk-uri.h"
#include "util/cleanup.h"
#include "util/text.h"
#include "util/uri.h"

#define PORT_DEFAULT 10809
#define NAME_MAX_LENGTH 4096 /* bytes of an export's or a context's name: NBD allows no more */

#define PARAMETERS(uri)                                                                                                    \
        {                                                                                                                  \
                { "socket", &(uri)->socket, true }, { "tls-certificates", &(uri)->certificates, true },                    \
                { "tls-psk-file", &(uri)->psk_file, true }, { "tls-verify-peer", &(uri)->verify_peer, false },             \
                DISK_URI_COMMON_PARAMETERS(&(uri)->common)                                                                 \
        }

static const struct {
        const char *prefix;
        bool tls, local;
} schemes[] = {
        { "nbd://", false, false },
        { "nbds://", true, false },
        { "nbd+unix://", false, true },
        { "nbds+unix://", true, true },
};

void nbd_uri_clear(NbdUri *uri) {
        free(uri->base);
        free(uri->shown);
        free(uri->socket);
        free(uri->host);
        free(uri->user);
        free(uri->export_name);
        free(uri->certificates);
        free(uri->psk_file);
        free(uri->verify_peer);
        free(uri->bitmap_context);
        free(uri->checkpoint_context);
        disk_uri_common_clear(&uri->common);
        *uri = (NbdUri) { 0 };
}

bool nbd_uri_claims(const char *text) {
        return strncmp(text, "nbd", 3) == 0 && strstr(text, "://");
}

/* "USER@HOST:PORT"; with a socket "USER@" or nothing. */
static int take_authority(NbdUri *uri, const char *text, size_t length, bool local, Reason *reterr) {
        const char *at = memrchr(text, '@', length);
        size_t user_length = at ? (size_t) (at - text) : 0;

        if (at && (!uri->tls || memchr(text, ':', user_length)))
                return fail(reterr, -EINVAL, "NBD knows no users but those of tls-psk-file, and no passwords");
        if (at && uri_unescape(text, user_length, &uri->user) < 0)
                return fail(reterr, -EINVAL, "its user's name has a \"%%\" that is no escape");
        length -= at ? user_length + 1 : 0;
        text += at ? user_length + 1 : 0;
        if (local && length > 0)
                return fail(reterr, -EINVAL, "a server behind a Unix socket is nbd+unix:///EXPORT?socket=PATH");
        if (!local && length == 0)
                return fail(reterr, -EINVAL, "it names no host; a server behind a Unix socket is "
                                             "nbd+unix:///EXPORT?socket=PATH");
        return local ? 0 : uri_split_address(text, length, &uri->host, &uri->port, reterr);
}

static int take_context(const char *bitmap, char **ret, Reason *reterr) {
        if (bitmap && text_format(ret, "%s%s", strchr(bitmap, ':') ? "" : "qemu:dirty-bitmap:", bitmap) < 0)
                return fail_oom(reterr);
        return bitmap && strlen(*ret) > NAME_MAX_LENGTH ? fail(reterr, -EINVAL, "no bitmap can have so long a name") : 0;
}

static int settle_tls(NbdUri *uri, bool local, Reason *reterr) {
        bool asked = uri->certificates || uri->psk_file || uri->verify_peer;

        uri->verify = true;
        if (asked && !uri->tls)
                return fail(reterr, -EINVAL, "it has parameters of TLS, but no TLS: that is nbds%s://",
                            local ? "+unix" : "");
        if (uri->user && !uri->psk_file)
                return fail(reterr, -EINVAL, "a user is that of a tls-psk-file, which it does not name");
        if (uri->verify_peer && strcmp(uri->verify_peer, "false") == 0 && !uri->psk_file)
                uri->verify = false;
        else if (uri->verify_peer && strcmp(uri->verify_peer, "true") != 0)
                return fail(reterr, -EINVAL, "tls-verify-peer is true, or false where there is no tls-psk-file");
        /* libnbd has no name to compare it with, and then compares nothing. */
        if (uri->tls && local && !uri->psk_file && uri->verify)
                return fail(reterr, -EINVAL, "the certificate of a server behind a Unix socket cannot be verified: use "
                                             "tls-psk-file, or say tls-verify-peer=false");
        return 0;
}

static int show(NbdUri *uri, Reason *reterr) {
        bool six = uri->host && strchr(uri->host, ':');
        int rc;

        if (uri->socket)
                rc = text_format(&uri->shown, "%s/%s", uri->socket, uri->export_name);
        else
                rc = text_format(&uri->shown, "%s%s%s:%u/%s", six ? "[" : "", uri->host, six ? "]" : "", uri->port,
                                 uri->export_name);
        if (rc < 0)
                return fail_oom(reterr);
        return 0;
}

static int load(const char *text, void *into, Reason *reterr) {
        NbdUri *uri = into;
        const DiskUriParameter parameters[] = PARAMETERS(uri);
        size_t length = strcspn(text, "?"), authority, path;
        const char *rest = NULL;
        bool local = false;
        int rc;

        for (size_t i = 0; !rest && i < sizeof schemes / sizeof *schemes; i++)
                if (strncmp(text, schemes[i].prefix, strlen(schemes[i].prefix)) == 0) {
                        rest = text + strlen(schemes[i].prefix);
                        uri->tls = schemes[i].tls;
                        local = schemes[i].local;
                }
        if (!rest)
                return fail(reterr, -EINVAL, "an NBD server is nbd://, nbds://, nbd+unix:// or nbds+unix://");
        if (strchr(text, '#'))
                return fail(reterr, -EINVAL, "a \"#\" is written %%23");
        uri->base = strndup(text, length);
        if (!uri->base)
                return fail_oom(reterr);
        rc = disk_uri_take(text[length] ? text + length + 1 : NULL, parameters, sizeof parameters / sizeof *parameters,
                           &uri->common, reterr);
        if (rc < 0)
                return rc;

        authority = strcspn(rest, "/?");
        path = authority + (rest[authority] == '/');
        if (local && !uri->socket)
                return fail(reterr, -EINVAL, "a server behind a Unix socket is nbd+unix:///EXPORT?socket=PATH");
        if (!local && uri->socket)
                return fail(reterr, -EINVAL, "it names a host and a socket; a server behind a Unix socket is "
                                             "nbd+unix:///EXPORT?socket=PATH");
        rc = take_authority(uri, rest, authority, local, reterr);
        if (rc < 0)
                return rc;
        if (!local && uri->port == 0)
                uri->port = PORT_DEFAULT;
        rc = uri_unescape(rest + path, (size_t) (text + length - rest) - path, &uri->export_name);
        if (rc < 0 || strlen(uri->export_name) > NAME_MAX_LENGTH)
                return fail(reterr, rc < 0 ? rc : -EINVAL, "the name of its export cannot be");
        rc = take_context(uri->common.bitmap, &uri->bitmap_context, reterr);
        if (rc == 0)
                rc = take_context(uri->common.checkpoint, &uri->checkpoint_context, reterr);
        if (rc == 0)
                rc = settle_tls(uri, local, reterr);
        return rc == 0 ? show(uri, reterr) : rc;
}

int nbd_uri_parse(const char *text, NbdUri *ret, Reason *reterr) {
        CLEANUP(nbd_uri_clear) NbdUri uri = { 0 };
        int rc = disk_uri_load(text, load, &uri, reterr);

        if (rc < 0)
                return rc;
        *ret = uri;
        uri = (NbdUri) { 0 };
        return 0;
}

int nbd_uri_format(NbdUri *uri, char **ret) {
        const DiskUriParameter parameters[] = PARAMETERS(uri);

        return disk_uri_format(uri->base, parameters, sizeof parameters / sizeof *parameters, ret);
}

NbdAddress nbd_uri_address(const NbdUri *uri) {
        return (NbdAddress) {
                .socket_path = uri->socket,
                .host = uri->host,
                .port = uri->port,
                .tls = uri->tls,
                .unverified = !uri->verify,
                .certificates = uri->certificates,
                .psk_file = uri->psk_file,
                .user = uri->user,
                .export_name = uri->export_name,
                .patience_ms = uri->common.timeout_s * 1000,
        };
}
