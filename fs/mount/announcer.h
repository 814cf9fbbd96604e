/* fs/mount/announcer.h - the log's lines about what a mount makes by the side: an archive is unpacked.
 *
 * One when it begins, one for each tenth, one at the end. Threads: any. */
#pragma once

#include "formats/layer.h"

LayerListener announcer(void);
