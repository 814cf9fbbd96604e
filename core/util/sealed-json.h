/* core/util/sealed-json.h - JSON files that notice when they have been changed.
 *
 * A sealed file is a JSON object that a person can read. Its last member is
 *     "checksum": "xxh3-64:0123456789abcdef"
 * in a line of its own: the XXH3-64 of all bytes of the file before that line's first. Nothing of a file whose
 * seal does not fit is used. The same sealing serves for every JSON file of a repository. */
#pragma once

#include <stddef.h>

#include "util/json.h"
#include "util/reason.h"

#define SEALED_JSON_LIMIT (16u << 20) /* bytes; a longer file is refused */

/* The file's text for an object without "checksum". The caller frees *ret. */
int sealed_json_dump(const json_t *object, char **ret, size_t *ret_length, Reason *reterr);

/* -EBADMSG where the seal, the syntax or the type is wrong. The caller owns *ret. */
int sealed_json_parse(const char *text, size_t length, json_t **ret, Reason *reterr);

/* As the two above with the files of file.h. -EEXIST from create. Reasons name the path. */
int sealed_json_create(int dir_fd, const char *path, const json_t *object, Reason *reterr);
int sealed_json_replace(int dir_fd, const char *path, const json_t *object, Reason *reterr);
int sealed_json_read(int dir_fd, const char *path, json_t **ret, Reason *reterr);
