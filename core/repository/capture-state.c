#include "repository/capture-state.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "repository/capture-lock.h"
#include "util/sealed-json.h"
#include "util/timestamp.h"

#define STATE_FILE "state.json"
#define DISKS_MAX 1024

static const char *const phase_names[] = {
        [CAPTURE_IDLE] = "idle",
        [CAPTURE_RUNNING] = "running",
        [CAPTURE_FAILED] = "failed",
};

void capture_state_clear(CaptureState *state) {
        for (size_t i = 0; i < state->disk_count; i++)
                free(state->disks[i].name);
        free(state->disks);
        free(state->kind);
        free(state->waits);
        free(state->last);
        free(state->error);
        *state = (CaptureState) { 0 };
}

static int take_moment(const json_t *object, const char *key, struct timespec *ret, Reason *reterr) {
        const char *text;
        int rc = json_take_optional_string(object, key, &text, reterr);

        if (rc < 0 || !text)
                return rc;
        if (timestamp_parse(text, ret) < 0)
                return fail(reterr, -EBADMSG, "\"%s\" is no time", key);
        return 0;
}

static int take_phase(const json_t *object, CapturePhase *ret, Reason *reterr) {
        const char *text;
        int rc = json_take_string(object, "state", &text, reterr);

        if (rc < 0)
                return rc;
        for (size_t i = 0; i < sizeof phase_names / sizeof *phase_names; i++)
                if (strcmp(text, phase_names[i]) == 0) {
                        *ret = (CapturePhase) i;
                        return 0;
                }
        return fail(reterr, -EBADMSG, "unknown state \"%s\"", text);
}

static int take_disks(const json_t *object, CaptureState *state, Reason *reterr) {
        json_t *disks, *disk;
        size_t i;
        int rc = json_take_array(object, "disks", &disks, reterr);

        if (rc < 0)
                return rc;
        if (json_array_size(disks) > DISKS_MAX)
                return fail(reterr, -EBADMSG, "too many disks");
        state->disks = calloc(json_array_size(disks) + 1, sizeof *state->disks);
        if (!state->disks)
                return fail_oom(reterr);
        json_array_foreach(disks, i, disk) {
                CaptureDiskProgress *progress = &state->disks[i];
                const char *name;

                rc = json_take_string(disk, "name", &name, reterr);
                if (rc < 0)
                        return rc;
                rc = json_take_size(disk, "done", &progress->done, reterr);
                if (rc < 0)
                        return rc;
                rc = json_take_size(disk, "total", &progress->total, reterr);
                if (rc < 0)
                        return rc;
                progress->name = strdup(name);
                if (!progress->name)
                        return fail_oom(reterr);
                state->disk_count++;
        }
        return 0;
}

/* Members that are missing stay unset: what a state shows depends on how far the capture came. */
static int load(const json_t *object, CaptureState *ret, Reason *reterr) {
        CLEANUP(capture_state_clear) CaptureState state = { 0 };
        int rc = take_phase(object, &state.phase, reterr);

        if (rc >= 0)
                rc = json_take_optional_copy(object, "kind", &state.kind, reterr);
        if (rc >= 0)
                rc = take_moment(object, "started", &state.started, reterr);
        if (rc >= 0)
                rc = take_disks(object, &state, reterr);
        if (rc >= 0)
                rc = json_take_size(object, "rate", &state.rate, reterr);
        if (rc >= 0)
                rc = json_take_optional_copy(object, "waits", &state.waits, reterr);
        if (rc >= 0)
                rc = json_take_optional_copy(object, "last", &state.last, reterr);
        if (rc >= 0)
                rc = take_moment(object, "finished", &state.finished, reterr);
        if (rc >= 0)
                rc = json_take_optional_copy(object, "error", &state.error, reterr);
        if (rc < 0)
                return rc;
        *ret = state;
        state = (CaptureState) { 0 };
        return 0;
}

/* Turns what was read into a failure with these words. */
static int become_failed(CaptureState *state, const char *error) {
        free(state->error);
        state->phase = CAPTURE_FAILED;
        state->error = strdup(error);
        return state->error ? 0 : -ENOMEM;
}

