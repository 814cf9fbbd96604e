/* core/util/text.h - texts that are made of others. */
#pragma once

/* As asprintf(3), but 0 or -ENOMEM: *ret is NULL then. The caller frees it. */
int text_format(char **ret, const char *format, ...) __attribute__((format(printf, 2, 3)));
