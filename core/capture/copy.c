#include "capture/copy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "capture/comparison.h"
#include "capture/pipeline.h"
#include "capture/readers.h"
#include "capture/survey.h"
#include "formats/native/layer-writer.h"
#include "util/text.h"

#define SKIPS_TOLD 16 /* ranges; after that only how much it was in all */

/* One disk of a copy. */
typedef struct DiskCopy {
        const Copy *copy;
        size_t disk;
        uint64_t skip_start, skip_length, skipped; /* the range that is not yet told, and bytes in all */
        unsigned skips;
        Reason why_skipped;
} DiskCopy;

void copy_clear(Copy *copy) {
        for (size_t i = 0; copy->outlines && i < copy->source_vm->disk_count; i++)
                outline_clear(&copy->outlines[i]);
        free(copy->outlines);
        copy->outlines = NULL;
}

static int open_reader(const Copy *copy, size_t disk, SourceReader **ret, Reason *reterr) {
        SourceView view = {
                .incremental = base_disk_by_bitmap(&copy->base->disks[disk]),
                .top = copy->options->top,
                .ask_zero = !copy->options->no_zero_detection,
        };
        int rc = source_open_reader(copy->source, disk, &view, ret, reterr);

        return rc < 0 ? fail_within(reterr, rc, "%s", copy->source_vm->disks[disk].name) : 0;
}

static int open_for_readers(void *context, SourceReader **ret, Reason *reterr) {
        const DiskCopy *disk = context;

        return open_reader(disk->copy, disk->disk, ret, reterr);
}

static int open_readers(DiskCopy *disk, Rate *rate, Readers **ret, Reason *reterr) {
        ReadersPlan plan = {
                .open = open_for_readers,
                .context = disk,
                .policy = disk->copy->options->on_source_error,
                .rate = rate,
                .stop = disk->copy->stop,
        };

        return readers_open(&plan, ret, reterr);
}

static PlanDisk plan_disk(const Copy *copy, size_t disk, uint64_t size) {
        const BaseDisk *base = &copy->base->disks[disk];

        return (PlanDisk) {
                .size = size,
                .parent_size = base->chain ? chain_size(base->chain) : 0,
                .block_size = copy->options->block_size,
                .compared = base->compared && base->chain,
                .top = copy->options->top,
        };
}

static int survey_one(const Copy *copy, size_t disk, Reason *reterr) {
        CLEANUP(readers_freep) Readers *readers = NULL;
        DiskCopy context = { .copy = copy, .disk = disk };
        BaseDisk *base = &copy->base->disks[disk];
        Outline *outline = &copy->outlines[disk];
        Reason why = REASON_INIT;
        SurveyTotals totals;
        PlanDisk plan;
        int rc;

        rc = open_readers(&context, NULL, &readers, reterr);
        if (rc < 0)
                return rc;
        plan = plan_disk(copy, disk, readers_size(readers));
        /* A disk shrunk and grown again is clean and has zeroes where the parent has data: less than a threshold is unknown
         * without its map. */
        rc = survey_disk(readers, &plan, base->chain, base->gaps || copy->options->threshold > 0, outline, &totals, &why,
                         reterr);
        if (rc == 0) {
                base_give_up_disk(copy->base, disk, &why);
                plan.parent_size = 0;
                outline_clear(outline);
                rc = survey_disk(readers, &plan, NULL, false, outline, &totals, NULL, reterr);
        }
        if (rc < 0)
                return fail_within(reterr, rc, "%s", copy->source_vm->disks[disk].name);
        base->changed = totals.changed;
        reporter_set_total(copy->reporter, disk, totals.read);
        return 0;
}

