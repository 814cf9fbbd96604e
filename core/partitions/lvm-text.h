/* core/partitions/lvm-text.h - the text in which LVM keeps its metadata: sections of keys with numbers, words or lists. */
#pragma once

#include <jansson.h>
#include <stddef.h>

#include "util/reason.h"

/* As JSON: a section is an object. -EBADMSG where it is not such a text. The caller owns *ret. */
int lvm_text_parse(const char *text, size_t length, json_t **ret, Reason *reterr);
