/* core/sources/disk-imageio.h - a disk that oVirt's imageio serves: https://HOST:54322/images/TICKET, see imageio-uri.h.
 *
 * A transfer, and so its ticket, is made and ended with oVirt's own API. Of that of an incremental backup the server tells
 * what is dirty since the checkpoint that the backup starts from; which one that is it does not tell, so the URI does. */
#pragma once

#include "sources/disk-source.h"

extern const DiskSourceOps disk_imageio_ops;
