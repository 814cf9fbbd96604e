/* core/formats/virtnbdbackup/plain.h - bytes as they lie as a layer without holes: files that a zip file keeps beside
 * streams. */
#pragma once

#include "formats/layer.h"

/* Takes bytes, also where it fails. */
int plain_open(ByteStore *bytes, Layer **ret, Reason *reterr);
