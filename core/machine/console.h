/* core/machine/console.h - what a guest writes to its serial line: a socket that its QEMU connects to.
 *
 * Threads: belongs to one. */
#pragma once

#include <stdbool.h>

#include "util/cleanup.h"
#include "util/reason.h"

typedef struct Console Console;

/* Listens at the path, for whoever may reach it. */
int console_open(const char *path, Console **ret, Reason *reterr);
Console *console_close(Console *console); /* always NULL */
DEFINE_CLEANUP(Console, console_close)

/* Takes what comes within so many ms. */
void console_listen(Console *console, unsigned ms);
/* Whether the guest has written this. Of long ago it knows nothing: ask after each console_listen(). */
bool console_said(const Console *console, const char *text);
/* The last line that has something in it; "": none. */
void console_last_line(const Console *console, char *ret, size_t size);
