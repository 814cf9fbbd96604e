/* core/formats/qcow2/series.h - incremental backups that do not say what they are based on: on the one before. */
#pragma once

#include "formats/qcow2/family.h"

/* Sets the backing of those images that their names say to be of a series (image-name.h), and notes it. Of the others the
 * header counts, as it does where the series has no full one before. -ENOMEM. */
int family_link_series(Family *family);
