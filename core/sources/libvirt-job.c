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
        CLEANUP(strings_free) Strings paths = { 0 };
        char tag[JOB_TAG_MAX];
        int rc;

        if (!text) {
                const virError *error = virGetLastError();

                if (!error || (error->code != VIR_ERR_NO_DOMAIN_BACKUP && error->code != VIR_ERR_OPERATION_INVALID))
                        return fail_libvirt(reterr, -EIO, "cannot tell whether the VM has a backup job");
                *ret = JOB_NONE;
                return 0;
        }
        rc = job_xml_paths(text, &paths, reterr);
        if (rc < 0)
                return rc;
        job_tag(source->source.owner.repository, source->uuid, tag);
        *ret = JOB_OTHER;
        for (size_t i = 0; i < paths.count; i++)
                if (job_is_ours(paths.items[i], tag))
                        *ret = JOB_OURS;
        return 0;
}

static int busy_with_other(Reason *reterr) {
        return fail(reterr, -EBUSY, "the VM has a backup job that another program began: wait for it, or end it with "
                                    "virsh domjobabort");
}

/* A write that failed as the scratch file was full has stopped the VM, and will be tried again. */
static void go_on_after_error(const LibvirtSource *source, virDomainPtr domain) {
        int state = VIR_DOMAIN_NOSTATE, why = 0;

        virDomainGetState(domain, &state, &why, 0);
        if (state != VIR_DOMAIN_PAUSED || why != VIR_DOMAIN_PAUSED_IOERROR)
                return;
        if (virDomainResume(domain) < 0)
                source_warn(&source->source.owner, "the VM was stopped by a write that failed, and cannot go on: %s",
                            libvirt_words());
        else
                source_warn(&source->source.owner, "the VM was stopped by a write that failed, and goes on now");
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
        for (int waited = 0, pause = 1; waited < PATIENCE_MS; waited += pause, pause = pause < POLL_MS ? 2 * pause : pause) {
                JobFound found;

                rc = find_job(source, domain, &found, reterr);
                if (rc == -ENOENT)
                        return 0;
                if (rc < 0)
                        return rc;
                if (found != JOB_OURS) {
                        *ret_left = found;
                        if (asked)
                                go_on_after_error(source, domain);
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
                usleep((useconds_t) pause * 1000);
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
        if (source->off) {
                libvirt_off_end(source);
                job_place_remove(&source->place);
                source->begun = false;
                return 0;
        }
        stillness = libvirt_let_go(source, reterr); /* where that failed before */
        rc = end_ours(source, &left, reterr);
        if (rc < 0)
                return rc; /* QEMU may still use the files */
        libvirt_tell_scratch(source);
        libvirt_meanwhile_end(source);
        job_place_remove(&source->place);
        free(STEAL_PTR(source->checkpoint));
        source->begun = false;
        return stillness;
}

JobPlaceWish libvirt_place_wish(const LibvirtSource *source, virDomainPtr domain) {
        unsigned id = domain ? virDomainGetID(domain) : (unsigned) -1;

        return (JobPlaceWish) {
                .repository = source->source.owner.repository,
                .vm_uuid = source->source.owner.vm_uuid ?: source->uuid,
                .session = source->uri.session,
                .remote = !source->uri.local,
                .off = source->inspected_off,
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
        wish = libvirt_place_wish(source, domain);
        job_place_sweep(&wish);
        return left == JOB_OTHER ? busy_with_other(reterr) : 0;
}

int libvirt_check_no_job(LibvirtSource *source, virDomainPtr domain, Reason *reterr) {
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

void libvirt_undo_begin(LibvirtSource *source, const char *checkpoint) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        CLEANUP(libvirt_checkpoint_freep) virDomainCheckpointPtr made = NULL;
        JobFound left;

        end_ours(source, &left, NULL);
        libvirt_meanwhile_end(source);
        job_place_remove(&source->place);
        if (!checkpoint || libvirt_find_domain(source, &domain, NULL) < 0)
                return;
        made = virDomainCheckpointLookupByName(domain, checkpoint, 0);
        if (made)
                libvirt_delete_checkpoint(domain, made, NULL);
}
