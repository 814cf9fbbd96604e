#include "sources/libvirt-private.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "sources/nbd-reader.h"

#define JOB_PORT_FIRST 10809u /* that of NBD */
#define JOB_PORTS 64u

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

/* What a failed begin means. Where a base was wanted, the base is to blame unless it is clearly something else:
 * without one it is tried again, and then it fails with its true cause. */
static int begin_failed(virDomainPtr domain, bool incremental, Reason *reterr) {
        int rc = libvirt_code(incremental ? -ESTALE : -EIO);

        fail(reterr, rc, "cannot begin a backup job: %s", libvirt_words());
        if (rc != -ENOTCONN && rc != -EBUSY && !libvirt_is_active(domain))
                return fail_within(reterr, -EHOSTDOWN, "the VM has stopped");
        return rc;
}

static bool has_word(const char *text, const char *word) {
        size_t length = strlen(word);

        for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
                if ((at == text || !isalnum((unsigned char) at[-1])) && !isalnum((unsigned char) at[length]))
                        return true;
        return false;
}

/* "missing or broken bitmap '…' for disk 'vda'", in whatever language: no code tells which disk it is. */
static void blame(const LibvirtSource *source, const SourceJob *job, const char *words) {
        size_t count = 0, named = 0;

        for (size_t i = 0; i < source->captured_count; i++)
                if (job->incremental[i] && has_word(words, source->domain.disks[source->captured[i]].name)) {
                        named = i;
                        count++;
                }
        if (count == 1)
                source_blame(job, named, -ESTALE);
}

/* What is tried to begin, perhaps more than once. */
typedef struct BeginTry {
        LibvirtSource *source;
        virDomainPtr domain;
        const JobDisk *disks;
        const char *base, *checkpoint; /* the latter is XML; may be NULL */
        bool incremental;
} BeginTry;

static int try_to_begin(const BeginTry *try, const JobServer *server, struct timespec *ret_moment, Reason *reterr) {
        CLEANUP(freep) char *backup = NULL;
        int rc;

        rc = job_xml_backup(try->disks, try->source->domain.disk_count, try->base, server, &backup, reterr);
        if (rc < 0)
                return rc;
        /* The moment lies between here and the return; the checkpoint's own creation time is taken the same way. */
        clock_gettime(CLOCK_REALTIME, ret_moment);
        if (virDomainBackupBegin(try->domain, backup, try->checkpoint, 0) < 0)
                return begin_failed(try->domain, try->incremental, reterr);
        try->source->server = *server;
        return 0;
}

static int begin_here(const BeginTry *try, struct timespec *ret_moment, Reason *reterr) {
        return try_to_begin(try, &(JobServer) { .socket = try->source->place.socket }, ret_moment, reterr);
}

/* libvirt wants to be told a port: one of those that are free. */
static int begin_on_a_port(const BeginTry *try, bool tls, struct timespec *ret_moment, Reason *reterr) {
        const LibvirtUri *uri = &try->source->uri;
        JobServer server = { .host = uri->nbd_host, .port = uri->nbd_port, .tls = tls };
        unsigned first = (unsigned) strtoul(try->source->place.serial, NULL, 16) % JOB_PORTS;
        Reason reason = REASON_INIT;
        int rc = -EADDRINUSE;

        if (uri->nbd_port)
                return try_to_begin(try, &server, ret_moment, reterr);
        for (unsigned i = 0; rc < 0 && i < JOB_PORTS; i++) {
                server.port = JOB_PORT_FIRST + (first + i) % JOB_PORTS;
                rc = try_to_begin(try, &server, ret_moment, &reason);
                if (rc < 0 && !strstr(reason.text, strerror(EADDRINUSE)))
                        break;
        }
        return rc < 0 ? fail(reterr, rc, "%s", reason.text) : 0;
}

/* Encrypted where both sides can, or must. */
static int begin_elsewhere(const BeginTry *try, struct timespec *ret_moment, Reason *reterr) {
        const LibvirtSource *source = try->source;
        const LibvirtUri *uri = &source->uri;
        Reason why = REASON_INIT;
        int rc;

        if (uri->nbd_tls == NBD_TLS_YES)
                return begin_on_a_port(try, true, ret_moment, reterr);
        if (uri->nbd_tls == NBD_TLS_AUTO && !nbd_has_certificates(uri->nbd_certificates))
                fail(&why, 0, "there is no certificate of an authority to verify it by");
        else if (uri->nbd_tls == NBD_TLS_AUTO && begin_on_a_port(try, true, ret_moment, &why) == 0)
                return 0;
        rc = begin_on_a_port(try, false, ret_moment, reterr);
        if (rc == 0 && why.text[0])
                source_warn(&source->source.owner, "its disks come from %s without encryption: %s", uri->nbd_host, why.text);
        return rc;
}

