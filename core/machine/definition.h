/* core/machine/definition.h - the definition that was kept of a VM, made into that of one which runs from other disks, on
 * this host and maybe beside the first. Needs no libvirt.
 *
 * What was the first VM's alone (UUID, MAC addresses, sockets, ports, NVRAM) is replaced unless the identity is kept. What
 * cannot be had here is left out, with a note that says so in words: nothing is left out silently. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <uuid/uuid.h>

#include "util/reason.h"
#include "util/strings.h"

typedef struct MachineDisk {
        const char *name;    /* its target: "vda" */
        const char *path;    /* absolute */
        const char *format;  /* "raw", "qcow2" */
        bool block;          /* a block device */
        const char *backing; /* the raw image below it; NULL: nothing */
} MachineDisk;

/* A file that was kept with the point, where it is now. */
typedef struct MachineFile {
        const char *name; /* as it was kept: "nvram", "kernel" */
        const char *path; /* absolute */
} MachineFile;

typedef struct DefinitionWish {
        const char *name;
        const char *uuid;        /* a new identity; NULL: that of the definition is kept */
        const MachineDisk *disks;
        size_t disk_count;
        const MachineFile *files;
        size_t file_count;
        const char *console;     /* a socket that its first serial line connects to; NULL: as it was */
        const char *agent;       /* a socket for its guest agent, which gets one where it has none; NULL: libvirt's choice */
        bool unplugged;          /* network interfaces are there, but lead nowhere */
        bool isolated;           /* for a test: unplugged, and nothing of this host is used or shared */
        bool emulated;           /* this host has no KVM */
} DefinitionWish;

/* *ret is the new text, *ret_notes what the user has to know of it. -EBADMSG: it is no definition. The caller frees both. */
int definition_make(const char *text, const DefinitionWish *wish, char **ret, Strings *ret_notes, Reason *reterr);

/* The definition of a VM with a raw image below one of its disks. The caller frees *ret. */
int definition_set_backing(const char *text, const char *disk, const char *backing, char **ret, Reason *reterr);

/* Name and UUID (in lower case) of a definition. The caller frees *ret_name. -EBADMSG. */
int definition_identity(const char *text, char **ret_name, char ret_uuid[static UUID_STR_LEN], Reason *reterr);

/* Of the files that were kept with it, the names of those that the VM needs here: of its loader only where this host has
 * none at that path. A TPM's state is not among them. */
int definition_files(const char *text, Strings *ret, Reason *reterr);
