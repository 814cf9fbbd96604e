/* core/repository/document.h - what all JSON files of a repository begin with: which kind of file this is.
 *
 *     "format": KIND, "version": 1, "features": []
 * A greater version and a feature that is not known are refused: whoever wrote them means that a reader has to know. */
#pragma once

#include "util/sealed-json.h"

/* An object with these members. NULL: no memory. */
json_t *document_new(const char *kind, unsigned version);

/* -EBADMSG: another kind of file; -ENOTSUP: it needs a newer version of this program. */
int document_check(const json_t *object, const char *kind, unsigned version, Reason *reterr);
