/* core/machine/definition-private.h - what the files that rewrite a definition share.
 *
 * definition.c         what the VM is: name, UUID, processor; how it boots
 * definition-disks.c   its disks
 * definition-devices.c all other devices */
#pragma once

#include "machine/definition.h"
#include "util/xml.h"

/* A definition being rewritten. All do nothing once rc is negative. */
typedef struct Rewrite {
        xmlNode *root, *devices;
        const DefinitionWish *wish;
        Strings notes;
        int rc;
} Rewrite;

static inline bool is_new(const Rewrite *rewrite) {
        return rewrite->wish->uuid;
}

void rewrite_note(Rewrite *rewrite, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Whether this host has something at the path. NULL: no. */
bool rewrite_exists(const char *path);

void rewrite_disks(Rewrite *rewrite);
/* path: NULL: nothing is below it, and nothing is looked for. */
void disk_set_backing(xmlNode *disk, const char *path, int *rc);
void rewrite_devices(Rewrite *rewrite);
