#include "sources/qmp-private.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define PATIENCE_MS 30000 /* for an export to end */
#define POLL_MS 5
#define BACKLOG 16
#define DIRTY "dirty"     /* the bitmap in a scratch image */

/* ---- the NBD server ---- */

void qmp_server_address(const QmpSource *source, NbdAddress *ret) {
        *ret = (NbdAddress) {
                .socket_path = source->uri.nbd_host ? NULL : source->uri.nbd_socket ?: source->place.socket,
                .host = source->uri.nbd_host,
                .port = source->uri.nbd_port,
        };
}

/* A socket that QEMU gets as a descriptor: it needs no right to the directory, which nobody else can enter. */
static int pass_socket(QmpSource *source, const char *name, json_t **ret_address, Reason *reterr) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        CLEANUP(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int rc;

        memcpy(address.sun_path, source->place.socket, strlen(source->place.socket)); /* its length was looked at */
        if (fd < 0 || bind(fd, (const struct sockaddr *) &address, sizeof address) < 0 || listen(fd, BACKLOG) < 0)
                return fail_errno(reterr, -errno, "cannot make the socket %s", source->place.socket);
        rc = qmp_call_with_fd(source->client, "getfd", json_pack("{s:s}", "fdname", name), fd, NULL, reterr);
        if (rc == 0)
                *ret_address = json_pack("{s:s, s:{s:s}}", "type", "fd", "data", "str", name);
        return rc;
}

static int server_address(QmpSource *source, const char *name, json_t **ret, Reason *reterr) {
        const QmpUri *uri = &source->uri;
        char port[16];

        if (!uri->nbd_host && !uri->nbd_socket)
                return pass_socket(source, name, ret, reterr);
        snprintf(port, sizeof port, "%u", uri->nbd_port);
        if (uri->nbd_host)
                *ret = json_pack("{s:s, s:{s:s, s:s}}", "type", "inet", "data", "host", uri->nbd_host, "port", port);
        else
                *ret = json_pack("{s:s, s:{s:s}}", "type", "unix", "data", "path", uri->nbd_socket);
        return 0;
}

/* QEMU has one NBD server, and does not tell whose it is. So an object beside it does, which is there before it. */
static int start_server(QmpSource *source, Reason *reterr) {
        bool may_share = source->uri.nbd_host || source->uri.nbd_socket;
        json_t *address = NULL;
        char mark[QMP_NAME_MAX];
        Reason why;
        int rc;

        qmp_name(source, 'n', 0, mark);
        rc = server_address(source, mark, &address, reterr);
        if (rc < 0)
                return rc;
        rc = qmp_run(source, "object-add",
                     json_pack("{s:s, s:s, s:s}", "qom-type", "secret", "id", mark, "data", "ours"), &why);
        if (rc == 0)
                rc = qmp_run(source, "nbd-server-start", json_pack("{s:O}", "addr", address), &why);
        json_decref(address);
        if (rc != -EIO)
                return rc < 0 ? fail(reterr, rc, "%s", why.text) : 0;
        (void) qmp_run(source, "object-del", json_pack("{s:s}", "id", mark), NULL);
        if (!may_share)
                (void) qmp_run(source, "closefd", json_pack("{s:s}", "fdname", mark), NULL);
        if (!strstr(why.text, "already running"))
                return fail(reterr, rc, "cannot start an NBD server in QEMU: %.*s", REASON_MAX - 64, why.text);
        if (may_share)
                return 0;
        return fail(reterr, -EBUSY, "QEMU has an NBD server already that another program runs: wait until it is stopped, "
                                    "or say where it listens (nbd-socket=PATH or nbd-address=HOST:PORT in the URI) so that "
                                    "it is shared");
}

