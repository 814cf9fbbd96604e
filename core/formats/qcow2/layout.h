/* core/formats/qcow2/layout.h - numbers of the format that reading and writing have in common. */
#pragma once

#include <stdint.h>

#define QCOW2_MAGIC "QFI\xfb"
#define QCOW2_HEADER_LENGTH_V3 104u

enum { /* incompatible features */
        QCOW2_FEATURE_DIRTY = 1 << 0,
        QCOW2_FEATURE_CORRUPT = 1 << 1,
        QCOW2_FEATURE_DATA_FILE = 1 << 2,
        QCOW2_FEATURE_COMPRESSION = 1 << 3,
        QCOW2_FEATURE_EXTENDED = 1 << 4,
        QCOW2_FEATURES_KNOWN = (1 << 5) - 1,
};

enum { /* header extensions */
        QCOW2_EXTENSION_END = 0,
        QCOW2_EXTENSION_BACKING_FORMAT = 0xe2792aca,
        QCOW2_EXTENSION_FEATURE_NAMES = 0x6803f857,
        QCOW2_EXTENSION_BITMAPS = 0x23852875,
        QCOW2_EXTENSION_DATA_FILE = 0x44415441,
};

/* Entries of L1 and L2 tables. */
#define QCOW2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define QCOW2_COPIED (UINT64_C(1) << 63)     /* the reference count is 1 */
#define QCOW2_COMPRESSED (UINT64_C(1) << 62) /* L2 */
#define QCOW2_ZERO UINT64_C(1)               /* L2 */
