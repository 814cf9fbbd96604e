/* core/sources/job-xml.h - the XML of libvirt's backup jobs and checkpoints, written and read. Needs no libvirt. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "util/io.h"
#include "util/reason.h"

typedef struct JobDisk {
        const char *name;
        bool backup;        /* or else only named, so that libvirt leaves it alone */
        bool incremental;
        bool checkpoint;    /* gets a bitmap */
        const char *scratch; /* path of the file that takes what guest writes would overwrite */
} JobDisk;

/* The disk's name is its export's, and that of its bitmap's export. base may be NULL where no disk is incremental.
 * The caller frees *ret of all these. */
int job_xml_backup(const JobDisk *disks, size_t count, const char *base, const char *socket, char **ret, Reason *reterr);
int job_xml_checkpoint(const JobDisk *disks, size_t count, const char *name, char **ret, Reason *reterr);

/* The socket of a running job as virDomainBackupGetXMLDesc() gives it, or NULL where it listens elsewhere. */
int job_xml_socket(const char *backup, char **ret, Reason *reterr);

/* A checkpoint's definition as it can be redefined: without its parent, which may be unknown by now, and with
 * the disks named alone (not NULL, not empty). -EBADMSG, also where it is not the checkpoint of that name. */
int job_xml_redefine(const char *definition, const char *name, const Strings *disks, char **ret, Reason *reterr);

/* The disks that a checkpoint's definition says have a bitmap. */
int job_xml_checkpoint_disks(const char *definition, Strings *ret, Reason *reterr);