static int stop_server(QmpSource *source, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *objects = NULL;
        char mark[QMP_NAME_MAX];
        const json_t *object;
        Reason why;
        size_t i;
        int rc;

        rc = qmp_call(source->client, "qom-list", json_pack("{s:s}", "path", "/objects"), &objects, reterr);
        if (rc < 0)
                return rc;
        qmp_name(source, 'n', 0, mark);
        json_array_foreach(objects, i, object) {
                const char *name = json_string_value(json_object_get(object, "name"));

                if (!name || strcmp(name, mark) != 0)
                        continue;
                rc = qmp_run(source, "nbd-server-stop", NULL, &why);
                if (rc < 0 && !strstr(why.text, "not running")) /* it may not have come to that */
                        return fail(reterr, rc, "%s", why.text);
                return qmp_run(source, "object-del", json_pack("{s:s}", "id", mark), reterr);
        }
        return 0;
}

/* ---- exports ---- */

static int add_export(QmpSource *source, size_t disk, bool top, Reason *reterr) {
        char export[QMP_NAME_MAX], image[QMP_NAME_MAX];
        json_t *arguments;

        qmp_name(source, 'e', disk, export);
        qmp_name(source, 's', disk, image);
        arguments = json_pack("{s:s, s:s, s:s, s:s, s:b, s:b}", "type", "nbd", "id", export, "name", export, "node-name",
                              image, "writable", 0, "allocation-depth", top);
        if (arguments && source->dirty[disk])
                json_object_set_new(arguments, "bitmaps", json_pack("[s]", DIRTY));
        return qmp_run(source, "block-export-add", arguments, reterr);
}

static int end_exports(QmpSource *source, Reason *reterr) {
        for (int waited = 0;; waited += POLL_MS) {
                CLEANUP(json_decrefp) json_t *exports = NULL;
                const json_t *export;
                size_t i, left = 0;
                int rc = qmp_call(source->client, "query-block-exports", NULL, &exports, reterr);

                if (rc < 0)
                        return rc;
                json_array_foreach(exports, i, export) {
                        const char *id = json_string_value(json_object_get(export, "id"));

                        if (!id || !qmp_is_ours(source, id, 'e'))
                                continue;
                        left++;
                        rc = qmp_run(source, "block-export-del", json_pack("{s:s, s:s}", "id", id, "mode", "hard"), reterr);
                        if (rc < 0 && rc != -EIO)
                                return rc;
                }
                if (left == 0)
                        return 0;
                if (waited >= PATIENCE_MS)
                        return fail(reterr, -ETIMEDOUT, "an export of QEMU's NBD server does not end");
                usleep(POLL_MS * 1000);
        }
}

/* Takes everything of ours out of QEMU but the checkpoint. Each step is right whatever there is. */
static int clean_up(QmpSource *source, Reason *reterr) {
        int rc;

        rc = end_exports(source, reterr);
        if (rc == 0)
                rc = stop_server(source, reterr);
        if (rc == 0)
                rc = qmp_jobs_end(source, reterr);
        return rc == 0 ? qmp_scratch_remove(source, reterr) : rc;
}

/* ---- the moment ---- */

static int add_action(json_t *actions, const char *type, json_t *data) {
        return json_array_append_new(actions, json_pack("{s:s, s:o}", "type", type, "data", data));
}

