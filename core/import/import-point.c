#include "import/import-point.h"

#include <errno.h>
#include <string.h>

#include "capture/draft.h"
#include "capture/pipeline.h"
#include "chain/chain.h"
#include "formats/kept.h"
#include "import/chain-reader.h"
#include "util/text.h"

#define KEPT_WHOLE_MAX (16u << 20) /* bytes: longer files are kept compressed, as a layer */

/* One disk or long file on its way. */
typedef struct Transport {
        const ImportPoint *import;
        const char *name;
        ChainSource source;
        Stop stop;
        uint64_t done, total;
} Transport;

static void tell_progress(Transport *transport) {
        const ImportOptions *options = transport->import->options;
        char point[VM_NAME_MAX + POINT_NAME_MAX + 2];
        ImportProgress progress = {
                .point = point, .number = transport->import->number, .count = transport->import->count,
                .disk = transport->name, .done = transport->done, .total = transport->total,
        };

        if (!options->progress)
                return;
        snprintf(point, sizeof point, "%s/%s", vm_name(transport->import->vm), transport->import->stored->name);
        options->progress(options->context, &progress);
}

static void add_done(void *context, uint64_t bytes) {
        Transport *transport = context;

        transport->done += bytes;
        tell_progress(transport);
}

static int see_checked(void *context, uint64_t done, uint64_t total) {
        Transport *transport = context;
        const atomic_bool *cancel = transport->import->options->cancel;

        transport->done = done;
        transport->total = total;
        tell_progress(transport);
        return cancel && atomic_load(cancel) ? -ECANCELED : 0;
}

/* Whether it is what its writer has noted of it: reading would not tell where that is a mere checksum of the whole. disk: or
 * NULL: the file. */
static int check_stored(const ImportPoint *import, const Manifest *stored, const ManifestDisk *disk,
                        const ManifestFile *file, Reason *reterr) {
        CLEANUP(freep) char *name = NULL;
        Transport transport = { .import = import };
        LayerCheck check = { see_checked, &transport };

        if (text_format(&name, "%s (checking)", disk ? disk->name : file->name) < 0)
                return fail_oom(reterr);
        transport.name = name;
        return disk ? manifest_check_disk(import->from, stored, disk, &check, reterr)
                    : manifest_check_file(import->from, stored, file, &check, reterr);
}

/* All layers of the disk that go into this point. */
static int check_disk(const ImportPoint *import, const ManifestDisk *disk, Reason *reterr) {
        int rc = check_stored(import, import->stored, disk, NULL, reterr);

        for (size_t i = 0; rc == 0 && disk->kind != POINT_FULL && i < import->folded_count; i++) {
                disk = manifest_find_disk(import->folded[i], disk->name);
                if (!disk)
                        break;
                rc = check_stored(import, import->folded[i], disk, NULL, reterr);
        }
        return rc;
}

static int new_writer(const ImportPoint *import, const Manifest *manifest, const char *disk, const char *file, uint64_t size,
                      LayerWriter **ret, Reason *reterr) {
        CLEANUP(byte_sink_freep) ByteSink *sink = NULL;
        CLEANUP(freep) char *path = NULL;
        LayerDescription description = {
                .repository = repository_uuid(vm_repository(import->vm)),
                .vm_uuid = manifest->vm_uuid,
                .vm = manifest->vm,
                .disk = disk,
                .capture = manifest->capture,
                .disk_size = size,
                .block_size = import->options->block_size,
                .codec = import->options->codec,
        };
        int rc;

        if (text_format(&path, "data/%s/%s", manifest->capture, file) < 0)
                return fail_oom(reterr);
        rc = file_sink_create(vm_fd(import->vm), path, &sink, reterr);
        if (rc == 0)
                rc = layer_writer_new(sink, &description, ret, reterr);
        if (rc == 0)
                (void) STEAL_PTR(sink);
        return rc;
}

