/* core/sources/disk-file.h - a disk in an image of this machine that no VM uses: any that qemu-nbd reads, which
 * does the reading.
 *
 * file:///PATH  file:PATH (relative to the current directory when it is registered); parameters, behind a "?":
 * format=FORMAT     as QEMU calls it; where it is not said, image-format.h tells
 * bitmap=NAME       of a qcow2 image: changes are told since then
 * checkpoint=NAME   a bitmap as well, which a later capture may start from; where it is not said, it is that of bitmap
 * timeout=SECONDS   how long qemu-nbd may say nothing */
#pragma once

#include "sources/disk-source.h"

extern const DiskSourceOps disk_file_ops;
