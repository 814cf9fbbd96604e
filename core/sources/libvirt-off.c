#include "sources/libvirt-private.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "sources/image-identity.h"
#include "sources/image-info.h"
#include "sources/image-server.h"
#include "util/text.h"

typedef struct OffDisk {
        bool incremental;
        ImageChain chain;
        ImageServer *server;
} OffDisk;

struct OffJob {
        OffDisk *disks;     /* for each disk of the inspection */
        size_t count;
        char *definition;   /* of the checkpoint; may be NULL */
};

static void off_job_free(OffJob *job) {
        for (size_t i = 0; i < job->count; i++) {
                OffDisk *disk = &job->disks[i];

                if (disk->server)
                        image_server_stop(disk->server);
                image_chain_clear(&disk->chain);
        }
        free(job->disks);
        free(job->definition);
        free(job);
}

static void off_job_freep(OffJob **job) {
        if (*job)
                off_job_free(*job);
}

/* Why a disk that could be captured while the VM runs cannot be now. */
static const char *reason_to_leave_out(const DomainDisk *disk) {
        if (disk->encrypted)
                return "it is encrypted by QEMU, which alone can decrypt it; it is captured while the VM runs";
        if (!disk->path)
                return "its image is no file or block device of this machine; it is captured while the VM runs";
        if (disk->sliced)
                return "it is a part of its image; it is captured while the VM runs";
        for (const char *c = disk->format; *c; c++)
                if (!isalnum((unsigned char) *c) && *c != '-')
                        return "its image's format is not known";
        return NULL;
}

/* The definition of a VM that is off does not always tell the backing files. */
static int complete_images(const LibvirtSource *source, DomainDisk *disk, Reason *reterr) {
        CLEANUP(image_chain_clear) ImageChain chain = { 0 };
        int rc;

        if (access(disk->path, R_OK) < 0)
                return fail_errno(reterr, -errno,
                                  errno == EACCES ? "the VM is off, and its image %s is not readable for this user"
                                                  : "cannot open the image %s", disk->path);
        rc = image_chain_read(disk->path, disk->format, source->source.owner.cancel, &chain, reterr);
        for (size_t i = disk->images.count; rc == 0 && i < chain.count; i++) {
                CLEANUP(freep) char *identity = NULL;

                if (image_path_identity(chain.images[i].path, &identity) < 0 || strings_add(&disk->images, identity) < 0)
                        return fail_oom(reterr);
        }
        return rc;
}

int libvirt_off_inspect(LibvirtSource *source, virDomainPtr domain, Reason *reterr) {
        if (!source->uri.local)
                return fail(reterr, -EHOSTDOWN, "%s is shut off, on another machine, where its images cannot be read from "
                                                "here: start it, or capture there", source->name);
        if (virDomainHasManagedSaveImage(domain, 0) > 0)
                source_warn(&source->source.owner, "it is saved rather than shut off: what was in its memory is not "
                                                   "captured");
        for (size_t i = 0; i < source->domain.disk_count; i++) {
                DomainDisk *disk = &source->domain.disks[i];
                const char *why = disk->left_out ? NULL : reason_to_leave_out(disk);
                int rc;

                if (disk->left_out || !source_wants_disk(&source->source.owner, disk->name))
                        continue;
                if (why) {
                        disk->left_out = strdup(why);
                        if (!disk->left_out)
                                return fail_oom(reterr);
                        continue;
                }
                rc = complete_images(source, disk, reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "%s", disk->name);
        }
        return 0;
}

/* Whether the bitmap in the top image has all that changed since it was made. */
static int check_bitmap(const ImageChain *chain, const char *disk, const char *name, Reason *reterr) {
        const ImageBitmap *bitmap = image_find_bitmap(&chain->images[0], name);

        for (size_t i = 1; i < chain->count; i++)
                if (image_find_bitmap(&chain->images[i], name))
                        return fail(reterr, -ESTALE, "%s: the changes since the last point are in the bitmaps of several "
                                                     "images, which are put together only while the VM runs", disk);
        if (!bitmap)
                return fail(reterr, -ESTALE, "%s: its image has no bitmap of the last point, which QEMU stores when it ends "
                                             "in good order", disk);
        if (!bitmap->consistent)
                return fail(reterr, -ESTALE, "%s: its bitmap is inconsistent: QEMU did not end in good order", disk);
        if (!bitmap->recording)
                return fail(reterr, -ESTALE, "%s: its bitmap was not kept up", disk);
        return 0;
}