/* The jobs come first: from there on the guest's writes wait, so that the bitmaps tell of exactly what the jobs show. */
static json_t *make_transaction(const QmpSource *source, const SourceJob *job) {
        CLEANUP(json_decrefp) json_t *actions = json_array();
        char id[QMP_NAME_MAX], filter[QMP_NAME_MAX], image[QMP_NAME_MAX];
        int rc = 0;

        for (size_t i = 0; i < source->captured_count; i++) {
                const QmpDisk *disk = &source->disks.items[source->captured[i]];

                qmp_name(source, 'b', i, id);
                qmp_name(source, 'c', i, filter);
                qmp_name(source, 's', i, image);
                rc |= add_action(actions, "blockdev-backup",
                                 json_pack("{s:s, s:s, s:s, s:s, s:s}", "job-id", id, "device", disk->node, "target", image,
                                           "sync", "none", "filter-node-name", filter));
        }
        for (size_t i = 0; i < source->captured_count; i++) {
                const QmpDisk *disk = &source->disks.items[source->captured[i]];

                if (job->checkpoint)
                        rc |= add_action(actions, "block-dirty-bitmap-add",
                                         json_pack("{s:s, s:s, s:b}", "node", disk->bitmap_node, "name", job->checkpoint,
                                                   "persistent", disk->persistent));
                if (!source->dirty[i])
                        continue;
                qmp_name(source, 's', i, image);
                rc |= add_action(actions, "block-dirty-bitmap-add",
                                 json_pack("{s:s, s:s, s:b}", "node", image, "name", DIRTY, "disabled", 1));
                rc |= add_action(actions, "block-dirty-bitmap-merge",
                                 json_pack("{s:s, s:s, s:[{s:s, s:s}]}", "node", image, "target", DIRTY, "bitmaps", "node",
                                           disk->bitmap_node, "name", job->base));
        }
        return rc < 0 ? NULL : json_pack("{s:O}", "actions", actions);
}

/* Whether another program's job is on a disk. */
static bool has_other_job(QmpSource *source) {
        CLEANUP(json_decrefp) json_t *jobs = NULL;
        const json_t *job;
        size_t i;

        if (qmp_call(source->client, "query-block-jobs", NULL, &jobs, NULL) < 0)
                return false;
        json_array_foreach(jobs, i, job) {
                const char *id = json_string_value(json_object_get(job, "device"));

                if (id && !qmp_is_ours(source, id, 0))
                        return true;
        }
        return false;
}

static int transact(QmpSource *source, const SourceJob *job, struct timespec *ret_moment, Reason *reterr) {
        json_t *transaction = make_transaction(source, job);
        Reason why;
        int rc;

        if (!transaction)
                return fail_oom(reterr);
        rc = qmp_hold_still(source, job, reterr);
        if (rc < 0) {
                json_decref(transaction);
        } else {
                clock_gettime(CLOCK_REALTIME, ret_moment);
                rc = qmp_run(source, "transaction", transaction, reterr);
        }
        if (qmp_let_go(source, &why) < 0)
                source_warn(&source->source.owner, "%s", why.text);
        if (rc == -EIO && has_other_job(source))
                return fail_within(reterr, -EBUSY, "another program has a job on the VM's disks");
        return rc;
}

/* ---- begin and end ---- */

static int check_bases(QmpSource *source, const SourceJob *job, Reason *reterr) {
        CLEANUP(qmp_nodes_clear) QmpNodes nodes = { 0 };
        int rc;

        free(source->dirty);
        source->dirty = calloc(source->captured_count + 1, sizeof *source->dirty);
        if (!source->dirty)
                return fail_oom(reterr);
        rc = qmp_look_at_nodes(source, &nodes, reterr);
        for (size_t i = 0; rc == 0 && job->base && i < source->captured_count; i++) {
                source->dirty[i] = job->incremental[i];
                if (job->incremental[i])
                        rc = source_blame(job, i, qmp_bitmap_check(&nodes, &source->disks.items[source->captured[i]],
                                                                   job->base, reterr));
        }
        return rc;
}

static int begin_in_place(QmpSource *source, const SourceJob *job, struct timespec *ret_moment, Reason *reterr) {
        int rc;

        rc = start_server(source, reterr);
        for (size_t i = 0; rc == 0 && i < source->captured_count; i++)
                rc = qmp_scratch_make(source, i, reterr);
        if (rc == 0)
                rc = transact(source, job, ret_moment, reterr);
        for (size_t i = 0; rc == 0 && i < source->captured_count; i++)
                rc = add_export(source, i, job->top, reterr);
        return rc;
}

