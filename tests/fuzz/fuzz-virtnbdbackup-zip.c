/* tests/fuzz/fuzz-virtnbdbackup-zip.c - a zip file of streams of virtnbdbackup. */
#include "fuzz-layer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        fuzz_format(format_named("virtnbdbackup"), "vm1.zip", data, size);
        return 0;
}
