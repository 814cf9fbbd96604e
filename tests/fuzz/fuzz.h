/* tests/fuzz/fuzz.h - what fuzz targets share. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* A target: must not crash, hang or leak, whatever the bytes are. Always 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
