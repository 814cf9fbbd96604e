/* tests/fuzz/fuzz-qcow2.c - a qcow2 image: header and extensions, snapshots, bitmaps, tables, compressed clusters. */
#include "formats/qcow2/find.h"
#include "fuzz-layer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        fuzz_format(format_named("qcow2"), "disk.qcow2", data, size);
        return 0;
}
