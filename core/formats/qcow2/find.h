/* core/formats/qcow2/find.h - finds chains of qcow2 images: a point for each image, and for each internal snapshot.
 *
 * Several chains in one directory are several disks of one VM; which images of them are of the same point is told by
 * naming.h. The base of a chain may be raw: it is claimed, whatever it is called. */
#pragma once

#include "formats/found.h"

int qcow2_find(FoundDirectory *directory, Reason *reterr);
