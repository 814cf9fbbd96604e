#include "sources/qmp.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <uuid/uuid.h>

#include "sources/qmp-private.h"
#include "util/uri.h"

void qmp_name(const QmpSource *source, char kind, size_t disk, char name[static QMP_NAME_MAX]) {
        snprintf(name, QMP_NAME_MAX, "%.27s%c%03x", source->mark, kind, (unsigned) disk & 0xfff);
}

bool qmp_is_ours(const QmpSource *source, const char *name, char kind) {
        size_t length = strlen(source->mark);

        return length > 0 && strncmp(name, source->mark, length) == 0 && (kind ? name[length] == kind : name[length] != 0);
}

JobPlaceWish qmp_place_wish(const QmpSource *source) {
        return (JobPlaceWish) {
                .repository = source->source.owner.repository,
                .vm_uuid = source->source.owner.vm_uuid,
                .session = geteuid() != 0,
                .remote = !source->uri.path,
                .domain_id = -1,
                .domain_name = source->source.owner.vm,
                .scratch_directory = source->uri.scratch ?: source->source.owner.scratch_directory,
        };
}

/* The UUID that QEMU was given; an empty text where it has none, which it tells as zeroes. */
static int get_uuid(QmpSource *source, char uuid[static UUID_STR_LEN], Reason *reterr) {
        CLEANUP(json_decrefp) json_t *answer = NULL;
        uuid_t parsed;
        const char *text;
        int rc;

        rc = qmp_call(source->client, "query-uuid", NULL, &answer, reterr);
        if (rc < 0)
                return rc;
        text = json_string_value(json_object_get(answer, "UUID"));
        if (!text || uuid_parse(text, parsed) < 0)
                return fail(reterr, -EPROTO, "query-uuid: QEMU's answer is not of the form that is known");
        uuid[0] = 0;
        if (!uuid_is_null(parsed))
                uuid_unparse_lower(parsed, uuid);
        return 0;
}

int qmp_connect(QmpSource *source, Reason *reterr) {
        const QmpAddress address = { .socket_path = source->uri.path, .host = source->uri.host, .port = source->uri.port };
        const char *expected = source->source.owner.vm_uuid;
        char uuid[UUID_STR_LEN];
        int rc;

        if (source->client && !qmp_client_is_lost(source->client))
                return 0;
        source->client = qmp_client_free(source->client);
        rc = qmp_client_open(&address, source->source.owner.cancel, &source->client, reterr);
        if (rc == 0)
                rc = get_uuid(source, uuid, reterr);
        if (rc == 0 && expected && uuid[0] && strcasecmp(expected, uuid) != 0)
                rc = fail(reterr, -ESTALE, "the VM at %s is another one now: its UUID is %s, not %s", source->shown, uuid,
                          expected);
        if (rc < 0)
                source->client = qmp_client_free(source->client);
        return rc;
}

int qmp_run(QmpSource *source, const char *command, json_t *arguments, Reason *reterr) {
        return qmp_call(source->client, command, arguments, NULL, reterr);
}

static int qmp_identify(Source *base, char **ret, Reason *reterr) {
        QmpSource *source = (QmpSource *) base;
        const char *known = base->owner.vm_uuid ?: base->owner.former_uuid;
        char uuid[UUID_STR_LEN];
        uuid_t fresh;
        char *text;
        int rc;

        rc = qmp_connect(source, reterr);
        if (rc == 0)
                rc = get_uuid(source, uuid, reterr);
        if (rc < 0)
                return rc;
        if (!uuid[0] && !known) {
                uuid_generate_random(fresh);
                uuid_unparse_lower(fresh, uuid);
        }
        text = strdup(uuid[0] ? uuid : known);
        if (!text)
                return fail_oom(reterr);
        *ret = text;
        return 0;
}

int qmp_look_at_nodes(QmpSource *source, QmpNodes *ret, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *answer = NULL;
        int rc;

        rc = qmp_call(source->client, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), &answer, reterr);
        return rc < 0 ? rc : qmp_nodes_parse(answer, ret, reterr);
}

