/* core/repository/manifest-json.h - a manifest and the JSON that it is stored as (manifest.h tells the members).
 *
 * Everything that comes from a file is checked in manifest_from_json(), each limit by name, and nothing afterwards. */
#pragma once

#include "repository/manifest.h"
#include "util/sealed-json.h"

/* The manifest of the point of this name. -EBADMSG, -ENOTSUP: needs a newer version; ret->vm is what the JSON says. */
int manifest_from_json(const json_t *object, const char *name, Manifest **ret, Reason *reterr);

/* NULL: no memory. */
json_t *manifest_to_json(const Manifest *manifest);