int capture_state_read(Vm *vm, CaptureState *ret, Reason *reterr) {
        CLEANUP(capture_state_clear) CaptureState state = { 0 };
        CLEANUP(json_decrefp) json_t *object = NULL;
        Reason reason = REASON_INIT;
        int rc;

        rc = vm_fd(vm) < 0 ? -ENOENT : sealed_json_read(vm_fd(vm), STATE_FILE, &object, &reason);
        if (rc >= 0)
                rc = load(object, &state, &reason);
        if (rc == -EBADMSG)
                rc = become_failed(&state, reason.text);
        else if (rc == -ENOENT)
                rc = 0;
        if (rc < 0)
                return fail(reterr, rc, "%s: cannot read the state: %s", vm_name(vm), reason.text);

        if (state.phase == CAPTURE_RUNNING && capture_lock_is_held(vm) == 0) {
                CLEANUP(json_decrefp) json_t *again = NULL;

                /* It may have ended between the two looks: then the file says how. */
                capture_state_clear(&state);
                rc = sealed_json_read(vm_fd(vm), STATE_FILE, &again, &reason);
                if (rc >= 0)
                        rc = load(again, &state, &reason);
                if (rc >= 0 && state.phase == CAPTURE_RUNNING && capture_lock_is_held(vm) == 0)
                        rc = become_failed(&state, "the capture process was killed");
                if (rc < 0)
                        return fail(reterr, rc, "%s: cannot read the state: %s", vm_name(vm), reason.text);
        }
        *ret = state;
        state = (CaptureState) { 0 };
        return 0;
}

static json_t *moment_json(struct timespec moment) {
        char text[TIMESTAMP_MAX];

        timestamp_format(moment, text);
        return json_string(text);
}

int capture_state_write(Vm *vm, const CaptureState *state, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *object = json_object();
        json_t *disks = json_array();
        int bad = !object || !disks;

        bad |= json_object_set_new(object, "state", json_string(phase_names[state->phase]));
        if (state->kind) {
                bad |= json_object_set_new(object, "kind", json_text(state->kind));
                bad |= json_object_set_new(object, "started", moment_json(state->started));
        }
        for (size_t i = 0; i < state->disk_count; i++) {
                const CaptureDiskProgress *disk = &state->disks[i];
                json_t *item = json_object();

                bad |= json_object_set_new(item, "name", json_text(disk->name));
                bad |= json_object_set_new(item, "done", json_integer((json_int_t) disk->done));
                bad |= json_object_set_new(item, "total", json_integer((json_int_t) disk->total));
                bad |= json_array_append_new(disks, item);
        }
        bad |= json_object_set_new(object, "disks", disks);
        bad |= json_object_set_new(object, "rate", json_integer((json_int_t) state->rate));
        if (state->waits)
                bad |= json_object_set_new(object, "waits", json_text(state->waits));
        if (state->last)
                bad |= json_object_set_new(object, "last", json_text(state->last));
        if (state->error)
                bad |= json_object_set_new(object, "error", json_text(state->error));
        if (state->last || state->error)
                bad |= json_object_set_new(object, "finished", moment_json(state->finished));
        if (bad)
                return fail_oom(reterr);
        return sealed_json_replace(vm_fd(vm), STATE_FILE, object, reterr);
}

int capture_state_format(const CaptureState *state, char **ret, size_t *ret_length) {
        CLEANUP(freep) char *text = NULL;
        char moment[TIMESTAMP_MAX];
        size_t length;
        FILE *f = open_memstream(&text, &length);

        if (!f)
                return -ENOMEM;
        fprintf(f, "state: %s\n", phase_names[state->phase]);
        if (state->kind) {
                timestamp_format(state->started, moment);
                fprintf(f, "kind: %s\nstarted: %s\n", state->kind, moment);
        }
        for (size_t i = 0; i < state->disk_count; i++)
                fprintf(f, "disk: %s %" PRIu64 " %" PRIu64 "\n", state->disks[i].name, state->disks[i].done,
                        state->disks[i].total);
        if (state->kind)
                fprintf(f, "rate: %" PRIu64 "\n", state->rate);
        if (state->phase == CAPTURE_RUNNING && state->waits)
                fprintf(f, "waits: %s\n", state->waits);
        timestamp_format(state->finished, moment);
        if (state->phase == CAPTURE_IDLE && state->last)
                fprintf(f, "last: %s\nfinished: %s\n", state->last, moment);
        if (state->phase == CAPTURE_FAILED && state->error) {
                fprintf(f, "error: %s\n", state->error);
                if (state->finished.tv_sec)
                        fprintf(f, "finished: %s\n", moment);
        }
        if (fclose(f) != 0)
                return -ENOMEM;
        *ret = STEAL_PTR(text);
        *ret_length = length;
        return 0;
}