/* Reads all of it through a capture's pipeline into a layer. */
static int run_pipeline(Transport *transport, Chain *parent, LayerWriter *writer, LayerTotals *ret,
                        uint64_t *ret_parent_data, Reason *reterr) {
        CLEANUP(readers_freep) Readers *readers = NULL;
        ReadersPlan readers_plan = {
                .open = chain_reader_open,
                .context = &transport->source,
                .policy = SOURCE_ERROR_REPORT,
                .stop = &transport->stop,
        };
        PipelineDisk disk;
        int rc;

        rc = chain_source_total(&transport->source, &transport->total, reterr);
        if (rc == 0)
                rc = readers_open(&readers_plan, &readers, reterr);
        if (rc < 0)
                return rc;
        tell_progress(transport);
        readers_add_more(readers);
        disk = (PipelineDisk) {
                .name = transport->name,
                .readers = readers,
                .plan = {
                        .size = readers_size(readers),
                        .parent_size = parent ? chain_size(parent) : 0,
                        .block_size = transport->import->options->block_size,
                },
                .parent = parent,
                .codec = transport->import->options->codec,
                .codec_level = transport->import->options->codec_level,
                .memory = PIPELINE_MEMORY_DEFAULT,
                .writer = writer,
                .done = add_done,
                .context = transport,
        };
        rc = pipeline_run(&disk, &transport->stop, ret_parent_data, reterr);
        return rc < 0 ? rc : layer_writer_finish(writer, ret, reterr);
}

static int transport_run(Transport *transport, const Manifest *manifest, const char *file, Chain *parent, LayerTotals *ret,
                         uint64_t *ret_parent_data, bool *ret_source_failed, Reason *reterr) {
        CLEANUP(layer_writer_freep) LayerWriter *writer = NULL;
        ChainSource *source = &transport->source;
        uint64_t size = source->chain ? chain_size(source->chain) : layer_disk_size(source->layer);
        int rc = new_writer(transport->import, manifest, transport->name, file, size, &writer, reterr);

        if (rc < 0)
                return rc;
        stop_init(&transport->stop);
        rc = run_pipeline(transport, parent, writer, ret, ret_parent_data, reterr);
        stop_destroy(&transport->stop);
        *ret_source_failed |= rc < 0 && atomic_load(&source->failed);
        return rc;
}

/* What the manifest says of the disk but for its bytes. */
static int describe_disk(const ImportPoint *import, const ManifestDisk *stored, PointKind kind, ManifestDisk *ret) {
        const char *why = stored->note ?: stored->why;
        bool rests = stored->kind != POINT_FULL && import->parent && manifest_find_disk(import->parent, stored->name);

        ret->kind = rests ? kind : POINT_FULL;
        ret->size = stored->size;
        ret->name = strdup(stored->name);
        ret->why = why ? strdup(why) : NULL;
        ret->layers = calloc(1, sizeof *ret->layers);
        if (!ret->name || !ret->layers || (why && !ret->why))
                return -ENOMEM;
        ret->layer_count = 1;
        ret->layers->format = strdup("native");
        (void) text_format(&ret->layers->file, "%s.layer", stored->name);
        return ret->layers->format && ret->layers->file ? 0 : -ENOMEM;
}

static int import_disk(const ImportPoint *import, const ManifestDisk *stored, const Manifest *manifest, ManifestDisk *ret,
                       bool *ret_source_failed, Reason *reterr) {
        CLEANUP(chain_unrefp) Chain *chain = NULL, *parent = NULL;
        Transport transport = { .import = import, .name = stored->name };
        LayerTotals totals;
        uint64_t parent_data = 0;
        int rc;

        if (describe_disk(import, stored, manifest->kind, ret) < 0)
                return fail_oom(reterr);
        rc = check_disk(import, stored, reterr);
        if (rc == 0)
                rc = chain_open(import->from, import->stored->name, stored->name, &chain, reterr);
        if (rc == 0 && (chain_damage(chain) || chain_size(chain) != stored->size))
                rc = fail(reterr, -EIO, "%s: %s", stored->name, chain_damage(chain) ?: "it has changed");
        if (rc < 0) {
                *ret_source_failed = rc != -ENOMEM;
                return rc;
        }
        if (ret->kind != POINT_FULL) {
                rc = chain_open(import->vm, import->parent->name, stored->name, &parent, reterr);
                if (rc < 0)
                        return rc;
        }
        transport.source = (ChainSource) {
                .chain = chain,
                .parent = parent ? import->parent->name : NULL,
                .parent_size = parent ? chain_size(parent) : 0,
                .cancel = import->options->cancel,
        };
        rc = transport_run(&transport, manifest, ret->layers->file, parent, &totals, &parent_data, ret_source_failed,
                           reterr);
        if (rc < 0)
                return rc;
        ret->layers->length = totals.length;
        ret->layers->seal = totals.seal;
        ret->allocated = parent_data + totals.data;
        return 0;
}

