#include "capture/copy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "capture/pipeline.h"
#include "capture/survey.h"
#include "formats/native/layer-writer.h"

#define READERS_MAX 8

/* The connections to one disk. */
typedef struct Readers {
        SourceReader *items[READERS_MAX];
        size_t count;
} Readers;

static void readers_clear(Readers *readers) {
        while (readers->count > 0)
                source_reader_free(readers->items[--readers->count]);
}

/* A source is asked by one thread at a time. */
static int open_reader(const Copy *copy, size_t disk, SourceReader **ret, Reason *reterr) {
        SourceView view = {
                .incremental = copy->base->disks[disk].chain,
                .top = copy->top,
                .ask_zero = copy->ask_zero,
        };
        int rc;

        watcher_lock_source(copy->watcher);
        rc = source_open_reader(copy->source, disk, &view, ret, reterr);
        watcher_unlock_source(copy->watcher);
        return rc < 0 ? fail_within(reterr, rc, "%s", copy->source_vm->disks[disk].name) : 0;
}

static int open_readers(const Copy *copy, size_t disk, Readers *ret, Reason *reterr) {
        size_t wanted = pipeline_thread_count();
        int rc;

        for (ret->count = 0; ret->count < wanted && ret->count < READERS_MAX; ret->count++) {
                if (ret->count > 0 && !ret->items[0]->multi)
                        break;
                rc = open_reader(copy, disk, &ret->items[ret->count], reterr);
                if (rc < 0 && ret->count > 0 && !stop_requested(copy->stop))
                        break; /* the server has enough of us: those that there are will do */
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static PlanDisk plan_disk(const Copy *copy, size_t disk, const SourceReader *reader) {
        Chain *parent = copy->base->disks[disk].chain;

        return (PlanDisk) {
                .size = reader->size,
                .parent_size = parent ? chain_size(parent) : 0,
                .block_size = copy->block_size,
        };
}

static int survey_one(const Copy *copy, size_t disk, Reason *reterr) {
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        Chain *parent = copy->base->disks[disk].chain;
        Reason why = REASON_INIT;
        PlanDisk plan;
        uint64_t total;
        int rc;

        rc = open_reader(copy, disk, &reader, reterr);
        if (rc < 0)
                return rc;
        plan = plan_disk(copy, disk, reader);
        rc = survey_disk(reader, &plan, parent, &total, &why, reterr);
        if (rc == 0) {
                base_give_up_disk(copy->base, disk, &why);
                plan.parent_size = 0;
                rc = survey_disk(reader, &plan, NULL, &total, NULL, reterr);
        }
        if (rc < 0)
                return fail_within(reterr, rc, "%s", copy->source_vm->disks[disk].name);
        reporter_set_total(copy->reporter, disk, total);
        return 0;
}

int copy_survey(const Copy *copy, Reason *reterr) {
        for (size_t i = 0; i < copy->source_vm->disk_count; i++) {
                int rc;

                if (stop_requested(copy->stop))
                        return stop_cause(copy->stop, -ECANCELED, reterr);
                rc = survey_one(copy, i, reterr);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static int new_writer(const Copy *copy, const Manifest *manifest, const char *disk, uint64_t size, const char *file,
                      LayerWriter **ret, Reason *reterr) {
        CLEANUP(byte_sink_freep) ByteSink *sink = NULL;
        CLEANUP(freep) char *path = NULL;
        LayerDescription description = {
                .repository = repository_uuid(vm_repository(copy->vm)),
                .vm_uuid = manifest->vm_uuid,
                .vm = manifest->vm,
                .disk = disk,
                .capture = manifest->capture,
                .disk_size = size,
                .block_size = copy->block_size,
                .codec = copy->codec,
        };
        int rc;

        if (asprintf(&path, "data/%s/%s", manifest->capture, file) < 0) {
                path = NULL;
                return fail_oom(reterr);
        }
        rc = file_sink_create(vm_fd(copy->vm), path, &sink, reterr);
        if (rc < 0)
                return rc;
        rc = layer_writer_new(sink, &description, ret, reterr);
        if (rc == 0)
                (void) STEAL_PTR(sink);
        return rc;
}

/* Fills what a manifest says of a disk but for its bytes. */
static int describe_disk(const Copy *copy, size_t disk, ManifestDisk *ret) {
        const SourceDisk *source = &copy->source_vm->disks[disk];
        const BaseDisk *base = &copy->base->disks[disk];
        int rc;

        ret->kind = base->chain ? POINT_INCREMENTAL : POINT_FULL;
        ret->name = strdup(source->name);
        ret->layers = calloc(1, sizeof *ret->layers);
        if (!ret->name || !ret->layers)
                return -ENOMEM;
        ret->layer_count = 1;
        ret->layers[0].format = strdup("native");
        if (!ret->layers[0].format)
                return -ENOMEM;
        if (asprintf(&ret->layers[0].file, "%s.layer", source->name) < 0) {
                ret->layers[0].file = NULL;
                return -ENOMEM;
        }
        if (!base->chain && copy->base->manifest) {
                ret->why = strdup(base->why.text);
                if (!ret->why)
                        return -ENOMEM;
        }
        for (size_t i = 0; i < source->images.count; i++) {
                rc = strings_add(&ret->images, source->images.items[i]);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

typedef struct DoneContext {
        Reporter *reporter;
        size_t disk;
} DoneContext;

static void add_done(void *context, uint64_t bytes) {
        DoneContext *done = context;

        reporter_add_done(done->reporter, done->disk, bytes);
}

static int copy_disk(const Copy *copy, const Manifest *manifest, size_t disk, ManifestDisk *ret, Reason *reterr) {
        CLEANUP(readers_clear) Readers readers = { 0 };
        CLEANUP(layer_writer_freep) LayerWriter *writer = NULL;
        DoneContext done = { copy->reporter, disk };
        PipelineDisk pipeline;
        LayerTotals totals;
        uint64_t parent_data = 0;
        int rc;

        rc = open_readers(copy, disk, &readers, reterr);
        if (rc < 0)
                return rc;
        ret->size = readers.items[0]->size;
        rc = new_writer(copy, manifest, ret->name, ret->size, ret->layers[0].file, &writer, reterr);
        if (rc < 0)
                return rc;
        pipeline = (PipelineDisk) {
                .name = ret->name,
                .readers = readers.items,
                .reader_count = readers.count,
                .plan = plan_disk(copy, disk, readers.items[0]),
                .parent = copy->base->disks[disk].chain,
                .codec = copy->codec,
                .writer = writer,
                .done = add_done,
                .context = &done,
        };
        rc = pipeline_run(&pipeline, copy->stop, &parent_data, reterr);
        if (rc < 0)
                return rc;
        rc = layer_writer_finish(writer, &totals, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "%s", ret->name);
        ret->layers[0].length = totals.length;
        ret->layers[0].seal = totals.seal;
        ret->allocated = parent_data + totals.data;
        return 0;
}

int copy_run(const Copy *copy, Manifest *manifest, Reason *reterr) {
        manifest->disks = calloc(copy->source_vm->disk_count, sizeof *manifest->disks);
        if (!manifest->disks)
                return fail_oom(reterr);
        for (size_t i = 0; i < copy->source_vm->disk_count; i++) {
                int rc;

                manifest->disk_count = i + 1;
                if (describe_disk(copy, i, &manifest->disks[i]) < 0)
                        return fail_oom(reterr);
                rc = copy_disk(copy, manifest, i, &manifest->disks[i], reterr);
                if (rc < 0)
                        return rc;
        }
        return 0;
}
