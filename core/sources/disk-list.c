#include "sources/disk-list.h"

#include <errno.h>
#include <string.h>
#include <uuid/uuid.h>

#include "sources/disk-file.h"
#include "sources/disk-imageio.h"
#include "sources/disk-nbd.h"
#include "sources/disk-source.h"
#include "util/text.h"
#include "util/uri.h"

#define DISKS_MAX 256

static const DiskSourceOps *const kinds[] = {
        &disk_file_ops,
        &disk_imageio_ops,
        &disk_nbd_ops,
};

typedef struct DiskList {
        Source source;
        char *words;        /* that names point into */
        DiskSource **disks; /* those that the owner wants */
        size_t count;
} DiskList;

static size_t name_length(const char *word) {
        size_t length = strcspn(word, "=:/? ");

        return word[length] == '=' ? length : 0;
}

static bool list_claims(const char *text) {
        return name_length(text) > 0;
}

static void list_free(Source *base) {
        DiskList *list = (DiskList *) base;

        for (size_t i = 0; i < list->count; i++) {
                free(list->disks[i]->bitmap);
                free(list->disks[i]->checkpoint);
                list->disks[i]->ops->free(list->disks[i]);
        }
        free(list->disks);
        free(list->words);
        free(list);
}

static void list_freep(DiskList **list) {
        if (*list)
                list_free(&(*list)->source);
}

static int open_disk(DiskList *list, const char *name, const char *uri, Reason *reterr) {
        CLEANUP(freep) char *shown = NULL;
        const DiskSourceOps *ops = NULL;
        DiskSource *disk;
        int rc;

        for (size_t i = 0; i < list->count; i++)
                if (strcmp(list->disks[i]->disk, name) == 0)
                        return fail(reterr, -EINVAL, "disk %s is there twice", name);
        for (size_t i = 0; !ops && i < sizeof kinds / sizeof *kinds; i++)
                if (kinds[i]->claims(uri))
                        ops = kinds[i];
        if (uri_hide_passwords(uri, &shown) < 0)
                return fail_oom(reterr);
        if (!ops)
                return fail(reterr, -EINVAL, "%s: \"%s\" is no URI of a disk that is known here", name, shown);
        rc = ops->open(&list->source.owner, name, uri, &disk, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "%s", name);
        disk->ops = ops;
        disk->owner = &list->source.owner;
        disk->disk = name;
        list->disks[list->count++] = disk;
        return 0;
}

static int list_open(const SourceOwner *owner, Source **ret, Reason *reterr) {
        CLEANUP(list_freep) DiskList *list = calloc(1, sizeof *list);
        char *rest, *word;

        if (!list)
                return fail_oom(reterr);
        list->source.owner = *owner;
        list->disks = calloc(DISKS_MAX, sizeof *list->disks);
        list->words = rest = strdup(owner->source);
        if (!list->disks || !list->words)
                return fail_oom(reterr);
        while ((word = strsep(&rest, " "))) {
                size_t length = name_length(word);
                int rc;

                if (length == 0)
                        return fail(reterr, -EINVAL, "a disk is written DISK=URI");
                word[length] = 0;
                if (!source_wants_disk(owner, word))
                        continue;
                if (list->count == DISKS_MAX)
                        return fail(reterr, -EINVAL, "more than %u disks", DISKS_MAX);
                rc = open_disk(list, word, word + length + 1, reterr);
                if (rc < 0)
                        return rc;
        }
        *ret = &STEAL_PTR(list)->source;
        return 0;
}

static int list_identify(Source *base, char **ret, Reason *reterr) {
        char text[UUID_STR_LEN];
        uuid_t uuid;

        uuid_generate(uuid);
        uuid_unparse_lower(uuid, text);
        *ret = strdup(base->owner.vm_uuid ?: base->owner.former_uuid ?: text);
        return *ret ? 0 : fail_oom(reterr);
}

static int append_word(char **words, const char *name, const char *text) {
        char *longer;

        if (text_format(&longer, "%s%s%s=%s", *words ?: "", *words ? " " : "", name, text) < 0)
                return -ENOMEM;
        free(*words);
        *words = longer;
        return 0;
}

