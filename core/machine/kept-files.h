/* core/machine/kept-files.h - the files beside the disks that a VM needs, put from a point to where its hypervisor looks.
 *
 * NAME-nvram, NAME-kernel and so on go beside the disks; the state of a TPM where libvirt has it for that UUID. */
#pragma once

#include "machine/definition.h"
#include "machine/hypervisor.h"
#include "repository/manifest.h"

typedef struct KeptFiles {
        MachineFile *files; /* as definition_make() takes them */
        size_t count;
        Strings made;       /* every path that was made, directories behind what is in them */
} KeptFiles;

typedef struct KeptWish {
        Vm *vm;
        const Manifest *manifest;
        const char *definition; /* as it was kept */
        const char *directory;  /* absolute */
        const char *name;       /* of the VM that is made */
        const char *uuid;       /* of the same */
        const Hypervisor *hypervisor;
} KeptWish;

/* Also on failure *files has what was made, for kept_files_remove(). -EEXIST where a file is in the way. *ret_note: what
 * could not be done and is no reason to give up; NULL: nothing. */
int kept_files_write(const KeptWish *wish, KeptFiles *files, char **ret_note, Reason *reterr);
void kept_files_clear(KeptFiles *files);
/* Deletes what is named, as far as that works. */
void kept_files_remove(const Strings *made);