static int copy_disk(const QmpSource *source, const QmpDisk *from, SourceDisk *to, Reason *reterr) {
        int rc;

        rc = qmp_bitmap_why_not(source, from, &to->why_not, reterr);
        if (rc < 0)
                return rc;
        to->tracks_changes = !to->why_not;
        to->name = strdup(from->name);
        to->backing = from->backing ? strdup(from->backing) : NULL;
        if (!to->name || (from->backing && !to->backing))
                return fail_oom(reterr);
        for (size_t i = 0; i < from->images.count; i++)
                if (strings_add(&to->images, from->images.items[i]) < 0)
                        return fail_oom(reterr);
        return 0;
}

static int take_disks(QmpSource *source, SourceVm *vm, Reason *reterr) {
        const QmpDisks *disks = &source->disks;

        free(source->captured);
        source->captured_count = 0;
        source->captured = calloc(disks->count + 1, sizeof *source->captured);
        vm->disks = calloc(disks->count + 1, sizeof *vm->disks);
        if (!source->captured || !vm->disks)
                return fail_oom(reterr);
        for (size_t i = 0; i < disks->count; i++) {
                const QmpDisk *disk = &disks->items[i];
                int rc;

                if (!source_wants_disk(&source->source.owner, disk->name))
                        continue;
                if (disk->left_out) {
                        source_warn(&source->source.owner, "%s is left out: %s", disk->name, disk->left_out);
                        continue;
                }
                if (disk->encrypted)
                        source_warn(&source->source.owner, "%s is encrypted by QEMU: its backup is stored decrypted",
                                    disk->name);
                rc = copy_disk(source, disk, &vm->disks[vm->disk_count++], reterr);
                if (rc < 0)
                        return rc;
                source->captured[source->captured_count++] = i;
        }
        if (vm->disk_count == 0)
                return fail(reterr, -ENODEV, "the VM at %s has no disk that could be captured", source->shown);
        return 0;
}

/* Of QEMU, as far as this user may know; NULL: it is on another machine. */
static const char *working_directory(const QmpSource *source, char path[static PATH_MAX]) {
        char link[64];
        ssize_t length;

        if (!source->uri.path)
                return NULL;
        snprintf(link, sizeof link, "/proc/%d/cwd", (int) qmp_client_process(source->client));
        length = readlink(link, path, PATH_MAX - 1);
        path[length > 0 ? length : 0] = 0;
        return path;
}

/* While a job is there the inspection that it rests on stays: what is asked for then is whether the VM is there. */
static int qmp_inspect(Source *base, SourceVm *ret, Reason *reterr) {
        QmpSource *source = (QmpSource *) base;
        CLEANUP(json_decrefp) json_t *blocks = NULL;
        CLEANUP(qmp_nodes_clear) QmpNodes nodes = { 0 };
        CLEANUP(qmp_disks_clear) QmpDisks disks = { 0 };
        CLEANUP(source_vm_clear) SourceVm vm = { 0 };
        char directory[PATH_MAX];
        int rc;

        rc = qmp_connect(source, reterr);
        if (rc < 0)
                return rc;
        if (source->begun)
                return fail(reterr, -EBUSY, "a backup job is there");
        rc = qmp_look_at_nodes(source, &nodes, reterr);
        if (rc == 0)
                rc = qmp_call(source->client, "query-block", NULL, &blocks, reterr);
        if (rc == 0)
                rc = qmp_disks_parse(blocks, &nodes, working_directory(source, directory), &disks, reterr);
        if (rc == 0)
                rc = qmp_identify(base, &vm.uuid, reterr);
        if (rc < 0)
                return rc;
        qmp_nodes_clear(&source->nodes);
        qmp_disks_clear(&source->disks);
        source->nodes = nodes;
        source->disks = disks;
        nodes = (QmpNodes) { 0 };
        disks = (QmpDisks) { 0 };
        rc = take_disks(source, &vm, reterr);
        if (rc < 0)
                return rc;
        *ret = vm;
        vm = (SourceVm) { 0 };
        return 0;
}

static int qmp_checkpoint(Source *base, char **ret_name, char **ret_definition, Reason *reterr) {
        const QmpSource *source = (QmpSource *) base;

        *ret_name = *ret_definition = NULL;
        if (source->checkpoint && !(*ret_name = strdup(source->checkpoint)))
                return fail_oom(reterr);
        return 0;
}

