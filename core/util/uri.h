/* core/util/uri.h - URIs as they may be shown. Threads: any. */
#pragma once

/* The text with "***" in the place of each password ("scheme://user:password@host"), which is no one's business: neither a
 * list's nor a log's. The caller frees *ret. -ENOMEM. */
int uri_hide_passwords(const char *text, char **ret);