static int open_reader(const LibvirtSource *source, const OffDisk *disk, const SourceView *view, SourceReader **ret,
                       Reason *reterr) {
        return image_server_open_reader(disk->server, view, 0, source->source.owner.cancel, ret, reterr);
}

/* Starts its server and sees that it answers: what is wrong is known before anything is written. Without locks, which would
 * keep the VM from starting. */
static int begin_disk(const LibvirtSource *source, const DomainDisk *from, OffDisk *disk, size_t index, Reason *reterr) {
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        CLEANUP(freep) char *socket_path = NULL;
        const SourceView view = { .incremental = disk->incremental, .ask_zero = true };
        ImageServing serving = {
                .chain = &disk->chain,
                .bitmap = disk->incremental ? source->checkpoint : NULL,
                .shared = true,
        };
        int rc;

        rc = image_chain_read(from->path, from->format, source->source.owner.cancel, &disk->chain, reterr);
        if (rc == 0 && disk->incremental)
                rc = check_bitmap(&disk->chain, from->name, source->checkpoint, reterr);
        if (rc < 0)
                return rc;
        if (text_format(&socket_path, "%s/%zu.nbd", source->place.made[0], index) < 0)
                return fail_oom(reterr);
        serving.socket_path = socket_path;
        rc = image_server_start(&serving, &disk->server, reterr);
        if (rc == 0)
                rc = open_reader(source, disk, &view, &reader, reterr);
        return rc < 0 ? fail_within(reterr, rc, "%s", from->name) : 0;
}

/* That nothing has happened to the VM and its images since they were opened. Asks nobody. */
static int check_untouched(const LibvirtSource *source, Reason *reterr) {
        if (libvirt_was_started(source))
                return fail(reterr, -ESTALE, "the VM was started while it was captured off; capture again");
        for (size_t i = 0; i < source->off->count; i++) {
                int rc = image_server_check_untouched(source->off->disks[i].server, reterr);

                if (rc < 0)
                        return rc;
        }
        return 0;
}

static int check_still_off(LibvirtSource *source, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc;

        rc = libvirt_find_domain(source, &domain, reterr);
        if (rc < 0)
                return rc;
        if (libvirt_is_active(domain))
                return fail(reterr, -ESTALE, "the VM was started while it was captured off; capture again");
        return libvirt_code(0) == -ENOTCONN ? fail_libvirt(reterr, -EIO, "cannot get the VM's state") : 0;
}

static int begin_disks(LibvirtSource *source, const SourceJob *job, Reason *reterr) {
        OffJob *off = source->off;

        off->disks = calloc(source->captured_count + 1, sizeof *off->disks);
        if (!off->disks)
                return fail_oom(reterr);
        for (size_t i = 0; i < source->captured_count; i++) {
                const DomainDisk *from = &source->domain.disks[source->captured[i]];
                OffDisk *disk = &off->disks[off->count++];
                int rc;

                disk->incremental = job->base && job->incremental[i];
                rc = begin_disk(source, from, disk, i, reterr);
                if (rc < 0)
                        return disk->incremental ? source_blame(job, i, rc) : rc;
        }
        return 0;
}

/* Whether all disks that can track changes do so from this checkpoint on. */
static bool is_kept_up(const LibvirtSource *source, const char *checkpoint) {
        bool any = false;

        for (size_t i = 0; i < source->off->count; i++) {
                const DomainDisk *disk = &source->domain.disks[source->captured[i]];

                if (disk->why_not)
                        continue;
                if (check_bitmap(&source->off->disks[i].chain, disk->name, checkpoint, NULL) < 0)
                        return false;
                any = true;
        }
        return any;
}

