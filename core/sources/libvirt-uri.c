#include "sources/libvirt-uri.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/uri.h"

void libvirt_uri_clear(LibvirtUri *uri) {
        free(uri->uri);
        free(uri->shown);
        free(uri->domain);
        free(uri->nbd_host);
        free(uri->nbd_certificates);
        *uri = (LibvirtUri) { 0 };
}

bool libvirt_uri_claims(const char *text) {
        return strncmp(text, "qemu:", 5) == 0 || strncmp(text, "qemu+", 5) == 0 || strncmp(text, "test:", 5) == 0;
}

static int take_tls(const char *value, NbdTls *ret, Reason *reterr) {
        static const char *const words[] = { [NBD_TLS_AUTO] = "auto", [NBD_TLS_YES] = "yes", [NBD_TLS_NO] = "no" };

        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
                if (strcmp(value, words[i]) == 0) {
                        *ret = (NbdTls) i;
                        return 0;
                }
        return fail(reterr, -EINVAL, "nbd-tls is yes, no or auto, not \"%s\"", value);
}

/* 1 where the parameter is ours. */
static int take_parameter(const char *name, char **value, LibvirtUri *uri, Reason *reterr) {
        char **into = NULL;
        int rc;

        if (strcmp(name, "domain") == 0)
                into = &uri->domain;
        else if (strcmp(name, "nbd-certificates") == 0)
                into = &uri->nbd_certificates;
        else if (strcmp(name, "nbd-tls") == 0)
                return (rc = take_tls(*value, &uri->nbd_tls, reterr)) < 0 ? rc : 1;
        else if (strcmp(name, "nbd-address") != 0)
                return 0;
        if (into && !**value)
                return fail(reterr, -EINVAL, strcmp(name, "domain") == 0 ? "it names no domain" : "it names no directory");
        if (into == &uri->nbd_certificates && **value != '/')
                return fail(reterr, -EINVAL, "nbd-certificates is no absolute path");
        if (into) {
                free(*into);
                *into = STEAL_PTR(*value);
                return 1;
        }
        free(STEAL_PTR(uri->nbd_host));
        rc = uri_split_address(*value, strlen(*value), &uri->nbd_host, &uri->nbd_port, reterr);
        return rc < 0 ? rc : 1;
}

/* Copies the query's other parameters behind the URI, as they are, and takes ours out. */
static int split_query(const char *query, LibvirtUri *uri, Reason *reterr) {
        char *end = uri->uri + strlen(uri->uri);
        char separator = '?';

        for (;;) {
                CLEANUP(freep) char *name = NULL, *value = NULL;
                const char *start = query + strspn(query, "&");
                size_t length = strcspn(start, "&");
                int rc;

                rc = uri_next_parameter(&query, &name, &value);
                if (rc == -EINVAL)
                        return fail(reterr, rc, "its query has a \"%%\" that is no escape");
                if (rc < 0)
                        return fail_oom(reterr);
                if (rc == 0)
                        break;
                rc = take_parameter(name, &value, uri, reterr);
                if (rc < 0)
                        return rc;
                if (rc == 0) {
                        *end++ = separator;
                        memcpy(end, start, length);
                        end += length;
                        separator = '&';
                }
        }
        *end = 0;
        return 0;
}

/* The host of an authority "user@host:port"; its port is that of libvirt. */
static int take_host(const char *authority, size_t length, LibvirtUri *uri, Reason *reterr) {
        const char *at = memrchr(authority, '@', length);
        unsigned port;

        if (at) {
                length -= (size_t) (at + 1 - authority);
                authority = at + 1;
        }
        return uri_split_address(authority, length, &uri->nbd_host, &port, reterr);
}

int libvirt_uri_parse(const char *text, LibvirtUri *ret, Reason *reterr) {
        CLEANUP(libvirt_uri_clear) LibvirtUri uri = { 0 };
        CLEANUP(freep) char *shown = NULL;
        const char *authority = strstr(text, "://"), *query = strchr(text, '?');
        size_t length = query ? (size_t) (query - text) : strlen(text);
        size_t host_length;
        int rc = 0;

        if (uri_hide_passwords(text, &shown) < 0)
                return fail_oom(reterr);
        if (!authority || authority > text + length)
                return fail(reterr, -EINVAL, "%s is no libvirt URI: that is written like qemu:///system", shown);
        authority += 3;
        uri.uri = malloc(strlen(text) + 1);
        if (!uri.uri)
                return fail_oom(reterr);
        memcpy(uri.uri, text, length);
        uri.uri[length] = 0;
        if (query)
                rc = split_query(query + 1, &uri, reterr);
        host_length = strcspn(authority, "/?");
        if (rc == 0 && !uri.nbd_host && host_length > 0)
                rc = take_host(authority, host_length, &uri, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "%s", shown);
        uri.local = !uri.nbd_host;
        uri.session = strncmp(authority + host_length, "/session", 8) == 0 && (!uri.local || geteuid() != 0);
        if (uri_hide_passwords(uri.uri, &uri.shown) < 0)
                return fail_oom(reterr);
        *ret = uri;
        uri = (LibvirtUri) { 0 };
        return 0;
}
