#include "sources/libvirt-private.h"

#include <errno.h>
#include <string.h>

#define PATIENCE_MS 30000 /* for libvirtd to come back, and for a job to end */
#define POLL_MS 50
#define RECONNECT_MS 250

typedef enum JobFound {
        JOB_NONE,
        JOB_OURS,
        JOB_OTHER, /* somebody else's backup */
} JobFound;

static int find_job(LibvirtSource *source, virDomainPtr domain, JobFound *ret, Reason *reterr) {
        CLEANUP(freep) char *text = virDomainBackupGetXMLDesc(domain, 0);
        CLEANUP(freep) char *socket = NULL;
        char tag[JOB_TAG_MAX];
        int rc;

        if (!text) {
                const virError *error = virGetLastError();

                if (!error || (error->code != VIR_ERR_NO_DOMAIN_BACKUP && error->code != VIR_ERR_OPERATION_INVALID))
                        return fail_libvirt(reterr, -EIO, "cannot tell whether the VM has a backup job");
                *ret = JOB_NONE;
                return 0;
        }
        rc = job_xml_socket(text, &socket, reterr);
        if (rc < 0)
                return rc;
        job_tag(source->source.owner.repository, source->uuid, tag);
        *ret = job_is_ours(socket, tag) ? JOB_OURS : JOB_OTHER;
        return 0;
}

static int busy_with_other(Reason *reterr) {
        return fail(reterr, -EBUSY, "the VM has a backup job that another program began: wait for it, or end it with "
                                    "virsh domjobabort");
}

/* One attempt to end the job of ours; 0 as well when none is there any more. */
static int try_to_end(LibvirtSource *source, JobFound *ret_left, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        bool asked = false;
        Reason why;
        int rc;

        *ret_left = JOB_NONE;
        rc = libvirt_find_domain(source, &domain, reterr);
        if (rc == -ENOENT || rc == -ESTALE)
                return 0;
        if (rc < 0)
                return rc;
        for (int waited = 0; waited < PATIENCE_MS; waited += POLL_MS) {
                JobFound found;

                rc = find_job(source, domain, &found, reterr);
                if (rc == -ENOENT)
                        return 0;
                if (rc < 0)
                        return rc;
                if (found != JOB_OURS) {
                        *ret_left = found;
                        return 0;
                }
                /* A failure to abort is looked at again: the job may just have ended by itself. */
                if (!asked && virDomainAbortJob(domain) < 0) {
                        rc = fail_libvirt(&why, -EIO, "cannot end the backup job");
                        if (rc == -ENOTCONN)
                                return fail(reterr, rc, "%s", why.text);
                } else {
                        asked = true;
                        rc = 0;
                }
                usleep(POLL_MS * 1000);
        }
        return rc < 0 ? fail(reterr, rc, "%s", why.text) : fail(reterr, -ETIMEDOUT, "the backup job does not end");
}

/* Outlives a restart of libvirtd. */
static int end_ours(LibvirtSource *source, JobFound *ret_left, Reason *reterr) {
        Reason reason;
        int rc = -ENOTCONN;

        for (int waited = 0; rc == -ENOTCONN && waited < PATIENCE_MS; waited += RECONNECT_MS) {
                if (waited > 0)
                        usleep(RECONNECT_MS * 1000);
                rc = try_to_end(source, ret_left, &reason);
        }
        return rc < 0 ? fail(reterr, rc, "%s", reason.text) : 0;
}

int libvirt_end(Source *base, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        JobFound left;
        int rc, stillness;

        if (!source->begun)
                return 0;
        stillness = libvirt_let_go(source, reterr); /* where that failed before */
        rc = end_ours(source, &left, reterr);
        if (rc < 0)
                return rc; /* QEMU may still use the files */
        job_place_remove(&source->place);
        free(STEAL_PTR(source->checkpoint));
        source->begun = false;
        return stillness;
}

static JobPlaceWish place_wish(const LibvirtSource *source, virDomainPtr domain) {
        unsigned id = domain ? virDomainGetID(domain) : (unsigned) -1;

        return (JobPlaceWish) {
                .repository = source->source.owner.repository,
                .vm_uuid = source->source.owner.vm_uuid ?: source->uuid,
                .session = source->uri.session,
                .domain_id = (int) id,
                .domain_name = source->name,
                .scratch_directory = source->source.owner.scratch_directory,
        };
}

int libvirt_end_leftovers(Source *base, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        JobPlaceWish wish;
        JobFound left;
        int rc;

        rc = libvirt_let_go_leftovers(source, reterr);
        if (rc < 0)
                return rc;
        rc = end_ours(source, &left, reterr);
        if (rc < 0)
                return rc;
        libvirt_find_domain(source, &domain, NULL);
        wish = place_wish(source, domain);
        job_place_sweep(&wish);
        return left == JOB_OTHER ? busy_with_other(reterr) : 0;
}

/* A job of another kind would let the begin wait for its lock. */
static int check_no_job(LibvirtSource *source, virDomainPtr domain, Reason *reterr) {
        virDomainJobInfo info;
        JobFound found;
        int rc;

        rc = find_job(source, domain, &found, reterr);
        if (rc < 0)
                return rc;
        if (found == JOB_OURS) {
                rc = end_ours(source, &found, reterr);
                if (rc < 0)
                        return rc;
        }
        if (found == JOB_OTHER)
                return busy_with_other(reterr);
        if (virDomainGetJobInfo(domain, &info) == 0 &&
            (info.type == VIR_DOMAIN_JOB_BOUNDED || info.type == VIR_DOMAIN_JOB_UNBOUNDED))
                return fail(reterr, -EBUSY, "the VM is being migrated, saved or dumped: wait until that is done");
        return 0;
}

