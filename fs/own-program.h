/* fs/own-program.h - this program, to be started once more. */
#pragma once

#include "util/reason.h"

/* Its path, wherever it lies; after an upgrade the very file that runs. The caller frees *ret. */
int own_program(char **ret, Reason *reterr);