/* Leaves nothing of a job that could not be begun, or of which nobody knows whether it was. */
static void undo_begin(QmpSource *source, const char *checkpoint) {
        if (qmp_connect(source, NULL) < 0 || clean_up(source, NULL) < 0)
                return; /* the files stay for who ends it */
        job_place_remove(&source->place);
        for (size_t i = 0; checkpoint && i < source->captured_count; i++)
                (void) qmp_bitmap_remove(source, source->disks.items[source->captured[i]].bitmap_node, checkpoint, NULL);
}

int qmp_begin(Source *base, const SourceJob *job, struct timespec *ret_moment, Reason *reterr) {
        QmpSource *source = (QmpSource *) base;
        CLEANUP(freep) char *checkpoint = NULL;
        struct timespec moment = { 0 };
        JobPlaceWish wish;
        int rc;

        if (job->checkpoint && !(checkpoint = strdup(job->checkpoint)))
                return fail_oom(reterr);
        rc = qmp_connect(source, reterr);
        if (rc == 0)
                rc = check_bases(source, job, reterr);
        if (rc < 0)
                return rc;
        wish = qmp_place_wish(source);
        job_place_forget(&source->place); /* of one that could not be undone */
        rc = job_place_make(&wish, &source->place, reterr);
        if (rc < 0)
                return rc;
        rc = begin_in_place(source, job, &moment, reterr);
        if (rc < 0) {
                undo_begin(source, job->checkpoint);
                return rc;
        }
        source->begun = true;
        source->broken = false;
        source->checkpoint = STEAL_PTR(checkpoint);
        *ret_moment = moment;
        return 0;
}

/* 1 where there is no QEMU, or another VM's: then there is no job either. */
static int connect_to_end(QmpSource *source, Reason *reterr) {
        int rc = qmp_connect(source, reterr);

        return rc == -EHOSTDOWN || rc == -ESTALE ? 1 : rc;
}

int qmp_end(Source *base, Reason *reterr) {
        QmpSource *source = (QmpSource *) base;
        int rc, stillness = 0;

        if (!source->begun)
                return 0;
        rc = connect_to_end(source, reterr);
        if (rc == 0) {
                stillness = qmp_let_go(source, reterr); /* where that failed before */
                rc = clean_up(source, reterr);
        }
        if (rc < 0)
                return rc; /* QEMU may still use the files */
        job_place_remove(&source->place);
        free(STEAL_PTR(source->checkpoint));
        source->begun = false;
        return stillness;
}

int qmp_end_leftovers(Source *base, Reason *reterr) {
        QmpSource *source = (QmpSource *) base;
        JobPlaceWish wish;
        int rc;

        rc = connect_to_end(source, reterr);
        if (rc == 0)
                rc = qmp_let_go_leftovers(source, reterr);
        if (rc == 0)
                rc = clean_up(source, reterr);
        if (rc < 0)
                return rc;
        job_place_forget(&source->place);
        wish = qmp_place_wish(source);
        job_place_sweep(&wish);
        if (rc > 0)
                job_note_remove(source->tag);
        return 0;
}

int qmp_confirm(Source *base, Reason *reterr) {
        QmpSource *source = (QmpSource *) base;
        CLEANUP(json_decrefp) json_t *jobs = NULL;
        const json_t *job;
        size_t i, running = 0;
        int rc;

        if (!source->begun)
                return 0;
        rc = qmp_call(source->client, "query-block-jobs", NULL, &jobs, reterr);
        if (rc < 0)
                return rc;
        json_array_foreach(jobs, i, job) {
                const char *id = json_string_value(json_object_get(job, "device"));
                const char *status = json_string_value(json_object_get(job, "status"));

                running += id && status && qmp_is_ours(source, id, 'b') && !json_object_get(job, "error") &&
                           (strcmp(status, "running") == 0 || strcmp(status, "paused") == 0 || strcmp(status, "ready") == 0);
        }
        if (running < source->captured_count || source->broken)
                return fail(reterr, -ESTALE, "a backup job in QEMU has ended before all was read: what was read may not be "
                                             "of one moment");
        return 0;
}
