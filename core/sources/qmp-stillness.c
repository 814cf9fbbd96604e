#include "sources/qmp-private.h"

#include <errno.h>
#include <string.h>

#define AGENT_MS 2000u /* what an agent that is dead may cost */

/* The VM's state: "running", "paused", "io-error" … */
static int get_status(QmpSource *source, char **ret, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *answer = NULL;
        const char *status;
        int rc;

        rc = qmp_call(source->client, "query-status", NULL, &answer, reterr);
        if (rc < 0)
                return rc;
        status = json_string_value(json_object_get(answer, "status"));
        if (!status)
                return fail(reterr, -EPROTO, "query-status: QEMU's answer is not of the form that is known");
        *ret = strdup(status);
        return *ret ? 0 : fail_oom(reterr);
}

static int open_agent(QmpSource *source, const atomic_bool *cancel, Reason *reterr) {
        source->agent = qmp_client_free(source->agent);
        return qmp_client_open(&(QmpAddress) { .socket_path = source->uri.agent, .agent = true, .patience_ms = AGENT_MS },
                               cancel, &source->agent, reterr);
}

/* The file systems could not be frozen: a failure where that is a must. */
static int go_without(QmpSource *source, const SourceJob *job, int rc, const Reason *why, Reason *reterr) {
        if (rc == -ECANCELED)
                return fail(reterr, rc, "%s", why->text);
        if (job->freeze == FREEZE_ALWAYS)
                return fail(reterr, -ENOTSUP, "the VM's file systems cannot be frozen: %.*s", REASON_MAX - 64, why->text);
        source_warn(&source->source.owner, "its file systems are not frozen: %s", why->text);
        return 0;
}

/* Whether there is an agent that answers; else, where it is a must, a failure. */
static int find_agent(QmpSource *source, const SourceJob *job, bool runs, Reason *reterr) {
        Reason why;
        int rc;

        if (job->freeze == FREEZE_NEVER || (job->freeze == FREEZE_IF_OFFERED && (!source->uri.agent || !runs)))
                return 0;
        if (!source->uri.agent)
                rc = fail(&why, -ENOTSUP, "its source names no socket of a guest agent (agent=PATH)");
        else if (!runs)
                rc = fail(&why, -ENOTSUP, "it is paused");
        else
                rc = open_agent(source, source->source.owner.cancel, &why);
        return rc < 0 ? go_without(source, job, rc, &why, reterr) : 0;
}

static int freeze(QmpSource *source, const SourceJob *job, Reason *reterr) {
        Reason why;
        int rc = qmp_call(source->agent, "guest-fsfreeze-freeze", NULL, NULL, &why);

        return rc < 0 ? go_without(source, job, rc, &why, reterr) : 0;
}

int qmp_hold_still(QmpSource *source, const SourceJob *job, Reason *reterr) {
        CLEANUP(freep) char *status = NULL;
        JobNote note;
        bool runs;
        int rc;

        rc = get_status(source, &status, reterr);
        if (rc < 0)
                return rc;
        runs = strcmp(status, "running") == 0;
        rc = find_agent(source, job, runs, reterr);
        if (rc < 0)
                return rc;
        note = (JobNote) { .domain_id = (int) qmp_client_process(source->client), .frozen = source->agent,
                           .paused = job->pause && runs };
        if (!note.frozen && !note.paused)
                return 0;
        rc = job_note_write(source->tag, &note, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "the VM is not stopped, as nobody would know of it");
        source->note = note;
        if (note.frozen)
                rc = freeze(source, job, reterr);
        /* A paused VM's agent would not answer: so it is the last that is done, and the first that is undone. */
        return rc == 0 && note.paused ? qmp_run(source, "stop", NULL, reterr) : rc;
}

/* One that stopped for another reason stays so. */
static int resume(QmpSource *source, Reason *reterr) {
        CLEANUP(freep) char *status = NULL;
        int rc;

        rc = get_status(source, &status, reterr);
        if (rc == 0 && strcmp(status, "paused") == 0)
                rc = qmp_run(source, "cont", NULL, reterr);
        return rc < 0 ? fail_within(reterr, rc, "cannot let the VM go on, which was paused for the backup") : 0;
}

static int thaw(QmpSource *source, Reason *reterr) {
        int rc = 0;

        if (!source->agent || qmp_client_is_lost(source->agent))
                rc = open_agent(source, NULL, reterr);
        if (rc == 0)
                rc = qmp_call(source->agent, "guest-fsfreeze-thaw", NULL, NULL, reterr);
        source->agent = qmp_client_free(source->agent);
        return rc < 0 ? fail_within(reterr, rc, "cannot thaw the VM's file systems, which were frozen for the backup "
                                                "(guest-fsfreeze-thaw)") : 0;
}

/* A VM that has been started since neither is frozen nor was paused by us. */
static int let_go(QmpSource *source, const JobNote *note, Reason *reterr) {
        int rc;

        rc = qmp_connect(source, reterr);
        if (rc < 0)
                return rc;
        if (note->domain_id == (int) qmp_client_process(source->client)) {
                rc = note->paused ? resume(source, reterr) : 0;
                if (rc == 0 && note->frozen && source->uri.agent)
                        rc = thaw(source, reterr);
        }
        if (rc == 0)
                job_note_remove(source->tag);
        return rc;
}

int qmp_let_go(QmpSource *source, Reason *reterr) {
        int rc = 0;

        if (source->note.paused || source->note.frozen)
                rc = let_go(source, &source->note, reterr);
        source->agent = qmp_client_free(source->agent);
        if (rc == 0)
                source->note = (JobNote) { 0 };
        return rc;
}

int qmp_let_go_leftovers(QmpSource *source, Reason *reterr) {
        JobNote note;

        return job_note_find(source->tag, &note) ? let_go(source, &note, reterr) : 0;
}
