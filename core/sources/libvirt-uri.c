#include "sources/libvirt-uri.h"

#include <errno.h>
#include <libxml/uri.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/uri.h"

#define PARAMETER "domain="

void libvirt_uri_clear(LibvirtUri *uri) {
        free(uri->uri);
        free(uri->shown);
        free(uri->domain);
        *uri = (LibvirtUri) { 0 };
}

bool libvirt_uri_claims(const char *text) {
        return strncmp(text, "qemu:", 5) == 0 || strncmp(text, "qemu+", 5) == 0 || strncmp(text, "test:", 5) == 0;
}

static int unescape(const char *text, size_t length, char **ret) {
        char *copy, *plain;

        copy = strndup(text, length);
        if (!copy)
                return -ENOMEM;
        plain = xmlURIUnescapeString(copy, 0, NULL);
        free(copy);
        if (!plain)
                return -ENOMEM;
        *ret = strdup(plain);
        xmlFree(plain);
        return *ret ? 0 : -ENOMEM;
}

/* Copies the query's other parameters behind the URI, and takes ours out. */
static int split_query(const char *query, LibvirtUri *uri) {
        char *end = uri->uri + strlen(uri->uri);
        char separator = '?';

        while (*query) {
                size_t length = strcspn(query, "&");

                if (strncmp(query, PARAMETER, strlen(PARAMETER)) == 0) {
                        free(uri->domain);
                        uri->domain = NULL;
                        if (unescape(query + strlen(PARAMETER), length - strlen(PARAMETER), &uri->domain) < 0)
                                return -ENOMEM;
                } else if (length > 0) {
                        *end++ = separator;
                        memcpy(end, query, length);
                        end += length;
                        separator = '&';
                }
                query += length + (query[length] == '&');
        }
        *end = 0;
        return 0;
}

int libvirt_uri_parse(const char *text, LibvirtUri *ret, Reason *reterr) {
        CLEANUP(libvirt_uri_clear) LibvirtUri uri = { 0 };
        CLEANUP(freep) char *shown = NULL;
        const char *authority = strstr(text, "://"), *query = strchr(text, '?');
        size_t length = query ? (size_t) (query - text) : strlen(text);
        const char *path;

        if (uri_hide_passwords(text, &shown) < 0)
                return fail_oom(reterr);
        if (!authority || authority > text + length)
                return fail(reterr, -EINVAL, "%s is no libvirt URI: that is written like qemu:///system", shown);
        path = strchr(authority + 3, '/');
        uri.local = path == authority + 3;
        uri.session = path && strncmp(path, "/session", 8) == 0 && geteuid() != 0;
        uri.uri = malloc(strlen(text) + 1);
        if (!uri.uri)
                return fail_oom(reterr);
        memcpy(uri.uri, text, length);
        uri.uri[length] = 0;
        if (query && split_query(query + 1, &uri) < 0)
                return fail_oom(reterr);
        if (uri.domain && !*uri.domain)
                return fail(reterr, -EINVAL, "%s names no domain", shown);
        if (uri_hide_passwords(uri.uri, &uri.shown) < 0)
                return fail_oom(reterr);
        *ret = uri;
        uri = (LibvirtUri) { 0 };
        return 0;
}
