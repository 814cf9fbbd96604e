/* core/formats/virtnbdbackup/beside.h - what the tool keeps beside the streams, for the points that it is of.
 *
 * A definition, kernels, firmware, checkpoints and the like, whose names end in the ident of their backup. Logs, checksums
 * and lists of checkpoints are claimed and not shown.
 * Threads: one. */
#pragma once

#include "formats/virtnbdbackup/backup.h"

/* -ENOMEM. */
int beside_add(const Survey *survey, const Backups *backups);