static int list_settle(Source *base, char **ret, Reason *reterr) {
        const DiskList *list = (const DiskList *) base;
        CLEANUP(freep) char *words = NULL, *given = strdup(base->owner.source);
        char *rest = given, *word;

        if (!given)
                return fail_oom(reterr);
        for (size_t i = 0; (word = strsep(&rest, " "));) {
                CLEANUP(freep) char *settled = NULL;
                char *uri = word + name_length(word);
                DiskSource *disk = i < list->count ? list->disks[i] : NULL;
                int rc = 0;

                *uri++ = 0;
                if (disk && strcmp(disk->disk, word) == 0) { /* else the owner does not want it */
                        i++;
                        if (disk->ops->settle)
                                rc = disk->ops->settle(disk, &settled, reterr);
                }
                if (rc < 0)
                        return fail_within(reterr, rc, "%s", word);
                if (append_word(&words, word, settled ?: uri) < 0)
                        return fail_oom(reterr);
        }
        *ret = STEAL_PTR(words);
        return 0;
}

static int list_inspect(Source *base, SourceVm *ret, Reason *reterr) {
        CLEANUP(source_vm_clear) SourceVm vm = { 0 };
        const DiskList *list = (const DiskList *) base;
        int rc;

        rc = list_identify(base, &vm.uuid, reterr);
        if (rc < 0)
                return rc;
        vm.disks = calloc(list->count + 1, sizeof *vm.disks);
        if (!vm.disks)
                return fail_oom(reterr);
        for (size_t i = 0; i < list->count; i++) {
                vm.disks[i].name = strdup(list->disks[i]->disk);
                vm.disk_count = i + 1;
                if (!vm.disks[i].name)
                        return fail_oom(reterr);
                rc = list->disks[i]->ops->inspect(list->disks[i], &vm.disks[i], reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "%s", list->disks[i]->disk);
        }
        *ret = vm;
        vm = (SourceVm) { 0 };
        return 0;
}

/* What the new point is to say of the disk; NULL: nothing. */
static const char *checkpoint_of(const DiskSource *disk) {
        return disk->checkpoint ?: disk->bitmap;
}

/* What a point says of this disk. *ret stays NULL where it says nothing, or nothing that could be understood. */
static int find_checkpoint(const char *said, const char *disk, char **ret) {
        CLEANUP(freep) char *words = said ? strdup(said) : NULL;
        char *rest = words, *word;

        if (said && !words)
                return -ENOMEM;
        while ((word = strsep(&rest, " "))) {
                size_t length = name_length(word);

                if (length > 0 && (strncmp(word, disk, length) != 0 || disk[length]))
                        continue;
                word += length > 0 ? length + 1 : 0;
                return uri_unescape(word, strlen(word), ret) == -ENOMEM ? -ENOMEM : 0;
        }
        return 0;
}

/* Whether its bitmap goes back to the base. */
static int check_base(const DiskSource *disk, const char *base, Reason *reterr) {
        CLEANUP(freep) char *then = NULL;

        if (find_checkpoint(base, disk->disk, &then) < 0)
                return fail_oom(reterr);
        if (!disk->bitmap)
                return fail(reterr, -ESTALE, "%s: there is no bitmap", disk->disk);
        if (!then || strcmp(then, disk->bitmap) != 0)
                return fail(reterr, -ESTALE, "%s: the bitmap %s does not go back to the parent point, which has %s",
                            disk->disk, disk->bitmap, then ?: "none");
        return 0;
}

static int end_disks(DiskList *list, size_t count, Reason *reterr) {
        int first = 0;

        for (size_t i = 0; i < count; i++) {
                int rc = list->disks[i]->ops->end(list->disks[i], first == 0 ? reterr : NULL);

                if (rc < 0 && first == 0)
                        first = fail_within(reterr, rc, "%s", list->disks[i]->disk);
        }
        return first;
}

