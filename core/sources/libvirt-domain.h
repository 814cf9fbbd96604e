/* core/sources/libvirt-domain.h - what a running domain's XML says of its disks. Needs no libvirt.
 *
 * Every disk is listed, also those that are left out, since a job's XML has to name them all. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "util/cleanup.h"
#include "util/io.h"
#include "util/reason.h"

typedef struct DomainDisk {
        char *name;         /* target: "vda"; no slash, no dot in front */
        char *left_out;     /* "it is a CD-ROM": why it cannot be captured; NULL: it can */
        char *why_not;      /* why its image cannot carry a bitmap; NULL: it can */
        bool encrypted;     /* by QEMU: what is read from it is decrypted */
        Strings images;     /* identities, the image written to first, as SourceDisk has them */
} DomainDisk;

/* The guest agent's channel. */
typedef enum DomainAgent {
        AGENT_NONE,  /* there is none */
        AGENT_AWAY,  /* nobody in the guest listens */
        AGENT_THERE,
} DomainAgent;

typedef struct Domain {
        DomainDisk *disks;
        size_t disk_count;
        char *nvram;        /* path, or NULL */
        DomainAgent agent;
} Domain;
void domain_clear(Domain *domain);

/* local: the paths in the XML are those of this machine, so that files can be looked at. */
int domain_parse(const char *text, bool local, Domain *ret, Reason *reterr);
