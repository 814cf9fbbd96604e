/* core/sources/tpm-place.h - where libvirt has swtpm keep the state of a VM's TPM. Needs no libvirt. */
#pragma once

#include <stdbool.h>

/* session: of a VM that runs as the user that asks. version: the last part of the directory's name, "tpm2" or "tpm1.2". The
 * caller frees it; NULL: no memory. */
char *tpm_place(bool session, const char *uuid, const char *version);
