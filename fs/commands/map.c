/* fs/commands/map.c - prints the extent map of a disk at a point. */
#include <errno.h>

#include "chain/chain-map.h"
#include "command-line/command.h"
#include "command-line/path.h"
#include "partitions/point-image.h"

static const CommandOption options[] = {
        { .name = "json", .help = "an array with the keys of qemu-img map, and 'point'" },
        { 0 },
};

static int make_map(const char *repository_path, const char *text, bool json, char **ret, size_t *ret_length,
                    Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(path_clear) Path path = { 0 };
        CLEANUP(chain_view_freep) ChainView *view = NULL;
        int rc;

        rc = path_open(repository_path, text, &repository, &path, reterr);
        if (rc < 0)
                return rc;
        if (!path.disk)
                return fail(reterr, -EINVAL, "%s names no disk: it has to be VM/POINT/DISK, or a partition of one", text);
        rc = point_image_open(path.vm, path.point, path.disk, &view, reterr);
        if (rc < 0)
                return rc;
        return json ? chain_map_json(view, ret, ret_length, reterr) : chain_map_text(view, ret, ret_length, reterr);
}

static int run(const Command *command, int argc, char **argv) {
        return command_print_made(command, argc, argv, make_map);
}

const Command command_map = {
        .name = "map",
        .arguments = "REPO PATH",
        .summary = "the extents of a disk, and which point holds each",
        .options = options,
        .words_min = 2,
        .words_max = 2,
        .run = run,
};
