#include "sources/qmp-uri.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/uri.h"

#define UNIX "qmp://"
#define TCP "qmp+tcp://"

void qmp_uri_clear(QmpUri *uri) {
        free(uri->path);
        free(uri->host);
        free(uri->nbd_socket);
        free(uri->nbd_host);
        free(uri->scratch);
        free(uri->agent);
        *uri = (QmpUri) { 0 };
}

bool qmp_uri_claims(const char *text) {
        return strncmp(text, "qmp:", 4) == 0 || strncmp(text, "qmp+", 4) == 0;
}

static int take_address(const char *text, size_t length, char **host, unsigned *port, Reason *reterr) {
        int rc;

        free(STEAL_PTR(*host));
        rc = uri_split_address(text, length, host, port, reterr);
        if (rc == 0 && *port == 0)
                return fail(reterr, -EINVAL, "\"%.*s\" names no port", (int) length, text);
        return rc;
}

static int take_parameter(const char *name, char **value, QmpUri *uri, Reason *reterr) {
        const struct {
                const char *name;
                char **into;
        } paths[] = { { "nbd-socket", &uri->nbd_socket }, { "scratch", &uri->scratch }, { "agent", &uri->agent } };

        if (strcmp(name, "nbd-address") == 0)
                return take_address(*value, strlen(*value), &uri->nbd_host, &uri->nbd_port, reterr);
        for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
                if (strcmp(name, paths[i].name) != 0)
                        continue;
                if (**value != '/')
                        return fail(reterr, -EINVAL, "%s is no absolute path", name);
                free(*paths[i].into);
                *paths[i].into = STEAL_PTR(*value);
                return 0;
        }
        return fail(reterr, -EINVAL, "it has no parameter \"%.64s\"", name);
}

static int take_query(const char *query, QmpUri *uri, Reason *reterr) {
        for (;;) {
                CLEANUP(freep) char *name = NULL, *value = NULL;
                int rc = uri_next_parameter(&query, &name, &value);

                if (rc == -EINVAL)
                        return fail(reterr, rc, "its query has a \"%%\" that is no escape");
                if (rc < 0)
                        return fail_oom(reterr);
                if (rc == 0)
                        return 0;
                rc = take_parameter(name, &value, uri, reterr);
                if (rc < 0)
                        return rc;
        }
}

/* What stands before the query. */
static int take_place(const char *text, size_t length, QmpUri *uri, Reason *reterr) {
        int rc;

        if (length > strlen(TCP) && strncmp(text, TCP, strlen(TCP)) == 0) {
                length -= strlen(TCP);
                text += strlen(TCP);
                return take_address(text, text[length - 1] == '/' ? length - 1 : length, &uri->host, &uri->port, reterr);
        }
        if (length <= strlen(UNIX) + 1 || strncmp(text, UNIX "/", strlen(UNIX) + 1) != 0)
                return fail(reterr, -EINVAL, "a QEMU without libvirt is written as qmp:///path/of/its/qmp.sock, or as "
                                             "qmp+tcp://HOST:PORT?nbd-address=HOST:PORT&scratch=DIRECTORY");
        rc = uri_unescape(text + strlen(UNIX), length - strlen(UNIX), &uri->path);
        if (rc == -EINVAL)
                return fail(reterr, rc, "its path has a \"%%\" that is no escape");
        return rc < 0 ? fail_oom(reterr) : 0;
}

int qmp_uri_parse(const char *text, QmpUri *ret, Reason *reterr) {
        CLEANUP(qmp_uri_clear) QmpUri uri = { 0 };
        CLEANUP(freep) char *shown = NULL;
        size_t length = strcspn(text, "?");
        Reason why;
        int rc;

        if (uri_hide_passwords(text, &shown) < 0)
                return fail_oom(reterr);
        rc = take_place(text, length, &uri, &why);
        if (rc == 0 && text[length])
                rc = take_query(text + length + 1, &uri, &why);
        if (rc == 0 && uri.nbd_host && uri.nbd_socket)
                rc = fail(&why, -EINVAL, "nbd-address and nbd-socket cannot both be where the disks are read");
        if (rc == 0 && uri.path && uri.scratch)
                rc = fail(&why, -EINVAL, "scratch is for a QEMU on another machine: here, capture has --scratch-dir");
        if (rc == 0 && !uri.path && (!uri.nbd_host || !uri.scratch))
                rc = fail(&why, -EINVAL, "by TCP, %s must be said: ?nbd-address=HOST:PORT&scratch=DIRECTORY",
                          uri.scratch ? "nbd-address" : uri.nbd_host ? "scratch" : "nbd-address and scratch");
        if (rc < 0)
                return fail(reterr, rc, "%s: %.*s", shown, REASON_MAX / 2, why.text);
        *ret = uri;
        uri = (QmpUri) { 0 };
        return 0;
}