static void job_disks_free(JobDisk **disks) {
        for (JobDisk *disk = *disks; disk && disk->name; disk++)
                free((char *) disk->scratch);
        free(*disks);
}

static int job_disks(const LibvirtSource *source, const SourceJob *job, JobDisk **ret, Reason *reterr) {
        CLEANUP(job_disks_free) JobDisk *disks = calloc(source->domain.disk_count + 1, sizeof *disks);

        if (!disks)
                return fail_oom(reterr);
        for (size_t i = 0; i < source->domain.disk_count; i++)
                disks[i].name = source->domain.disks[i].name;
        for (size_t i = 0; i < source->captured_count; i++) {
                JobDisk *disk = &disks[source->captured[i]];

                disk->backup = true;
                disk->incremental = job->base && job->incremental[i];
                disk->checkpoint = !source->domain.disks[source->captured[i]].why_not;
                disk->scratch = job_place_scratch(&source->place, disk->name);
                if (!disk->scratch)
                        return fail_oom(reterr);
        }
        *ret = STEAL_PTR(disks);
        return 0;
}

/* Leaves nothing of a job that could not be begun, or of which nobody knows whether it was. */
static void undo_begin(LibvirtSource *source, const char *checkpoint) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        CLEANUP(libvirt_checkpoint_freep) virDomainCheckpointPtr made = NULL;
        JobFound left;

        end_ours(source, &left, NULL);
        job_place_remove(&source->place);
        if (!checkpoint || libvirt_find_domain(source, &domain, NULL) < 0)
                return;
        made = virDomainCheckpointLookupByName(domain, checkpoint, 0);
        if (made)
                libvirt_delete_checkpoint(domain, made, NULL);
}

/* What a failed begin means. Where a base was wanted, the base is to blame unless it is clearly something else:
 * without one it is tried again, and then it fails with its true cause. */
static int begin_failed(virDomainPtr domain, bool incremental, Reason *reterr) {
        int rc = libvirt_code(incremental ? -ESTALE : -EIO);

        fail(reterr, rc, "cannot begin a backup job: %s", libvirt_words());
        if (rc != -ENOTCONN && rc != -EBUSY && !libvirt_is_active(domain))
                return fail_within(reterr, -EHOSTDOWN, "the VM has stopped");
        return rc;
}

static int begin_in_place(LibvirtSource *source, virDomainPtr domain, const SourceJob *job, struct timespec *ret_moment,
                          Reason *reterr) {
        CLEANUP(freep) char *backup = NULL, *checkpoint = NULL, *name = NULL;
        CLEANUP(job_disks_free) JobDisk *disks = NULL;
        bool incremental = false, marked = false;
        Reason reason;
        int rc;

        rc = job_disks(source, job, &disks, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < source->domain.disk_count; i++) {
                incremental |= disks[i].incremental;
                marked |= disks[i].checkpoint;
        }
        if (incremental) {
                rc = libvirt_ensure_base(source, domain, job, disks, reterr);
                if (rc < 0)
                        return rc;
        }
        rc = job_xml_backup(disks, source->domain.disk_count, job->base, source->place.socket, &backup, reterr);
        if (rc == 0 && marked && job->checkpoint) {
                rc = job_xml_checkpoint(disks, source->domain.disk_count, job->checkpoint, &checkpoint, reterr);
                name = strdup(job->checkpoint);
        }
        if (rc < 0 || (checkpoint && !name))
                return rc < 0 ? rc : fail_oom(reterr);
        /* The moment lies between here and the return; the checkpoint's own creation time is taken the same way. */
        rc = libvirt_hold_still(source, domain, job, reterr);
        if (rc == 0) {
                clock_gettime(CLOCK_REALTIME, ret_moment);
                if (virDomainBackupBegin(domain, backup, checkpoint, 0) < 0)
                        rc = begin_failed(domain, incremental, reterr);
        }
        if (libvirt_let_go(source, &reason) < 0)
                libvirt_warn(source, "%s", reason.text);
        if (rc < 0)
                return rc;
        source->checkpoint = STEAL_PTR(name);
        return 0;
}

int libvirt_begin(Source *base, const SourceJob *job, struct timespec *ret_moment, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        struct timespec moment;
        JobPlaceWish wish;
        int rc;

        if (!source->uri.local)
                return fail(reterr, -EOPNOTSUPP, "%s is on another machine, whose backup socket cannot be reached from "
                                                 "here: capture there", source->uri.shown);
        rc = libvirt_find_domain(source, &domain, reterr);
        if (rc < 0)
                return rc;
        rc = libvirt_check_active(domain, reterr);
        if (rc < 0)
                return rc;
        rc = check_no_job(source, domain, reterr);
        if (rc < 0)
                return rc;
        wish = place_wish(source, domain);
        rc = job_place_make(&wish, &source->place, reterr);
        if (rc < 0)
                return rc;
        rc = begin_in_place(source, domain, job, &moment, reterr);
        if (rc < 0) {
                undo_begin(source, job->checkpoint);
                return rc;
        }
        source->begun = true;
        *ret_moment = moment;
        return 0;
}
