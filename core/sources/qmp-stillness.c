#include "sources/qmp-private.h"

#include <errno.h>
#include <string.h>

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

int qmp_hold_still(QmpSource *source, const SourceJob *job, Reason *reterr) {
        CLEANUP(freep) char *status = NULL;
        int rc;

        if (job->freeze == FREEZE_ALWAYS)
                return fail(reterr, -ENOTSUP, "the VM's file systems cannot be frozen: its source names no socket of a guest agent");
        if (!job->pause)
                return 0;
        rc = get_status(source, &status, reterr);
        if (rc < 0 || strcmp(status, "running") != 0)
                return rc;
        source->note = (JobNote) { .domain_id = (int) qmp_client_process(source->client), .paused = true };
        rc = job_note_write(source->tag, &source->note, reterr);
        if (rc < 0) {
                source->note = (JobNote) { 0 };
                return fail_within(reterr, rc, "the VM is not stopped, as nobody would know of it");
        }
        return qmp_call(source->client, "stop", NULL, NULL, reterr);
}

/* One that has been started since was not paused by us; one that stopped for another reason stays so. */
static int let_go(QmpSource *source, const JobNote *note, Reason *reterr) {
        CLEANUP(freep) char *status = NULL;
        int rc;

        rc = qmp_connect(source, reterr);
        if (rc == 0)
                rc = get_status(source, &status, reterr);
        if (rc == 0 && note->paused && note->domain_id == (int) qmp_client_process(source->client) &&
            strcmp(status, "paused") == 0)
                rc = qmp_call(source->client, "cont", NULL, NULL, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "cannot let the VM go on, which was paused for the backup");
        job_note_remove(source->tag);
        return 0;
}

int qmp_let_go(QmpSource *source, Reason *reterr) {
        int rc;

        if (!source->note.paused)
                return 0;
        rc = let_go(source, &source->note, reterr);
        if (rc == 0)
                source->note = (JobNote) { 0 };
        return rc;
}

int qmp_let_go_leftovers(QmpSource *source, Reason *reterr) {
        JobNote note;

        return job_note_find(source->tag, &note) ? let_go(source, &note, reterr) : 0;
}
