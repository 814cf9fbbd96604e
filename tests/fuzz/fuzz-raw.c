/* tests/fuzz/fuzz-raw.c - a raw image: what is told to be one by its first bytes. */
#include "formats/raw.h"
#include "fuzz-layer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        fuzz_format(format_named("raw"), "disk", data, size);
        return 0;
}
