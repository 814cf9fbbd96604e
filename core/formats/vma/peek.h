/* core/formats/vma/peek.h - the header of an archive, from its beginning alone, packed or not. */
#pragma once

#include "formats/vma/header.h"
#include "formats/vma/unpacker.h"

/* *ret_packing is NULL where the file is not packed. -EBADMSG with the reason: no archive, or damaged. */
int vma_peek(ByteStore *file, const Packing **ret_packing, VmaHeader **ret, Reason *reterr);
