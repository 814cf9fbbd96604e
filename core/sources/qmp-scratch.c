#include "sources/qmp-private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "util/text.h"

#define PATIENCE_MS 30000 /* for a job to end */
#define POLL_MS 5

/* The last part of a job's life: it has ended, and waits to be forgotten. */
static bool is_concluded(const json_t *job) {
        const char *status = json_string_value(json_object_get(job, "status"));

        return status && strcmp(status, "concluded") == 0;
}

/* Asks all jobs of the mark to end, and forgets those that have. *ret_left: how many are there still. */
static int ask_to_end(QmpSource *source, size_t *ret_left, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *jobs = NULL;
        const json_t *job;
        size_t i;
        int rc;

        *ret_left = 0;
        rc = qmp_call(source->client, "query-jobs", NULL, &jobs, reterr);
        if (rc < 0)
                return rc;
        json_array_foreach(jobs, i, job) {
                const char *id = json_string_value(json_object_get(job, "id"));

                if (!id || !qmp_is_ours(source, id, 0))
                        continue;
                ++*ret_left;
                /* It may end by itself meanwhile: whether it is gone is looked at again. */
                if (is_concluded(job))
                        rc = qmp_run(source, "job-dismiss", json_pack("{s:s}", "id", id), reterr);
                else if (qmp_is_ours(source, id, 'b'))
                        rc = qmp_run(source, "block-job-cancel", json_pack("{s:s, s:b}", "device", id, "force", 1), reterr);
                else
                        rc = qmp_run(source, "job-cancel", json_pack("{s:s}", "id", id), reterr);
                if (rc < 0 && rc != -EIO)
                        return rc;
        }
        return 0;
}

int qmp_jobs_end(QmpSource *source, Reason *reterr) {
        for (int waited = 0;; waited += POLL_MS) {
                size_t left;
                int rc = ask_to_end(source, &left, reterr);

                if (rc < 0 || left == 0)
                        return rc;
                if (waited >= PATIENCE_MS)
                        return fail(reterr, -ETIMEDOUT, "a job in QEMU does not end");
                usleep(POLL_MS * 1000);
        }
}

/* Waits for the job that makes an image, which QEMU does in the background. */
static int await_creation(QmpSource *source, const char *id, Reason *reterr) {
        for (int waited = 0; waited < PATIENCE_MS; waited += POLL_MS) {
                CLEANUP(json_decrefp) json_t *jobs = NULL;
                const json_t *job;
                size_t i;
                int rc = qmp_call(source->client, "query-jobs", NULL, &jobs, reterr);

                if (rc < 0)
                        return rc;
                json_array_foreach(jobs, i, job) {
                        const char *found = json_string_value(json_object_get(job, "id"));
                        const char *error = json_string_value(json_object_get(job, "error"));

                        if (!found || strcmp(found, id) != 0 || !is_concluded(job))
                                continue;
                        rc = qmp_run(source, "job-dismiss", json_pack("{s:s}", "id", id), reterr);
                        return error ? fail(reterr, -EIO, "cannot make a scratch image: %.256s", error) : rc;
                }
                usleep(POLL_MS * 1000);
        }
        return fail(reterr, -ETIMEDOUT, "QEMU does not get done with a scratch image");
}

static int create(QmpSource *source, size_t disk, json_t *options, Reason *reterr) {
        char id[QMP_NAME_MAX];
        int rc;

        qmp_name(source, 'j', disk, id);
        rc = qmp_run(source, "blockdev-create", json_pack("{s:s, s:o}", "job-id", id, "options", options), reterr);
        return rc < 0 ? rc : await_creation(source, id, reterr);
}

/* A file without a name that QEMU gets as a descriptor: it needs no right to the directory, and nothing of it stays. */
static int pass_file(QmpSource *source, size_t disk, const char *opaque, char **ret_path, Reason *reterr) {
        CLEANUP(freep) char *path = job_place_scratch(&source->place, source->disks.items[source->captured[disk]].name);
        CLEANUP(json_decrefp) json_t *answer = NULL;
        CLEANUP(close_fd) int fd = -1;
        json_int_t set;
        int rc;

        if (!path)
                return fail_oom(reterr);
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return fail_errno(reterr, -errno, "cannot make the scratch file %s", path);
        unlink(path);
        rc = qmp_call_with_fd(source->client, "add-fd", json_pack("{s:s}", "opaque", opaque), fd, &answer, reterr);
        if (rc < 0)
                return rc;
        set = json_integer_value(json_object_get(answer, "fdset-id"));
        if (text_format(ret_path, "/dev/fdset/%lld", (long long) set) < 0)
                return fail_oom(reterr);
        return 0;
}

