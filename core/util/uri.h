/* core/util/uri.h - URIs: how they may be shown, and what stands in their queries. Threads: any. */
#pragma once

#include <stddef.h>

#include "util/reason.h"

/* The text with "***" in the place of each password ("scheme://user:password@host") and each ticket
 * ("https://host/images/ticket"), which are no one's business: neither a list's nor a log's. -ENOMEM. The caller frees
 * *ret. */
int uri_hide_passwords(const char *text, char **ret);

/* Takes the next parameter off a query, the text behind the "?": 1, 0 where there is no more, -EINVAL for a "%" that is no
 * escape or one of a NUL, -ENOMEM. name=value, unescaped; a value that is not there is empty. The caller frees both. */
int uri_next_parameter(const char **query, char **ret_name, char **ret_value);

/* The bytes with "%41" read as "A". -EINVAL and -ENOMEM as above. The caller frees *ret. */
int uri_unescape(const char *text, size_t length, char **ret);
/* The text as a value of a query: what could be taken for something else becomes "%41". The caller frees *ret. -ENOMEM. */
int uri_escape(const char *text, char **ret);

/* HOST, HOST:PORT, [ADDRESS]:PORT: the host without brackets, and the port, 0 where there is none. An IPv6 address without
 * brackets has no port. -EINVAL. The caller frees *ret_host. */
int uri_split_address(const char *text, size_t length, char **ret_host, unsigned *ret_port, Reason *reterr);
