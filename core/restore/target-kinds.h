/* core/restore/target-kinds.h - the kinds of targets, one file each: target-NAME.c. For the table of target.c alone. */
#pragma once

#include "restore/target.h"

extern const TargetOps target_device_ops, target_file_ops, target_imageio_ops, target_nbd_ops, target_qcow2_ops;
