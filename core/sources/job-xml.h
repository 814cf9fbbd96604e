/* core/sources/job-xml.h - the XML of libvirt's backup jobs and checkpoints, written and read. Needs no libvirt. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "util/reason.h"
#include "util/strings.h"

typedef struct JobDisk {
        const char *name;
        bool backup;        /* or else only named, so that libvirt leaves it alone */
        bool incremental;
        bool checkpoint;    /* gets a bitmap */
        const char *scratch; /* path of the file that takes what guest writes would overwrite */
} JobDisk;

/* Where the job's NBD server listens. */
typedef struct JobServer {
        const char *socket; /* path; NULL: by TCP */
        const char *host;   /* name or address */
        unsigned port;
        bool tls;
} JobServer;

/* The disk's name is its export's, and that of its bitmap's export. base may be NULL where no disk is incremental.
 * The caller frees *ret of all these. */
int job_xml_backup(const JobDisk *disks, size_t count, const char *base, const JobServer *server, char **ret,
                   Reason *reterr);
int job_xml_checkpoint(const JobDisk *disks, size_t count, const char *name, char **ret, Reason *reterr);

/* The paths by which a running job, as virDomainBackupGetXMLDesc() gives it, is known: its socket, its scratch files. */
int job_xml_paths(const char *backup, Strings *ret, Reason *reterr);

/* A checkpoint's definition as it can be redefined: without its parent, which may be unknown by now, and with
 * the disks named alone (not NULL, not empty). -EBADMSG, also where it is not the checkpoint of that name. */
int job_xml_redefine(const char *definition, const char *name, const Strings *disks, char **ret, Reason *reterr);

/* The disks that a checkpoint's definition says have a bitmap. */
int job_xml_checkpoint_disks(const char *definition, Strings *ret, Reason *reterr);