/* Without a base: one that is there all the same serves the next point. Ours sort by age. */
static int find_checkpoint(LibvirtSource *source, virDomainPtr domain, Reason *reterr) {
        CLEANUP(libvirt_checkpoint_freep) virDomainCheckpointPtr checkpoint = NULL;
        CLEANUP(freep) char *newest = NULL;
        virDomainCheckpointPtr *list = NULL;
        char prefix[JOB_TAG_MAX];
        int count = virDomainListAllCheckpoints(domain, &list, 0);

        job_repository_prefix(source->source.owner.repository, prefix);
        for (int i = 0; i < count; i++) {
                const char *name = virDomainCheckpointGetName(list[i]);

                if (strncmp(name, prefix, strlen(prefix)) == 0 && (!newest || strcmp(name, newest) > 0) &&
                    is_kept_up(source, name)) {
                        free(newest);
                        newest = strdup(name);
                }
                virDomainCheckpointFree(list[i]);
        }
        free(list);
        checkpoint = newest ? virDomainCheckpointLookupByName(domain, newest, 0) : NULL;
        if (!checkpoint)
                return 0;
        source->off->definition = virDomainCheckpointGetXMLDesc(checkpoint, VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN);
        if (!source->off->definition)
                return fail_libvirt(reterr, -EIO, "cannot get the definition of a checkpoint");
        source->checkpoint = STEAL_PTR(newest);
        return 0;
}

static int begin_in_place(LibvirtSource *source, virDomainPtr domain, const SourceJob *job, Reason *reterr) {
        CLEANUP(off_job_freep) OffJob *off = calloc(1, sizeof *off);
        int rc;

        if (!off)
                return fail_oom(reterr);
        /* It stays what changes are tracked from: none can be made now. */
        source->checkpoint = job->base ? strdup(job->base) : NULL;
        off->definition = job->base_definition ? strdup(job->base_definition) : NULL;
        if ((job->base && !source->checkpoint) || (job->base_definition && !off->definition))
                return fail_oom(reterr);
        source->off = STEAL_PTR(off);
        rc = libvirt_meanwhile_start(source, domain, reterr);
        if (rc == 0)
                rc = begin_disks(source, job, reterr);
        if (rc == 0 && !job->base)
                rc = find_checkpoint(source, domain, reterr);
        return rc == 0 ? check_still_off(source, reterr) : rc;
}

int libvirt_off_begin(LibvirtSource *source, virDomainPtr domain, const SourceJob *job, struct timespec *ret_moment,
                      Reason *reterr) {
        int rc;

        rc = begin_in_place(source, domain, job, reterr);
        if (rc < 0) {
                libvirt_off_end(source);
                return rc;
        }
        clock_gettime(CLOCK_REALTIME, ret_moment);
        return 0;
}

int libvirt_off_checkpoint(const LibvirtSource *source, char **ret_name, char **ret_definition, Reason *reterr) {
        CLEANUP(freep) char *name = source->checkpoint ? strdup(source->checkpoint) : NULL;
        CLEANUP(freep) char *definition = source->off->definition ? strdup(source->off->definition) : NULL;

        if ((source->checkpoint && !name) || (source->off->definition && !definition))
                return fail_oom(reterr);
        *ret_name = STEAL_PTR(name);
        *ret_definition = STEAL_PTR(definition);
        return 0;
}

int libvirt_off_open_reader(const LibvirtSource *source, size_t disk, const SourceView *view, SourceReader **ret,
                            Reason *reterr) {
        return open_reader(source, &source->off->disks[disk], view, ret, reterr);
}

int libvirt_off_watch(const LibvirtSource *source, Reason *reterr) {
        return check_untouched(source, reterr);
}

int libvirt_off_confirm(LibvirtSource *source, Reason *reterr) {
        int rc = check_still_off(source, reterr); /* the better reason comes first */

        return rc == 0 ? check_untouched(source, reterr) : rc;
}

void libvirt_off_end(LibvirtSource *source) {
        OffJob *off = STEAL_PTR(source->off);

        libvirt_meanwhile_end(source);
        if (off)
                off_job_free(off);
        free(STEAL_PTR(source->checkpoint));
}
