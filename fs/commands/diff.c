/* fs/commands/diff.c - prints the extents in which two points of a disk differ. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "chain/chain-diff.h"
#include "chain/chain-map.h"
#include "command-line/command.h"
#include "command-line/path.h"
#include "command-line/progress.h"
#include "partitions/point-image.h"
#include "util/clock.h"

#define REDRAW_MS 200

enum { OPTION_MAPS, OPTION_JSON };
static const CommandOption options[] = {
        [OPTION_MAPS] = { .name = "maps", .help = "what was stored anew, without reading and comparing it" },
        [OPTION_JSON] = { .name = "json", .help = "an array with the keys of map" },
        { 0 },
};

typedef struct Context {
        const char *path;
        const ChainPrinter *printer;
        bool is_shown;      /* the progress */
        bool is_first;      /* extent, to be printed */
        uint64_t began, drawn; /* ms, of clock_now_ms() */
} Context;

static int see(void *data, const ChainExtent *extent, bool absent) {
        Context *context = data;

        context->printer->print(stdout, extent, absent, context->is_first);
        context->is_first = false;
        return ferror(stdout) ? -EIO : 0;
}

static int show_progress(void *data, uint64_t done, uint64_t total) {
        Context *context = data;
        uint64_t now = clock_now_ms();
        ProgressBar bar = { context->path, done, total };
        Progress progress = { .key = "path", .subject = context->path, .disks = &bar, .disk_count = 1 };

        if (!context->is_shown || now - context->drawn < REDRAW_MS)
                return 0;
        context->drawn = now;
        progress.rate = done * 1000 / (now - context->began);
        progress_show(&progress, false);
        return 0;
}

static int open_view(Repository *repository, const char *text, ChainView **ret, Reason *reterr) {
        CLEANUP(path_clear) Path path = { 0 };
        int rc = path_resolve(repository, text, &path, reterr);

        if (rc < 0)
                return rc;
        if (!path.disk)
                return fail(reterr, -EINVAL, "%s names no disk: it has to be VM/POINT/DISK, or a partition of one", text);
        return point_image_open(path.vm, path.point, path.disk, ret, reterr);
}

static int diff(const char *repository_path, const char *before, const char *after, bool maps_only, Context *context,
                Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(chain_view_freep) ChainView *left = NULL;
        CLEANUP(chain_view_freep) ChainView *right = NULL;
        ChainDiff work = { .maps_only = maps_only, .see = see, .progress = show_progress, .context = context };
        int rc;

        rc = repository_open(repository_path, REPOSITORY_CACHE_DEFAULT, &repository, reterr);
        if (rc >= 0)
                rc = open_view(repository, before, &left, reterr);
        if (rc >= 0)
                rc = open_view(repository, after, &right, reterr);
        if (rc < 0)
                return rc;
        work.before = left;
        work.after = right;
        fputs(context->printer->head, stdout);
        rc = chain_diff(&work, reterr);
        progress_clear();
        return rc;
}

static int run(const Command *command, int argc, char **argv) {
        Context context = { .printer = &chain_printer_text, .is_first = true };
        CommandParse parse = { 0 };
        bool maps_only = false;
        Reason reason = REASON_INIT;
        int rc, status;

        while (command_parse(command, argc, argv, &parse)) {
                maps_only |= parse.option == OPTION_MAPS;
                if (parse.option == OPTION_JSON)
                        context.printer = &chain_printer_json;
        }
        if (parse.status >= 0)
                return parse.status;
        context.path = argv[optind + 2];
        context.is_shown = !isatty(STDOUT_FILENO); /* the two would get in each other's way */
        context.began = context.drawn = clock_now_ms();
        rc = diff(argv[optind], argv[optind + 1], argv[optind + 2], maps_only, &context, &reason);
        if (rc < 0 && !ferror(stdout))
                return command_failed(&reason);
        status = command_print(context.printer->tail, strlen(context.printer->tail));
        if (status == STATUS_DONE && rc > 0) {
                command_warn(reason.text);
                status = STATUS_FINDINGS;
        }
        return status;
}

const Command command_diff = {
        .name = "diff",
        .arguments = "REPO PATH PATH",
        .summary = "where two points of a disk differ",
        .options = options,
        .words_min = 3,
        .words_max = 3,
        .run = run,
};
