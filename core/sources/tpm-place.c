#include "sources/tpm-place.h"

#include <stdio.h>
#include <stdlib.h>

#include "util/text.h"

#define SYSTEM_DIRECTORY "/var/lib/libvirt/swtpm"

char *tpm_place(bool session, const char *uuid, const char *version) {
        const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
        char *path = NULL;
        int rc;

        if (!session)
                rc = text_format(&path, SYSTEM_DIRECTORY "/%s/%s", uuid, version);
        else if (config && config[0] == '/')
                rc = text_format(&path, "%s/libvirt/qemu/swtpm/%s/%s", config, uuid, version);
        else
                rc = text_format(&path, "%s/.config/libvirt/qemu/swtpm/%s/%s", home ?: "", uuid, version);
        return rc < 0 ? NULL : path;
}
