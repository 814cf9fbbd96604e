/* core/formats/vma/extent.h - the header of an extent of a VMA archive, decoded and checked. */
#pragma once

#include <stdint.h>

#include "formats/vma/layout.h"
#include "util/reason.h"

/* A cluster, and where its stored blocks are. */
typedef struct VmaEntry {
        uint32_t cluster;
        uint8_t device;   /* 0: an empty entry */
        uint16_t mask;    /* which of its blocks are stored */
        uint32_t offset;  /* of the first of them, bytes behind the extent's header */
} VmaEntry;

typedef struct VmaExtent {
        uint32_t length; /* bytes, header and blocks */
        VmaEntry entries[VMA_EXTENT_ENTRIES];
} VmaExtent;

/* bytes: VMA_EXTENT_HEADER_SIZE of them; uuid: the archive's. Whether there are such devices and clusters is not looked at.
 * -EBADMSG with the reason. */
int vma_extent_load(unsigned char *bytes, const unsigned char *uuid, VmaExtent *ret, Reason *reterr);
