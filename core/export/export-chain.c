/* core/export/export-chain.c - a disk and the points it rests on, as qcow2 images above each other. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "chain/chain.h"
#include "export/export.h"
#include "restore/sweep.h"
#include "restore/target.h"
#include "util/bytes.h"
#include "util/scratch.h"
#include "util/strings.h"
#include "util/text.h"

#define POINTS_MAX 100000

typedef struct ChainExport {
        Vm *vm;
        const char *disk, *directory;
        const ExportOptions *options;
        Strings points;            /* newest first */
        RestoreProgress *progress; /* oldest first */
        size_t index;              /* which is written */
        /* Of that one: */
        const char *point;
        Chain *chain;
        DiskTarget *target;
} ChainExport;

static void chain_export_clear(ChainExport *export) {
        strings_free(&export->points);
        free(export->progress);
}

/* The point, its parent, …, up to one that has all of the disk. */
static int list_points(ChainExport *export, const char *newest, Reason *reterr) {
        CLEANUP(freep) char *name = strdup(newest);

        while (name) {
                CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
                const ManifestDisk *disk;
                int rc = manifest_read(export->vm, name, &manifest, reterr);

                if (rc < 0)
                        return rc;
                disk = manifest_find_disk(manifest, export->disk);
                if (!disk)
                        return fail(reterr, -ENOENT, "%s/%s has no disk %s", vm_name(export->vm), name, export->disk);
                if (export->points.count == POINTS_MAX)
                        return fail(reterr, -E2BIG, "the chain has too many points");
                if (strings_add(&export->points, name) < 0)
                        return fail_oom(reterr);
                if (disk->kind == POINT_FULL)
                        return 0;
                free(name);
                name = manifest->parent ? strdup(manifest->parent) : NULL;
                if (!manifest->parent)
                        return fail(reterr, -EIO, "%s/%s has no parent: the chain cannot be followed", vm_name(export->vm),
                                    manifest->name);
        }
        return fail_oom(reterr);
}

static int copy_data(const ChainExport *export, uint64_t from, uint64_t to, Reason *reterr) {
        unsigned char *buffer = scratch_get(SCRATCH_ANSWER, 2 * SWEEP_PIECE);
        int rc;

        if (!buffer)
                return fail_oom(reterr);
        rc = chain_read(export->chain, buffer, to - from, from, reterr);
        return rc < 0 ? rc : disk_target_write(export->target, buffer, to - from, from, reterr);
}

static int write_range(const ChainExport *export, bool zero, uint64_t from, uint64_t to, Reason *reterr) {
        if (from == to)
                return 0;
        return zero ? disk_target_zero(export->target, to - from, from, reterr) : copy_data(export, from, to, reterr);
}

/* What the point itself has of a piece, rounded to what can be written: what lies in between reads the same. */
static int write_piece(void *context, const SweepPiece *piece, Reason *reterr) {
        const ChainExport *export = context;
        uint32_t grain = export->target->grain;
        uint64_t end = piece->start + piece->length, from = piece->start, to = from; /* what is to be written */
        ChainExtent extent;

        for (uint64_t at = piece->start; at < end; at = extent.start + extent.length) {
                int rc = chain_extent_at(export->chain, at, &extent, reterr);

                if (rc == 0 && extent.point && strcmp(extent.point, export->point) != 0)
                        continue;
                if (rc == 0 && round_down(at, grain) > to) {
                        rc = write_range(export, piece->zero, from, to, reterr);
                        from = round_down(at, grain);
                }
                if (rc < 0)
                        return rc;
                to = min_u64(round_up(min_u64(extent.start + extent.length, end), grain), end);
        }
        return write_range(export, piece->zero, from, to, reterr);
}

static int tick(void *context, uint64_t done, Reason *reterr) {
        ChainExport *export = context;

        (void) reterr;
        export->progress[export->index].done = done;
        if (export->options->progress)
                export->options->progress(export->options->context, export->progress, export->points.count);
        return 0;
}

static int write_image(ChainExport *export, Reason *reterr) {
        Sweep sweep = {
                .chain = export->chain,
                .end = chain_size(export->chain),
                .grain = export->target->grain,
                .zero_min = export->target->grain,
                .cancel = export->options->cancel,
                .work = write_piece,
                .tick = tick,
                .context = export,
        };
        int rc = disk_target_clear(export->target, reterr);

        if (rc == 0)
                rc = sweep_run(&sweep, reterr);
        if (rc == 0)
                rc = disk_target_sync(export->target, reterr);
        if (rc == 0)
                rc = disk_target_finish(export->target, reterr);
        return rc;
}

static int name_image(const ChainExport *export, const char *point, char **ret, Reason *reterr) {
        if (text_format(ret, "%s.%s.qcow2", export->disk, point) >= 0)
                return 0;
        *ret = NULL;
        return fail_oom(reterr);
}

/* One image, above that of the point before. */
static int export_image(ChainExport *export, const char *below, Reason *reterr) {
        CLEANUP(freep) char *name = NULL, *backing = NULL, *path = NULL;
        TargetRequest request = {
                .format = "qcow2",
                .replace = export->options->replace,
                .cancel = export->options->cancel,
        };
        int rc;

        rc = name_image(export, export->point, &name, reterr);
        if (rc == 0 && below)
                rc = name_image(export, below, &backing, reterr);
        if (rc < 0)
                return rc;
        if (text_format(&path, "%s/%s", export->directory, name) < 0)
                return fail_oom(reterr);
        if (chain_damage(export->chain))
                return fail(reterr, -EIO, "%s/%s/%s cannot be read: %s", vm_name(export->vm), export->point, export->disk,
                            chain_damage(export->chain));
        request.name = path;
        request.backing = backing;
        request.size = chain_size(export->chain);
        rc = disk_target_open(&request, &export->target, reterr);
        if (rc < 0)
                return rc;
        rc = write_image(export, reterr);
        disk_target_close(export->target, false);
        return rc;
}

int export_qcow2_chain(Vm *vm, const char *point, const char *disk, const char *directory, const ExportOptions *options,
                       Reason *reterr) {
        CLEANUP(chain_export_clear) ChainExport export = {
                .vm = vm,
                .disk = disk,
                .directory = directory,
                .options = options,
        };
        int rc = list_points(&export, point, reterr);

        if (rc < 0)
                return rc;
        if (mkdir(directory, 0777) < 0 && errno != EEXIST)
                return fail_errno(reterr, -errno, "cannot make the directory %s", directory);
        export.progress = calloc(export.points.count, sizeof *export.progress);
        if (!export.progress)
                return fail_oom(reterr);
        for (size_t i = 0; i < export.points.count; i++)
                export.progress[i].disk = export.points.items[export.points.count - 1 - i];
        for (size_t i = export.points.count; rc == 0 && i-- > 0;) {
                CLEANUP(chain_unrefp) Chain *chain = NULL;

                export.point = export.points.items[i];
                export.index = export.points.count - 1 - i;
                rc = chain_open(vm, export.point, disk, &chain, reterr);
                if (rc < 0)
                        break;
                export.chain = chain;
                export.progress[export.index].total = chain_size(chain);
                rc = export_image(&export, i + 1 < export.points.count ? export.points.items[i + 1] : NULL, reterr);
        }
        return rc;
}
