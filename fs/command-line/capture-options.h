/* fs/command-line/capture-options.h - the command line of `capture`. */
#pragma once

#include <stdbool.h>

#include "capture/options.h"
#include "command-line/command.h"

typedef struct CaptureArguments {
        CaptureOptions options; /* the caller's functions and flags are left as they were; strings are borrowed */
        char *source;           /* to be freed; or NULL */
        bool json;              /* progress as JSON lines on stderr */
        int notify_fd;          /* where whoever started us for a trigger learns whether the capture was accepted; or -1 */
} CaptureArguments;

extern const CommandOption capture_command_options[];

/* -1 where the options are right, else the status to exit with. */
int capture_arguments_parse(const Command *command, int argc, char **argv, CaptureArguments *ret);
