/* core/export/export.h - writes points for other tools.
 *
 * What is not whole never looks as if it were: files are made under the name TARGET.partial, and a stream to standard output
 * that is cut off is no archive. Threads: an export belongs to one thread; functions of ExportOptions are called from it. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "repository/vm.h"
#include "restore/restore.h"
#include "util/reason.h"

typedef struct ExportOptions {
        bool replace;              /* what is there already may go */
        const atomic_bool *cancel; /* or NULL */
        /* Both may be NULL. */
        void (*progress)(void *context, const RestoreProgress *disks, size_t count); /* a few times a second */
        void (*tell)(void *context, const char *line);
        void *context;
} ExportOptions;

/* A Proxmox VMA archive of the point: its disks, the files kept with it (a "vmstate" among them as RAM), and, where none is
 * kept, a qemu-server.conf made of its domain.xml, so that qmrestore takes it. Read by several threads, written front to
 * back. target: a path, or "-": standard output. -EEXIST, -ENOSPC, -ECANCELED; -EIO where some of it cannot be read. */
int export_vma(Vm *vm, const char *point, const char *target, const ExportOptions *options, Reason *reterr);

/* One disk at the point and all the points that it rests on, as qcow2 images DISK.POINT.qcow2 in a directory, which is made
 * where there is none: each has what its point changed and the one before as its backing file. */
int export_qcow2_chain(Vm *vm, const char *point, const char *disk, const char *directory, const ExportOptions *options,
                       Reason *reterr);