/* A long file becomes a layer. */
static int import_long_file(const ImportPoint *import, const ManifestFile *stored, Layer *layer, Manifest *manifest,
                            bool *ret_source_failed, Reason *reterr) {
        Transport transport = {
                .import = import, .name = stored->name, .source = { .layer = layer, .cancel = import->options->cancel },
        };
        ManifestFile *file;
        LayerTotals totals;
        int rc;

        file = reallocarray(manifest->files, manifest->file_count + 1, sizeof *file);
        if (!file)
                return fail_oom(reterr);
        manifest->files = file;
        file += manifest->file_count;
        *file = (ManifestFile) {
                .name = strdup(stored->name),
                .format = strdup("native"),
                .length = layer_disk_size(layer),
        };
        manifest->file_count++;
        (void) text_format(&file->file, "%s.kept", stored->name);
        if (!file->name || !file->format || !file->file)
                return fail_oom(reterr);
        rc = transport_run(&transport, manifest, file->file, NULL, &totals, &(uint64_t) { 0 }, ret_source_failed, reterr);
        if (rc < 0)
                return rc;
        file->file_length = totals.length;
        file->seal = totals.seal;
        return 0;
}

static int import_file(const ImportPoint *import, const ManifestFile *stored, Draft *draft, bool *ret_source_failed,
                       Reason *reterr) {
        CLEANUP(layer_unrefp) Layer *layer = NULL;
        CLEANUP(freep) char *content = NULL;
        size_t length;
        int rc;

        rc = check_stored(import, import->stored, NULL, stored, reterr);
        if (rc == 0)
                rc = manifest_open_file(import->from, import->stored, stored, &layer, reterr);
        if (rc == 0 && layer_disk_size(layer) > KEPT_WHOLE_MAX)
                return import_long_file(import, stored, layer, draft->manifest, ret_source_failed, reterr);
        if (rc == 0)
                rc = manifest_read_file(import->from, import->stored, stored->name, &content, &length, reterr);
        if (rc < 0) {
                *ret_source_failed = rc != -ENOMEM;
                return rc;
        }
        return draft_keep_file(draft, stored->name, content, length, reterr);
}

/* The parent of a differential point of ours is a full one. */
static PointKind kind_of(const ImportPoint *import) {
        PointKind kind = import->parent ? import->stored->kind : POINT_FULL;

        return kind == POINT_DIFFERENTIAL && import->parent->kind != POINT_FULL ? POINT_INCREMENTAL : kind;
}

static int import_content(const ImportPoint *import, Draft *draft, bool *ret_source_failed, Reason *reterr) {
        const Manifest *stored = import->stored;
        Manifest *manifest = draft->manifest;
        int rc = 0;

        manifest->kind = kind_of(import);
        manifest->disks = calloc(stored->disk_count + 1, sizeof *manifest->disks);
        if (!manifest->disks)
                return fail_oom(reterr);
        for (size_t i = 0; rc == 0 && i < stored->disk_count; i++) {
                manifest->disk_count = i + 1;
                rc = import_disk(import, &stored->disks[i], manifest, &manifest->disks[i], ret_source_failed, reterr);
        }
        for (size_t i = 0; rc == 0 && i < stored->file_count; i++)
                rc = import_file(import, &stored->files[i], draft, ret_source_failed, reterr);
        return rc;
}

int import_point(const ImportPoint *import, bool *ret_source_failed, Reason *reterr) {
        CLEANUP(draft_clear) Draft draft = { .vm = import->vm };
        int rc;

        *ret_source_failed = false;
        rc = draft_begin_named(&draft, import->stored->name, import->serial, import->stored->time, import->parent, reterr);
        if (rc == 0)
                rc = import_content(import, &draft, ret_source_failed, reterr);
        if (rc == 0)
                rc = draft_commit_named(&draft, reterr);
        if (rc < 0)
                draft_discard(&draft);
        return rc;
}