static int list_begin(Source *base, const SourceJob *job, struct timespec *ret_moment, Reason *reterr) {
        DiskList *list = (DiskList *) base;
        struct timespec moment;
        int rc = 0;

        if (job->freeze == FREEZE_ALWAYS || job->pause)
                return fail(reterr, -ENOTSUP, "no hypervisor is known that could %s the VM",
                            job->pause ? "pause" : "freeze the file systems of");
        for (size_t i = 0; rc == 0 && i < list->count; i++)
                if (job->incremental[i])
                        rc = source_blame(job, i, check_base(list->disks[i], job->base, reterr));
        if (rc < 0)
                return rc;
        clock_gettime(CLOCK_REALTIME, &moment);
        for (size_t i = 0; i < list->count; i++) {
                SourceView view = { .incremental = job->incremental[i], .top = job->top, .ask_zero = true };

                rc = list->disks[i]->ops->begin(list->disks[i], &view, reterr);
                if (rc < 0) {
                        (void) end_disks(list, i, NULL);
                        if (job->incremental[i])
                                source_blame(job, i, rc);
                        return fail_within(reterr, rc, "%s", list->disks[i]->disk);
                }
        }
        *ret_moment = moment;
        return 0;
}

static int list_checkpoint(Source *base, char **ret_name, char **ret_definition, Reason *reterr) {
        const DiskList *list = (const DiskList *) base;
        const char *first = list->count > 0 ? checkpoint_of(list->disks[0]) : NULL;
        CLEANUP(freep) char *one = NULL, *words = NULL;
        bool same = first;

        for (size_t i = 0; i < list->count; i++) {
                const char *name = checkpoint_of(list->disks[i]);
                CLEANUP(freep) char *escaped = NULL;

                same = same && name && strcmp(name, first) == 0;
                if (!name)
                        continue;
                if (uri_escape(name, &escaped) < 0 || append_word(&words, list->disks[i]->disk, escaped) < 0)
                        return fail_oom(reterr);
        }
        if (same && uri_escape(first, &one) < 0)
                return fail_oom(reterr);
        *ret_name = same ? STEAL_PTR(one) : STEAL_PTR(words);
        *ret_definition = NULL;
        return 0;
}

static int list_open_reader(Source *base, size_t disk, const SourceView *view, SourceReader **ret, Reason *reterr) {
        const DiskList *list = (const DiskList *) base;

        return list->disks[disk]->ops->open_reader(list->disks[disk], view, ret, reterr);
}

static int list_watch(Source *base, Reason *reterr) {
        const DiskList *list = (const DiskList *) base;

        for (size_t i = 0; i < list->count; i++) {
                DiskSource *disk = list->disks[i];
                int rc = disk->ops->watch ? disk->ops->watch(disk, reterr) : 0;

                if (rc < 0)
                        return fail_within(reterr, rc, "%s", disk->disk);
        }
        return 0;
}

static int list_confirm(Source *base, Reason *reterr) {
        const DiskList *list = (const DiskList *) base;

        for (size_t i = 0; i < list->count; i++) {
                DiskSource *disk = list->disks[i];
                int rc = disk->ops->confirm ? disk->ops->confirm(disk, reterr) : 0;

                if (rc < 0)
                        return fail_within(reterr, rc, "%s", disk->disk);
        }
        return 0;
}

static int list_end(Source *base, Reason *reterr) {
        DiskList *list = (DiskList *) base;

        return end_disks(list, list->count, reterr);
}

static int list_end_leftovers(Source *base, Reason *reterr) {
        const DiskList *list = (const DiskList *) base;
        int first = 0;

        for (size_t i = 0; i < list->count; i++) {
                DiskSource *disk = list->disks[i];
                int rc = disk->ops->end_leftovers ? disk->ops->end_leftovers(disk, first == 0 ? reterr : NULL) : 0;

                if (rc < 0 && first == 0)
                        first = fail_within(reterr, rc, "%s", disk->disk);
        }
        return first;
}

/* None is ours. */
static int list_keep_checkpoints(Source *base, const char *const *keep, size_t count, Reason *reterr) {
        return 0;
}

const SourceOps disk_list_source_ops = {
        .name = "disks",
        .claims = list_claims,
        .open = list_open,
        .identify = list_identify,
        .settle = list_settle,
        .inspect = list_inspect,
        .begin = list_begin,
        .checkpoint = list_checkpoint,
        .open_reader = list_open_reader,
        .watch = list_watch,
        .confirm = list_confirm,
        .end = list_end,
        .end_leftovers = list_end_leftovers,
        .keep_checkpoints = list_keep_checkpoints,
        .free = list_free,
};
