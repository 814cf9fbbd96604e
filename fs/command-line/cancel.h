/* fs/command-line/cancel.h - Ctrl-C and its like end a command that takes long in good order. */
#pragma once

#include <stdatomic.h>

/* A flag that SIGINT, SIGTERM and SIGHUP set from now on. What was ignored when we were started (nohup, a shell's background
 * job) stays so. SIGPIPE is ignored. */
const atomic_bool *cancel_on_signals(void);
