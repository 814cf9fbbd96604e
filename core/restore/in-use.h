/* core/restore/in-use.h - whether somebody else has a file or a device open, who would be hurt if it changed. */
#pragma once

#include "util/reason.h"

/* -EBUSY: a program has locked it, as QEMU does, or has it open at all, as far as that can be told. */
int file_check_unused(const char *path, Reason *reterr);

/* fd: of a file or device that is open. -EBUSY: somebody has locked a part of it. */
int file_check_unlocked(int fd, const char *path, Reason *reterr);
