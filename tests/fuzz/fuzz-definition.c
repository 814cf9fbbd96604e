/* tests/fuzz/fuzz-definition.c - a definition that was kept with a point, made into that of another VM. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "machine/definition.h"
#include "util/cleanup.h"

static void make(const char *text, const DefinitionWish *wish) {
        CLEANUP(freep) char *made = NULL;
        CLEANUP(strings_free) Strings notes = { 0 };

        (void) definition_make(text, wish, &made, &notes, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static const MachineDisk disks[] = {
                { .name = "vda", .path = "/new/vda.qcow2", .format = "qcow2", .backing = "/mnt/vda.raw" },
                { .name = "sda", .path = "/dev/new", .format = "raw", .block = true },
        };
        static const MachineFile files[] = {
                { "nvram", "/new/nvram" }, { "loader", "/new/loader" }, { "kernel", "/new/kernel" },
        };
        DefinitionWish wish = { .name = "new", .disks = disks, .disk_count = 2, .files = files, .file_count = 3 };
        CLEANUP(freep) char *text = calloc(1, size + 1), *name = NULL;
        CLEANUP(strings_free) Strings wanted = { 0 };
        char uuid[UUID_STR_LEN];

        if (!text)
                return 0;
        memcpy(text, data, size);
        make(text, &wish);
        wish.uuid = "99999999-8888-7777-6666-555555555555";
        wish.file_count = 0;
        wish.emulated = true;
        make(text, &wish);
        wish.isolated = true;
        wish.console = "/new/console";
        wish.agent = "/new/agent";
        make(text, &wish);
        (void) definition_identity(text, &name, uuid, NULL);
        (void) definition_files(text, &wanted, NULL);
        return 0;
}
