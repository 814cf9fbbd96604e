/* core/sources/libvirt-domain.h - what a domain's XML says of its disks. Needs no libvirt.
 *
 * Every disk is listed, also those that are left out, since a job's XML has to name them all. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "util/cleanup.h"
#include "util/reason.h"
#include "util/strings.h"

typedef struct DomainDisk {
        char *name;         /* target: "vda"; no slash, no dot in front */
        char *left_out;     /* "it is a CD-ROM": why it cannot be captured; NULL: it can */
        char *why_not;      /* why its image cannot carry a bitmap; NULL: it can */
        bool encrypted;     /* by QEMU: what is read from it is decrypted */
        char *path;         /* of a file or block device; NULL: it is neither, or it is left out */
        char *format;       /* as the definition says; never guessed. NULL: left out */
        bool sliced;        /* the disk is a part of its image */
        Strings images;     /* identities, the image written to first, as SourceDisk has them */
} DomainDisk;

/* A file beside the disks that the VM needs. */
typedef struct DomainFile {
        const char *name;   /* static: "kernel", "nvram" */
        char *path;         /* absolute; NULL: it is no file */
        bool written;       /* by QEMU */
} DomainFile;
#define DOMAIN_FILES_MAX 8

/* The guest agent's channel. */
typedef enum DomainAgent {
        AGENT_NONE,  /* there is none */
        AGENT_AWAY,  /* nobody in the guest listens */
        AGENT_THERE,
} DomainAgent;

typedef struct Domain {
        DomainDisk *disks;
        size_t disk_count;
        DomainFile files[DOMAIN_FILES_MAX];
        size_t file_count;
        const char *tpm;    /* of swtpm: the last part of its directory's name, static; NULL: there is none */
        char *tpm_path;     /* of the directory, where the definition tells; or NULL */
        DomainAgent agent;
} Domain;
void domain_clear(Domain *domain);

/* local: the paths in the XML are those of this machine, so that files can be looked at. */
int domain_parse(const char *text, bool local, Domain *ret, Reason *reterr);
