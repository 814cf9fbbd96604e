/* fs/own-program.h - this program, to be started once more. */
#pragma once

#include <limits.h>

#include "util/reason.h"

/* Its path, wherever it lies; after an upgrade the very file that runs. */
int own_program(char ret[static PATH_MAX], Reason *reterr);
