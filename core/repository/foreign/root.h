/* core/repository/foreign/root.h - a directory in which other tools store, as it is now.
 *
 * It is looked through when it is first asked for, and again where a directory in it, or a file that could not be used, has
 * changed: not more often than once a second, nor than it takes itself. Nothing is ever written there.
 * Threads: any. One thread looks; others go on with what was found before, and wait only where nothing was. */
#pragma once

#include <jansson.h>

#include "repository/backend.h"
#include "repository/foreign/collection.h"

/* The root of this absolute path, which lives as long as the repository. Not opened yet. */
int foreign_root_get(Repository *repository, const char *path, ForeignRoot **ret, Reason *reterr);
/* All in a list; NULL. */
ForeignRoot *foreign_roots_free(ForeignRoot *first);

const char *foreign_root_path(const ForeignRoot *root);
/* Of what was found; valid once foreign_root_look() has succeeded. */
LayerStore *foreign_root_layers(ForeignRoot *root);

/* What is in it, as lately as it may be; the caller unrefs. now: it is looked through whatever was seen before, as something
 * is not as it was found. -ENOENT, -EACCES … where it cannot be opened. */
int foreign_root_look(ForeignRoot *root, bool now, Collection **ret, Reason *reterr);
/* When it was last found to have changed. */
struct timespec foreign_root_changed(ForeignRoot *root);
/* Adds {"path", "reason"} for what could not be used. absolute: with the path of the root. */
int foreign_root_refusals(ForeignRoot *root, bool absolute, json_t *list, Reason *reterr);
/* The same for all roots that have been looked at. */
int foreign_unrecognised(Repository *repository, json_t *list, Reason *reterr);