int copy_survey(Copy *copy, Reason *reterr) {
        copy->outlines = calloc(copy->source_vm->disk_count, sizeof *copy->outlines);
        if (!copy->outlines)
                return fail_oom(reterr);
        copy->outline_room = OUTLINE_ROOM;
        for (size_t i = 0; i < copy->source_vm->disk_count; i++)
                copy->outlines[i].room = &copy->outline_room;
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

static int new_sink(const Copy *copy, const char *path, ByteSink **ret, Reason *reterr) {
        Reason reason = REASON_INIT;
        unsigned times = 0;
        int rc;

        do
                rc = file_sink_create(vm_fd(copy->vm), path, ret, &reason);
        while (rc < 0 && rc != -EEXIST && target_stuck(copy->target, times++, rc, reason.text) == 0);
        if (rc < 0 && reterr)
                *reterr = reason;
        if (rc == 0) {
                (*ret)->stuck = target_stuck;
                (*ret)->stuck_context = copy->target;
        }
        return rc;
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
                .block_size = copy->options->block_size,
                .codec = copy->options->codec,
        };
        int rc;

        if (text_format(&path, "data/%s/%s", manifest->capture, file) < 0)
                return fail_oom(reterr);
        rc = new_sink(copy, path, &sink, reterr);
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

        ret->kind = !base->chain ? POINT_FULL : copy->base->differential ? POINT_DIFFERENTIAL : POINT_INCREMENTAL;
        ret->name = strdup(source->name);
        ret->layers = calloc(1, sizeof *ret->layers);
        if (!ret->name || !ret->layers)
                return -ENOMEM;
        ret->layer_count = 1;
        ret->layers[0].format = strdup("native");
        if (!ret->layers[0].format)
                return -ENOMEM;
        if (text_format(&ret->layers[0].file, "%s.layer", source->name) < 0)
                return -ENOMEM;
        if (copy->base->manifest && !base_disk_by_bitmap(base)) {
                Reason why;

                base_explain_disk(copy->base, disk, &why);
                ret->why = strdup(why.text);
                if (!ret->why)
                        return -ENOMEM;
        }
        if (copy->options->top && source->backing) {
                ret->backing = strdup(source->backing);
                if (!ret->backing)
                        return -ENOMEM;
        }
        for (size_t i = 0; i < source->images.count; i++) {
                rc = strings_add(&ret->images, source->images.items[i]);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static void add_done(void *context, uint64_t bytes) {
        const DiskCopy *disk = context;

        target_went_on(disk->copy->target);
        reporter_add_done(disk->copy->reporter, disk->disk, bytes);
}

static void warn(const DiskCopy *disk, const char *words) {
        const Copy *copy = disk->copy;
        char line[2 * REASON_MAX];

        if (!copy->options->warn)
                return;
        snprintf(line, sizeof line, "%s/%s: %s", vm_name(copy->vm), copy->source_vm->disks[disk->disk].name, words);
        copy->options->warn(copy->options->context, line);
}

/* Neighbours that could not be read are told as one. */
static void tell_skip(DiskCopy *disk) {
        Reason words;

        if (disk->skip_length > 0 && disk->skips++ < SKIPS_TOLD) {
                fail(&words, 0, "%llu bytes at %llu are recorded as unreadable: %.*s",
                     (unsigned long long) disk->skip_length, (unsigned long long) disk->skip_start, REASON_MAX - 100,
                     disk->why_skipped.text);
                warn(disk, words.text);
        }
        disk->skip_length = 0;
}

static void add_skip(void *context, uint64_t start, uint64_t length, const Reason *why) {
        DiskCopy *disk = context;

        if (start != disk->skip_start + disk->skip_length)
                tell_skip(disk);
        if (disk->skip_length == 0)
                disk->skip_start = start;
        disk->skip_length += length;
        disk->skipped += length;
        disk->why_skipped = *why;
}

static void tell_skips(DiskCopy *disk) {
        Reason words;

        tell_skip(disk);
        if (disk->skips <= SKIPS_TOLD)
                return;
        fail(&words, 0, "%llu bytes in %u ranges in all are recorded as unreadable", (unsigned long long) disk->skipped,
             disk->skips);
        warn(disk, words.text);
}

static int compare_disk(const Copy *copy, const Manifest *manifest, const ManifestLayer *stored, Readers *readers,
                        Chain *parent, Reason *reterr) {
        CLEANUP(layer_unrefp) Layer *layer = NULL;
        LayerLocation location;
        int rc;

        rc = manifest_layer_location(manifest, stored, &location, reterr);
        if (rc < 0)
                return rc;
        rc = layer_open(vm_layers(copy->vm), &location, &layer, reterr);
        free((char *) location.path);
        return rc == 0 ? comparison_run(readers, layer, parent, copy->stop, reterr) : rc;
}

static int copy_disk(const Copy *copy, const Manifest *manifest, size_t disk, Rate *rate, ManifestDisk *ret,
                     Reason *reterr) {
        CLEANUP(readers_freep) Readers *readers = NULL;
        CLEANUP(layer_writer_freep) LayerWriter *writer = NULL;
        DiskCopy context = { .copy = copy, .disk = disk };
        PipelineDisk pipeline;
        LayerTotals totals;
        uint64_t parent_data = 0;
        int rc;

        rc = open_readers(&context, rate, &readers, reterr);
        if (rc < 0)
                return rc;
        ret->size = readers_size(readers);
        rc = new_writer(copy, manifest, ret->name, ret->size, ret->layers[0].file, &writer, reterr);
        if (rc < 0)
                return rc;
        readers_add_more(readers);
        pipeline = (PipelineDisk) {
                .name = ret->name,
                .readers = readers,
                .outline = &copy->outlines[disk],
                .plan = plan_disk(copy, disk, ret->size),
                .parent = copy->base->disks[disk].chain,
                .codec = copy->options->codec,
                .codec_level = copy->options->codec_level,
                .memory = copy->options->memory ? copy->options->memory : PIPELINE_MEMORY_DEFAULT,
                .writer = writer,
                .done = add_done,
                .skipped = add_skip,
                .context = &context,
        };
        rc = pipeline_run(&pipeline, copy->stop, &parent_data, reterr);
        if (rc < 0)
                return rc;
        tell_skips(&context);
        rc = layer_writer_finish(writer, &totals, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "%s", ret->name);
        target_went_on(copy->target);
        ret->layers[0].length = totals.length;
        ret->layers[0].seal = totals.seal;
        if (copy->options->compare)
                rc = compare_disk(copy, manifest, &ret->layers[0], readers, pipeline.parent, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "%s", ret->name);
        ret->allocated = parent_data + totals.data;
        ret->unreadable = totals.unreadable;
        if (pipeline.plan.compared)
                copy->base->disks[disk].changed = totals.data + totals.zero + totals.unreadable;
        return 0;
}

static void rate_freep(Rate **rate) {
        rate_free(*rate);
}

int copy_run(const Copy *copy, Manifest *manifest, Reason *reterr) {
        CLEANUP(rate_freep) Rate *rate = copy->options->rate ? rate_new(copy->options->rate) : NULL;

        manifest->disks = calloc(copy->source_vm->disk_count, sizeof *manifest->disks);
        if (!manifest->disks || (copy->options->rate && !rate))
                return fail_oom(reterr);
        for (size_t i = 0; i < copy->source_vm->disk_count; i++) {
                int rc;

                manifest->disk_count = i + 1;
                if (describe_disk(copy, i, &manifest->disks[i]) < 0)
                        return fail_oom(reterr);
                rc = copy_disk(copy, manifest, i, rate, &manifest->disks[i], reterr);
                if (rc < 0)
                        return rc;
        }
        return 0;
}