static int qmp_open_reader(Source *base, size_t disk, const SourceView *view, SourceReader **ret, Reason *reterr) {
        const QmpSource *source = (QmpSource *) base;
        char export[QMP_NAME_MAX];
        NbdAddress address;

        if (!source->begun || disk >= source->captured_count || (view->incremental && !source->dirty[disk]))
                return fail(reterr, -EINVAL, "there is no backup job to read from");
        qmp_name(source, 'e', disk, export);
        qmp_server_address(source, &address);
        address.export_name = export;
        address.bitmap = view->incremental ? "qemu:dirty-bitmap:dirty" : NULL;
        address.ignore_zero = !view->ask_zero;
        address.top_depth = view->top ? 2 : 0; /* the scratch image has what the guest overwrote of the top image */
        return nbd_reader_open(&address, base->owner.cancel, ret, reterr);
}

/* The disk of a job of ours that has ended. NULL: the event is about something else. */
static const char *ended_disk(const QmpSource *source, const json_t *event) {
        const char *what = json_string_value(json_object_get(event, "event"));
        const char *id = json_string_value(json_object_get(json_object_get(event, "data"), "device"));
        char name[QMP_NAME_MAX];

        if (!id || strncmp(what, "BLOCK_JOB_", strlen("BLOCK_JOB_")) != 0)
                return NULL;
        for (size_t i = 0; i < source->captured_count; i++) {
                qmp_name(source, 'b', i, name);
                if (strcmp(id, name) == 0)
                        return source->disks.items[source->captured[i]].name;
        }
        return NULL;
}

static int qmp_watch(Source *base, Reason *reterr) {
        QmpSource *source = (QmpSource *) base;

        while (source->begun) {
                CLEANUP(json_decrefp) json_t *event = NULL;
                const char *disk, *why;
                int rc = qmp_next_event(source->client, &event, reterr);

                if (rc < 0)
                        return rc;
                if (rc == 0)
                        return job_place_watch(&source->place, reterr);
                disk = ended_disk(source, event);
                if (!disk)
                        continue;
                why = json_string_value(json_object_get(json_object_get(event, "data"), "error"));
                source->broken = true;
                return fail(reterr, -EIO, "the backup job of %s in QEMU has ended%s%.256s", disk, why ? ": " : "",
                            why ?: "");
        }
        return 0;
}

static void qmp_free(Source *base) {
        QmpSource *source = (QmpSource *) base;

        qmp_client_free(source->client);
        qmp_client_free(source->agent);
        qmp_uri_clear(&source->uri);
        qmp_nodes_clear(&source->nodes);
        qmp_disks_clear(&source->disks);
        job_place_forget(&source->place);
        free(source->shown);
        free(source->captured);
        free(source->dirty);
        free(source->checkpoint);
        free(source);
}

static void qmp_freep(QmpSource **source) {
        if (*source)
                qmp_free(&(*source)->source);
}

static int qmp_open(const SourceOwner *owner, Source **ret, Reason *reterr) {
        CLEANUP(qmp_freep) QmpSource *source = calloc(1, sizeof *source);
        int rc;

        if (!source)
                return fail_oom(reterr);
        source->source.owner = *owner;
        rc = qmp_uri_parse(owner->source, &source->uri, reterr);
        if (rc < 0)
                return rc;
        if (uri_hide_passwords(owner->source, &source->shown) < 0)
                return fail_oom(reterr);
        if (owner->vm_uuid) {
                job_tag(owner->repository, owner->vm_uuid, source->tag);
                snprintf(source->mark, sizeof source->mark, "vbfs-%.21s-", strchr(source->tag, '-') + 1);
        }
        *ret = &STEAL_PTR(source)->source;
        return 0;
}

const SourceOps qmp_source_ops = {
        .name = "qmp",
        .claims = qmp_uri_claims,
        .open = qmp_open,
        .identify = qmp_identify,
        .inspect = qmp_inspect,
        .begin = qmp_begin,
        .checkpoint = qmp_checkpoint,
        .open_reader = qmp_open_reader,
        .watch = qmp_watch,
        .confirm = qmp_confirm,
        .end = qmp_end,
        .end_leftovers = qmp_end_leftovers,
        .keep_checkpoints = qmp_keep_checkpoints,
        .free = qmp_free,
};
