/* core/sources/disk-nbd.h - a disk behind an NBD server that somebody else runs: see nbd-uri.h.
 *
 * It shows one moment only where nothing writes to what the server serves: that is for who runs it to see to. */
#pragma once

#include "sources/disk-source.h"

extern const DiskSourceOps disk_nbd_ops;