static int make_checkpoint(const LibvirtSource *source, const SourceJob *job, const JobDisk *disks, char **ret,
                           Reason *reterr) {
        bool marked = false;

        for (size_t i = 0; i < source->domain.disk_count; i++)
                marked |= disks[i].checkpoint;
        if (!marked || !job->checkpoint)
                return 0;
        return job_xml_checkpoint(disks, source->domain.disk_count, job->checkpoint, ret, reterr);
}

static int begin_in_place(LibvirtSource *source, virDomainPtr domain, const SourceJob *job, struct timespec *ret_moment,
                          Reason *reterr) {
        CLEANUP(freep) char *checkpoint = NULL, *name = NULL;
        CLEANUP(job_disks_free) JobDisk *disks = NULL;
        BeginTry try = { .source = source, .domain = domain, .base = job->base };
        Reason reason;
        int rc;

        rc = job_disks(source, job, &disks, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < source->domain.disk_count; i++)
                try.incremental |= disks[i].incremental;
        if (try.incremental) {
                rc = libvirt_ensure_base(source, domain, job, disks, reterr);
                if (rc < 0)
                        return rc;
        }
        rc = make_checkpoint(source, job, disks, &checkpoint, reterr);
        if (rc < 0)
                return rc;
        name = checkpoint ? strdup(job->checkpoint) : NULL;
        if (checkpoint && !name)
                return fail_oom(reterr);
        try.disks = disks;
        try.checkpoint = checkpoint;
        rc = libvirt_meanwhile_start(source, domain, reterr);
        if (rc < 0)
                return rc;
        rc = libvirt_hold_still(source, domain, job, reterr);
        if (rc == 0)
                rc = source->uri.local ? begin_here(&try, ret_moment, reterr) : begin_elsewhere(&try, ret_moment, reterr);
        if (libvirt_let_go(source, &reason) < 0)
                source_warn(&source->source.owner, "%s", reason.text);
        if (rc < 0)
                return rc;
        source->checkpoint = STEAL_PTR(name);
        return 0;
}

static int check_state(const LibvirtSource *source, virDomainPtr domain, Reason *reterr) {
        Reason reason;
        int rc = libvirt_check_active(domain, &reason);

        if (source->inspected_off && rc == 0)
                return fail(reterr, -EAGAIN, "the VM has just been started; capture again");
        if (rc == 0 || (source->inspected_off && rc == -EHOSTDOWN))
                return 0;
        return fail(reterr, rc, "%s", reason.text);
}

int libvirt_begin(Source *base, const SourceJob *job, struct timespec *ret_moment, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        struct timespec moment;
        Reason reason = REASON_INIT;
        JobPlaceWish wish;
        int rc;

        if (job->top)
                return fail(reterr, -ENOTSUP, "libvirt does not tell what lies in backing files: a point of its VMs has "
                                              "everything");
        rc = libvirt_find_domain(source, &domain, reterr);
        if (rc < 0)
                return rc;
        rc = check_state(source, domain, reterr);
        if (rc == 0 && !source->inspected_off)
                rc = libvirt_check_no_job(source, domain, reterr);
        if (rc < 0)
                return rc;
        wish = libvirt_place_wish(source, domain);
        rc = job_place_make(&wish, &source->place, reterr);
        if (rc < 0)
                return rc;
        if (source->inspected_off)
                rc = libvirt_off_begin(source, domain, job, &moment, reterr);
        else
                rc = begin_in_place(source, domain, job, &moment, &reason);
        if (rc < 0 && source->inspected_off) {
                job_place_remove(&source->place);
                return rc;
        }
        if (rc < 0) {
                libvirt_undo_begin(source, job->checkpoint);
                if (rc == -ESTALE)
                        blame(source, job, reason.text);
                return fail(reterr, rc, "%s", reason.text);
        }
        source->begun = true;
        *ret_moment = moment;
        return 0;
}
