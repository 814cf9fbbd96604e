/* tests/fuzz/fuzz-manifest.c - a point's manifest, past its seal. */
#include "fuzz.h"
#include "repository/manifest-json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        CLEANUP(json_decrefp) json_t *object = json_loadb((const char *) data, size, 0, NULL);
        CLEANUP(json_decrefp) json_t *again = NULL;
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;

        if (object && manifest_from_json(object, "2026-11-20T010203Z", &manifest, NULL) >= 0)
                again = manifest_to_json(manifest);
        return 0;
}
