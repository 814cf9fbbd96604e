#include "sources/libvirt-private.h"

#include <errno.h>
#include <string.h>

#include "sources/job-note.h"

#define PING_PATIENCE_MS 2000u     /* what an agent that is dead may cost */
#define FREEZE_PATIENCE_MS 60000u  /* the guest writes out its caches first */
#define THAW_PATIENCE_MS 10000u
#define RECONNECTS 20              /* for libvirtd to come back */
#define RECONNECT_MS 250

static int get_state(virDomainPtr domain, int *ret_reason) {
        int state = VIR_DOMAIN_NOSTATE;

        *ret_reason = 0;
        virDomainGetState(domain, &state, ret_reason, 0);
        return state;
}

/* Why there is no agent that could be asked; NULL: there may be one. */
static const char *why_no_agent(const Domain *domain, int state) {
        if (state != VIR_DOMAIN_RUNNING)
                return "it is paused";
        switch (domain->agent) {
        case AGENT_NONE:
                return "it has no channel to a guest agent (org.qemu.guest_agent.0)";
        case AGENT_AWAY:
                return "no guest agent runs in it";
        case AGENT_THERE:
                break;
        }
        return NULL;
}

/* Whether there is an agent that answers; else, where it is a must, a failure. */
static int find_agent(const LibvirtSource *source, virDomainPtr domain, const SourceJob *job, int state, bool *ret,
                      Reason *reterr) {
        const char *why = why_no_agent(&source->domain, state);
        Reason reason;
        int rc = 0;

        *ret = false;
        if (job->freeze == FREEZE_NEVER || (why && job->freeze == FREEZE_IF_OFFERED))
                return 0;
        if (!why) {
                rc = libvirt_ask_agent(domain, AGENT_PING, PING_PATIENCE_MS, source->source.owner.cancel, &reason);
                if (rc == -ECANCELED || rc == -ENOTCONN)
                        return fail(reterr, rc, "%s", reason.text);
                why = rc < 0 ? reason.text : NULL;
        }
        if (why && job->freeze == FREEZE_ALWAYS)
                return fail(reterr, -ENOTSUP, "the VM's file systems cannot be frozen: %.*s", REASON_MAX - 64, why);
        if (why)
                source_warn(&source->source.owner, "its file systems are not frozen: %s", why);
        *ret = !why;
        return 0;
}

static int freeze(const LibvirtSource *source, virDomainPtr domain, const SourceJob *job, Reason *reterr) {
        Reason reason;
        int rc;

        rc = libvirt_ask_agent(domain, AGENT_FREEZE, FREEZE_PATIENCE_MS, source->source.owner.cancel, &reason);
        if (rc >= 0)
                return 0;
        if (rc == -ECANCELED || rc == -ENOTCONN)
                return fail(reterr, rc, "%s", reason.text);
        if (job->freeze == FREEZE_ALWAYS)
                return fail(reterr, -ENOTSUP, "the VM's file systems cannot be frozen: %.*s", REASON_MAX - 64, reason.text);
        source_warn(&source->source.owner, "its file systems are not frozen: %s", reason.text);
        return 0;
}

int libvirt_hold_still(LibvirtSource *source, virDomainPtr domain, const SourceJob *job, Reason *reterr) {
        JobNote *note = &source->note;
        int state, why, rc;
        bool agent;

        state = get_state(domain, &why);
        rc = find_agent(source, domain, job, state, &agent, reterr);
        if (rc < 0)
                return rc;
        *note = (JobNote) {
                .domain_id = (int) virDomainGetID(domain),
                .frozen = agent,
                .paused = job->pause && state == VIR_DOMAIN_RUNNING,
        };
        if (!note->frozen && !note->paused)
                return 0;
        rc = job_note_write(source->place.tag, note, reterr);
        if (rc < 0) {
                *note = (JobNote) { 0 };
                return fail_within(reterr, rc, "the VM is not stopped, as nobody would know of it");
        }
        if (note->frozen)
                rc = freeze(source, domain, job, reterr);
        /* A paused VM's agent would not answer: so it is the last that is done, and the first that is undone. */
        if (rc == 0 && note->paused && virDomainSuspend(domain) < 0)
                rc = fail_libvirt(reterr, -EIO, "cannot pause the VM");
        return rc;
}

