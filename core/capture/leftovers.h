/* core/capture/leftovers.h - what a capture that did not succeed leaves, and how it goes away: the same for the
 * capture that fails, for its guardian, and for the next capture. The caller holds the VM's lock. */
#pragma once

#include <stdbool.h>

#include "repository/manifest.h"
#include "sources/source.h"

/* Whether the point is visible and was made by this capture. */
bool leftovers_committed(Vm *vm, const char *point, const char *capture);

/* Removes what captures wrote that no manifest names. Nothing at all where a manifest cannot be read, since it may name
 * any of it: that is no failure. */
int leftovers_remove_data(Vm *vm, Reason *reterr);

/* Deletes this repository's checkpoints but those that the newest point (NULL: there is none) names: its own, and the last
 * full one's where differential points start from it. */
int leftovers_keep_checkpoints(Source *source, const Manifest *newest, Reason *reterr);
/* The same for the newest visible point. Where its manifest cannot be read none is deleted: -EBADMSG. */
int leftovers_delete_checkpoints(Vm *vm, Source *source, Reason *reterr);
