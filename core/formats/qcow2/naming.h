/* core/formats/qcow2/naming.h - of which disk and which point the images of a directory are.
 *
 * What a name says by itself (image-name.h) counts. Else the disk is the stem of its base, and the point what its name has
 * beyond what all of the chain begin with: vda, vda.monday, vda.tuesday are "", "monday", "tuesday" of the disk vda.
 *
 * Labels are the same for disks that are named alike, and different for the images of one chain. */
#pragma once

#include "formats/qcow2/family.h"

/* Sets label of all images and disk of all bases. -ENOMEM. */
int family_name(Family *family);
