/* core/repository/foreign/point-maker.h - the manifest of a point that another tool stored. Threads: one. */
#pragma once

#include "repository/foreign/group.h"
#include "repository/manifest.h"

/* parent: of the parent, or NULL. All but the serial is filled in. Its `capture` is made of all that it says and of the
 * parent's, so that it is the same for the same. -ENOMEM. */
int point_make(const Groups *groups, const GroupPoint *point, const char *vm, const char *uuid,
               const char name[static POINT_NAME_MAX], const Manifest *parent, Manifest **ret);