/* On another machine QEMU makes it itself. It cannot be deleted from here: it is used again, empty until then. */
static int make_remote_file(QmpSource *source, size_t disk, char **ret_path, Reason *reterr) {
        if (text_format(ret_path, "%s/%s-%zu.scratch", source->uri.scratch, source->tag, disk) < 0)
                return fail_oom(reterr);
        return create(source, disk, json_pack("{s:s, s:s, s:i}", "driver", "file", "filename", *ret_path, "size", 0),
                      reterr);
}

int qmp_scratch_make(QmpSource *source, size_t disk, Reason *reterr) {
        const QmpDisk *of = &source->disks.items[source->captured[disk]];
        CLEANUP(freep) char *path = NULL;
        char file[QMP_NAME_MAX], image[QMP_NAME_MAX];
        int rc;

        qmp_name(source, 'f', disk, file);
        qmp_name(source, 's', disk, image);
        rc = source->uri.path ? pass_file(source, disk, file, &path, reterr) : make_remote_file(source, disk, &path, reterr);
        if (rc == 0)
                rc = qmp_run(source, "blockdev-add", json_pack("{s:s, s:s, s:s}", "driver", "file", "node-name", file,
                                                               "filename", path), reterr);
        if (rc == 0)
                rc = create(source, disk, json_pack("{s:s, s:s, s:I}", "driver", "qcow2", "file", file, "size",
                                                    (json_int_t) of->size), reterr);
        if (rc == 0)
                rc = qmp_run(source, "blockdev-add", json_pack("{s:s, s:s, s:s, s:s}", "driver", "qcow2", "node-name", image,
                                                               "file", file, "backing", of->node), reterr);
        return rc < 0 ? fail_within(reterr, rc, "%s", of->name) : 0;
}

/* Deletes all nodes of the mark and kind. Those of files are emptied first: of a VM that is paused QEMU keeps the
 * descriptors until it runs again. */
static int delete_nodes(QmpSource *source, const QmpNodes *nodes, char kind, Reason *reterr) {
        int result = 0;

        for (size_t i = 0; i < nodes->count; i++) {
                const char *name = nodes->items[i].name;
                int rc;

                if (!qmp_is_ours(source, name, kind))
                        continue;
                if (kind == 'f')
                        (void) qmp_run(source, "block_resize", json_pack("{s:s, s:i}", "node-name", name, "size", 0), NULL);
                rc = qmp_run(source, "blockdev-del", json_pack("{s:s}", "node-name", name), result == 0 ? reterr : NULL);
                result = result < 0 ? result : rc;
        }
        return result;
}

static bool has_opaque(const QmpSource *source, const json_t *set) {
        const json_t *fd;
        size_t i;

        json_array_foreach(json_object_get(set, "fds"), i, fd) {
                const char *opaque = json_string_value(json_object_get(fd, "opaque"));

                if (opaque && qmp_is_ours(source, opaque, 'f'))
                        return true;
        }
        return false;
}

static int remove_fds(QmpSource *source, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *sets = NULL;
        const json_t *set;
        size_t i;
        int rc;

        rc = qmp_call(source->client, "query-fdsets", NULL, &sets, reterr);
        if (rc < 0)
                return rc;
        json_array_foreach(sets, i, set)
                if (has_opaque(source, set))
                        (void) qmp_run(source, "remove-fd",
                                       json_pack("{s:O}", "fdset-id", json_object_get(set, "fdset-id")), NULL);
        return 0;
}

int qmp_scratch_remove(QmpSource *source, Reason *reterr) {
        CLEANUP(qmp_nodes_clear) QmpNodes nodes = { 0 };
        int rc;

        rc = qmp_look_at_nodes(source, &nodes, reterr);
        if (rc == 0)
                rc = delete_nodes(source, &nodes, 's', reterr);
        if (rc == 0)
                rc = delete_nodes(source, &nodes, 'f', reterr);
        return rc < 0 ? rc : remove_fds(source, reterr);
}
