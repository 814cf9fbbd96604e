/* core/libraries/library.h - libraries that are loaded when they are first needed.
 *
 * libvirt, libnbd, libcurl and libxml2 bring more than fifty others with them. A mount needs none of these, and with them it
 * starts in 54 ms from a cold disk where it takes 6 without; so each source loads what it asks with. Functions are called by
 * their own names, through tables that generate.py makes of the .names files here: a file that calls one includes
 * "libraries/NAME-functions.h" in place of the library's header, and NAME_load() comes first.
 * Threads: loading from any; what is loaded stays. */
#pragma once

#include <stddef.h>

#include "util/reason.h"

typedef struct Library {
        const char *file;           /* "libvirt.so.0" */
        const char *package;        /* that has it in Debian, for the message */
        const char *const *symbols;
        size_t count;
        void **addresses;           /* count of them, set by library_load() */
} Library;

/* -ENOPKG where it is not there, or lacks one of the symbols. */
int library_load(const Library *library, Reason *reterr);
