/* core/sources/disk-list.h - a VM that no hypervisor tells of: a list of disks that have URIs of their own, "vda=nbd://…
 * vdb=file:///…", each of a kind from disk-source.h.
 *
 * The disks begin one after the other: that they show one moment is for who serves them to see to. No checkpoint is made.
 * What the point says of its checkpoint are the bitmaps (or what else disks name): one name where all disks have the same,
 * else "vda=NAME vdb=NAME", escaped as in a URI. A bitmap tells what changed since a point that says its name, no other. */
#pragma once

#include "sources/source.h"

extern const SourceOps disk_list_source_ops;
