/* core/repository/foreign/disk-maker.h - what a manifest says of a disk that another tool stored, and what can be said
 * against it. Threads: one. */
#pragma once

#include "repository/foreign/group.h"
#include "repository/manifest.h"

#define DISK_NAME_MAX 200 /* bytes: a suffix is put behind it */

/* Fills a zeroed one, which the manifest frees, also after a failure. What is wrong with the disk is its problem.
 * -ENOMEM. */
int disk_make(const Groups *groups, const GroupPoint *point, const FoundLayer *found, ManifestDisk *disk);

/* Adds what the same disk of the parent holds to its data. parent: NULL where there is none. */
void disk_rest_on(ManifestDisk *disk, const Manifest *parent);

/* There is a second layer of it: none can be trusted. */
int disk_refuse_double(ManifestDisk *disk, const FoundLayer *first, const FoundLayer *second);
