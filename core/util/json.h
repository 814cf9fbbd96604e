/* core/util/json.h - what jansson leaves to be done for JSON that somebody else may have written, or will read.
 *
 * Cleanup of a json_t: jansson's own json_decrefp. */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "util/reason.h"

/* A JSON string of any text: what is no UTF-8 (a foreign message, a text cut in the middle) becomes '?'.
 * NULL: no memory. */
json_t *json_text(const char *text);

/* Members of an object, checked: -EBADMSG and a reason that names the key where it is missing, of another type
 * or (sizes) negative. Strings are borrowed from the object. */
int json_take_string(const json_t *object, const char *key, const char **ret, Reason *reterr);
/* *ret is NULL where it is null or missing. */
int json_take_optional_string(const json_t *object, const char *key, const char **ret, Reason *reterr);
/* Copied: the caller frees *ret. The optional one leaves *ret alone where it is null or missing. */
int json_take_copy(const json_t *object, const char *key, char **ret, Reason *reterr);
int json_take_optional_copy(const json_t *object, const char *key, char **ret, Reason *reterr);
int json_take_size(const json_t *object, const char *key, uint64_t *ret, Reason *reterr);
int json_take_array(const json_t *object, const char *key, json_t **ret, Reason *reterr); /* borrowed */