static int resume(virDomainPtr domain, Reason *reterr) {
        int why, state = get_state(domain, &why);

        if (state != VIR_DOMAIN_PAUSED || why != VIR_DOMAIN_PAUSED_USER || virDomainResume(domain) == 0)
                return 0;
        return fail_libvirt(reterr, -EIO, "cannot let the VM go on, which was paused for the backup: virsh resume helps");
}

static int thaw(virDomainPtr domain, Reason *reterr) {
        int rc = libvirt_ask_agent(domain, AGENT_THAW, THAW_PATIENCE_MS, NULL, reterr);

        return rc < 0 ? fail_within(reterr, rc, "cannot thaw the VM's file systems, which were frozen for the backup "
                                                "(virsh domfsthaw tries again)") : 0;
}

static int try_to_let_go(LibvirtSource *source, const JobNote *note, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc;

        rc = libvirt_find_domain(source, &domain, reterr);
        if (rc == -ENOENT || rc == -ESTALE)
                return 0;
        if (rc < 0)
                return rc;
        /* One that has been started since neither is frozen nor was paused by us. */
        if ((int) virDomainGetID(domain) != note->domain_id)
                return libvirt_code(0) == -ENOTCONN ? fail_libvirt(reterr, -EIO, "cannot get the VM's state") : 0;
        rc = note->paused ? resume(domain, reterr) : 0;
        return rc == 0 && note->frozen ? thaw(domain, reterr) : rc;
}

static int let_go(LibvirtSource *source, const JobNote *note, const char *tag, Reason *reterr) {
        Reason reason;
        int rc = -ENOTCONN;

        for (int tries = 0; rc == -ENOTCONN && tries < RECONNECTS; tries++) {
                if (tries > 0)
                        usleep(RECONNECT_MS * 1000);
                rc = try_to_let_go(source, note, &reason);
        }
        if (rc < 0)
                return fail(reterr, rc, "%s", reason.text);
        job_note_remove(tag);
        return 0;
}

int libvirt_let_go(LibvirtSource *source, Reason *reterr) {
        int rc;

        if (!source->note.frozen && !source->note.paused)
                return 0;
        rc = let_go(source, &source->note, source->place.tag, reterr);
        if (rc == 0)
                source->note = (JobNote) { 0 };
        return rc;
}

/* Whether the agent has gone: with the guest, or before it is started again. */
static bool agent_is_away(LibvirtSource *source) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        CLEANUP(domain_clear) Domain now = { 0 };
        CLEANUP(freep) char *text = NULL;

        if (libvirt_find_domain(source, &domain, NULL) < 0)
                return false;
        text = virDomainGetXMLDesc(domain, 0);
        return text && domain_parse(text, source->uri.local, &now, NULL) == 0 && now.agent != AGENT_THERE;
}

int libvirt_let_go_leftovers(LibvirtSource *source, Reason *reterr) {
        char tag[JOB_TAG_MAX];
        JobNote note;
        Reason reason;
        int rc;

        job_tag(source->source.owner.repository, source->source.owner.vm_uuid ?: source->uuid, tag);
        if (!job_note_find(tag, &note))
                return 0;
        rc = let_go(source, &note, tag, &reason);
        if (rc == 0)
                return 0;
        if (note.frozen && agent_is_away(source)) {
                source_warn(&source->source.owner, "%s; the next capture tries again", reason.text); /* the note stays */
                return 0;
        }
        return fail(reterr, rc, "%s", reason.text);
}
