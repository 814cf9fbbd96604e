#include "sources/source.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sources/disk-list.h"
#include "sources/libvirt.h"
#include "sources/qmp.h"
#include "util/uri.h"

#define REGISTERED_MAX 8
#define READ_MAX_LEAST (64u << 10)

static const SourceOps *registered[REGISTERED_MAX];
static size_t registered_count;

static const SourceOps *const built_in[] = {
        &disk_list_source_ops,
        &libvirt_source_ops,
        &qmp_source_ops,
};

void source_register(const SourceOps *ops) {
        assert(registered_count < REGISTERED_MAX);
        registered[registered_count++] = ops;
}

static const SourceOps *find_ops(const char *text) {
        for (size_t i = 0; i < registered_count; i++)
                if (registered[i]->claims(text))
                        return registered[i];
        for (size_t i = 0; i < sizeof built_in / sizeof *built_in; i++)
                if (built_in[i]->claims(text))
                        return built_in[i];
        return NULL;
}

int source_open(const SourceOwner *owner, Source **ret, Reason *reterr) {
        const SourceOps *ops = find_ops(owner->source);
        CLEANUP(freep) char *shown = NULL;
        Source *source;
        int rc;

        if (uri_hide_passwords(owner->source, &shown) < 0)
                return fail_oom(reterr);
        if (!ops)
                return fail(reterr, -EINVAL, "%s is no source that is known here: a libvirt URI is, as qemu:///system, "
                            "QEMU's own monitor as qmp:///PATH, DISK=URI for each disk, and a directory of backups", shown);
        rc = ops->open(owner, &source, reterr);
        if (rc < 0)
                return rc;
        source->ops = ops;
        source->owner = *owner;
        *ret = source;
        return 0;
}

void source_warn(const SourceOwner *owner, const char *format, ...) {
        char line[REASON_MAX];
        va_list args;

        if (!owner->warn)
                return;
        va_start(args, format);
        vsnprintf(line, sizeof line, format, args);
        va_end(args);
        owner->warn(owner->context, line);
}

static bool is_named(const Strings *names, const char *name) {
        for (size_t i = 0; names && i < names->count; i++)
                if (strcmp(names->items[i], name) == 0)
                        return true;
        return false;
}

bool source_wants_disk(const SourceOwner *owner, const char *name) {
        bool included = !owner->include || owner->include->count == 0 || is_named(owner->include, name);

        return included && !is_named(owner->exclude, name);
}

Source *source_free(Source *source) {
        if (source)
                source->ops->free(source);
        return NULL;
}

void source_vm_clear(SourceVm *vm) {
        for (size_t i = 0; i < vm->disk_count; i++) {
                free(vm->disks[i].name);
                free(vm->disks[i].why_not);
                free(vm->disks[i].backing);
                strings_free(&vm->disks[i].images);
        }
        for (size_t i = 0; i < vm->file_count; i++) {
                free(vm->files[i].name);
                free(vm->files[i].content);
        }
        free(vm->uuid);
        free(vm->disks);
        free(vm->files);
        *vm = (SourceVm) { 0 };
}

void source_extents_clear(SourceExtents *extents) {
        free(extents->items);
        *extents = (SourceExtents) { 0 };
}

int source_extents_add(SourceExtents *extents, SourceExtent next) {
        SourceExtent *last = extents->count > 0 ? &extents->items[extents->count - 1] : NULL;

        if (last && last->start + last->length == next.start && last->dirty == next.dirty && last->zero == next.zero &&
            last->below == next.below) {
                last->length += next.length;
                return 0;
        }
        if (extents->count == extents->capacity) {
                size_t capacity = extents->capacity ? extents->capacity * 2 : 64;
                SourceExtent *grown = reallocarray(extents->items, capacity, sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                extents->items = grown;
                extents->capacity = capacity;
        }
        extents->items[extents->count++] = next;
        return 0;
}

int source_identify(Source *source, char **ret, Reason *reterr) {
        return source->ops->identify(source, ret, reterr);
}

int source_settle(Source *source, char **ret, Reason *reterr) {
        if (source->ops->settle)
                return source->ops->settle(source, ret, reterr);
        *ret = strdup(source->owner.source);
        return *ret ? 0 : fail_oom(reterr);
}

int source_inspect(Source *source, SourceVm *ret, Reason *reterr) {
        return source->ops->inspect(source, ret, reterr);
}

int source_blame(const SourceJob *job, size_t disk, int rc) {
        if (rc == -ESTALE && job->blamed)
                *job->blamed = disk;
        return rc;
}

int source_begin(Source *source, const SourceJob *job, struct timespec *ret_moment, Reason *reterr) {
        return source->ops->begin(source, job, ret_moment, reterr);
}

int source_checkpoint(Source *source, char **ret_name, char **ret_definition, Reason *reterr) {
        return source->ops->checkpoint(source, ret_name, ret_definition, reterr);
}

int source_open_reader(Source *source, size_t disk, const SourceView *view, SourceReader **ret, Reason *reterr) {
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        int rc;

        rc = source->ops->open_reader(source, disk, view, &reader, reterr);
        if (rc < 0)
                return rc;
        if (reader->size > INT64_MAX)
                return fail(reterr, -EPROTO, "the source says a size that no disk has");
        assert(reader->read_max >= READ_MAX_LEAST);
        *ret = STEAL_PTR(reader);
        return 0;
}

SourceReader *source_reader_free(SourceReader *reader) {
        if (reader)
                reader->ops->free(reader);
        return NULL;
}

static bool within(const SourceReader *reader, uint64_t start, uint64_t length) {
        return start <= reader->size && length <= reader->size - start;
}

int source_extents(SourceReader *reader, uint64_t start, uint64_t length, SourceExtents *ret, Reason *reterr) {
        CLEANUP(source_extents_clear) SourceExtents extents = { 0 };
        uint64_t at = start, left = length;
        int rc;

        if (!within(reader, start, length))
                return fail(reterr, -ERANGE, "extents asked for past the end of the disk");
        if (length > 0) {
                rc = reader->ops->extents(reader, start, length, &extents, reterr);
                if (rc < 0)
                        return rc;
        }
        for (size_t i = 0; i < extents.count; i++) {
                const SourceExtent *e = &extents.items[i];

                if (e->start != at || e->length == 0 || e->length > left)
                        return fail(reterr, -EPROTO, "the source's extents have gaps or overlap");
                at += e->length;
                left -= e->length;
        }
        if (left > 0)
                return fail(reterr, -EPROTO, "the source's extents end before the range does");
        *ret = extents;
        extents = (SourceExtents) { 0 };
        return 0;
}

int source_read(SourceReader *reader, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        if (!within(reader, offset, length))
                return fail(reterr, -ERANGE, "bytes asked for past the end of the disk");
        if (length > reader->read_max)
                return fail(reterr, -EINVAL, "a read of %zu bytes is longer than the source takes", length);
        return length > 0 ? reader->ops->read(reader, buffer, length, offset, reterr) : 0;
}

int source_watch(Source *source, Reason *reterr) {
        return source->ops->watch(source, reterr);
}

int source_confirm(Source *source, Reason *reterr) {
        return source->ops->confirm ? source->ops->confirm(source, reterr) : 0;
}

int source_end(Source *source, Reason *reterr) {
        return source->ops->end(source, reterr);
}

int source_end_leftovers(Source *source, Reason *reterr) {
        return source->ops->end_leftovers(source, reterr);
}

int source_keep_checkpoints(Source *source, const char *const *keep, size_t count, Reason *reterr) {
        return source->ops->keep_checkpoints(source, keep, count, reterr);
}
