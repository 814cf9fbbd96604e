/* fs/commands/import.c - makes points of ours of what other tools have stored. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "command-line/cancel.h"
#include "command-line/codec-option.h"
#include "command-line/progress.h"
#include "formats/native/layer-writer.h"
#include "import/import.h"
#include "util/clock.h"

#define SHOWS_MS 200 /* between two bars */

enum { OPTION_AS, OPTION_CODEC, OPTION_JSON };
static const CommandOption options[] = {
        [OPTION_AS] = { "as", 0, "NAME", "what the VM shall be called, where one is imported" },
        [OPTION_CODEC] = CODEC_OPTION,
        [OPTION_JSON] = { "json", 0, NULL, "tell progress in lines of JSON on stderr" },
        { 0 },
};

typedef struct Context {
        ImportOptions options;
        const char *as;
        bool json;
        uint64_t began_ms, shown_ms;
        uint64_t before, last; /* bytes of what is done, and of what is being done */
} Context;

static void show_progress(void *data, const ImportProgress *import) {
        char subject[VM_NAME_MAX + POINT_NAME_MAX + 64];
        Context *context = data;
        ProgressBar bar = { import->disk, import->done, import->total };
        Progress progress = { .key = "point", .subject = subject, .disks = &bar, .disk_count = 1 };
        uint64_t now = clock_now_ms();

        if (import->done < context->last)
                context->before += context->last; /* of the disk before */
        context->last = import->done;
        if (now < context->shown_ms + SHOWS_MS && import->done < import->total)
                return;
        context->shown_ms = now;
        if (now > context->began_ms)
                progress.rate = (context->before + context->last) * 1000 / (now - context->began_ms);
        snprintf(subject, sizeof subject, "%s (%zu of %zu)", import->point, import->number, import->count);
        progress_show(&progress, context->json);
}

/* Points are printed as they come, as `capture` does. */
static void tell(void *context, const char *line) {
        (void) context;
        progress_clear();
        printf("%s\n", line);
        fflush(stdout);
}

static void warn(void *context, const char *line) {
        (void) context;
        progress_clear();
        command_warn(line);
}

static int import_named(Repository *repository, Repository *from, const char *name, const Context *context,
                        ImportTotals *totals, Reason *reterr) {
        CLEANUP(vm_freep) Vm *vm = NULL;
        int rc = vm_open(from, name, &vm, reterr);

        return rc < 0 ? rc : import_vm(repository, vm, context->as ?: name, &context->options, totals, reterr);
}

/* What no format could use, which might be what the user misses. */
static int warn_of_unrecognised(Repository *from, Reason *reterr) {
        json_t *list, *item;
        size_t i;
        int rc = repository_unrecognised(from, &list, reterr);

        if (rc < 0)
                return rc;
        json_array_foreach(list, i, item) {
                Reason words;

                fail(&words, 0, "%s is not imported: %s", json_string_value(json_object_get(item, "path")),
                     json_string_value(json_object_get(item, "reason")));
                warn(NULL, words.text);
        }
        json_decref(list);
        return 0;
}

/* names: none means all. */
static int import_from(const char *path, const char *directory, char **names, size_t count, const Context *context,
                       ImportTotals *totals, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL, *from = NULL;
        CLEANUP(strings_free) Strings all = { 0 };
        int rc;

        rc = repository_open(path, REPOSITORY_CACHE_DEFAULT, &repository, reterr);
        if (rc == 0 && !repository_is_native(repository))
                return fail(reterr, -EINVAL, "%s is no repository of ours that could be imported into: make one with "
                            "'virtbackupfs init'", path);
        if (rc == 0)
                rc = repository_open(directory, REPOSITORY_CACHE_DEFAULT, &from, reterr);
        if (rc == 0)
                rc = repository_list_vms(from, &all, reterr);
        if (rc < 0)
                return rc;
        if (count == 0) {
                names = all.items;
                count = all.count;
                rc = warn_of_unrecognised(from, reterr);
        }
        if (rc == 0 && context->as && count != 1)
                return fail(reterr, -EINVAL, "one name for %zu VMs: say which one is to be called %s", count, context->as);
        for (size_t i = 0; rc == 0 && i < count; i++)
                rc = import_named(repository, from, names[i], context, totals, reterr);
        return rc;
}

static int run(const Command *command, int argc, char **argv) {
        Context context = {
                .options = {
                        .codec = codec_by_name("lz4"),
                        .block_size = NATIVE_BLOCK_SIZE_DEFAULT,
                        .cancel = cancel_on_signals(),
                        .progress = show_progress,
                        .tell = tell,
                        .warn = warn,
                },
                .began_ms = clock_now_ms(),
        };
        CommandParse parse = { 0 };
        ImportTotals totals = { 0 };
        Reason reason = REASON_INIT;
        int rc, status;

        while (command_parse(command, argc, argv, &parse)) {
                if (parse.option == OPTION_AS)
                        context.as = parse.argument;
                context.json |= parse.option == OPTION_JSON;
                status = parse.option == OPTION_CODEC ? codec_option_take(command, parse.argument, &context.options.codec,
                                                                          &context.options.codec_level)
                                                      : -1;
                if (status >= 0)
                        return status;
        }
        if (parse.status >= 0)
                return parse.status;
        context.options.context = &context;
        rc = import_from(argv[optind], argv[optind + 1], argv + optind + 2, (size_t) (argc - optind - 2), &context, &totals,
                         &reason);
        progress_clear();
        if (rc < 0)
                return command_failed(&reason);
        return totals.left_out > 0 ? STATUS_FINDINGS : STATUS_DONE;
}

const Command command_import = {
        .name = "import",
        .arguments = "REPO DIR [VM…]",
        .summary = "make points of ours of what another tool has stored, chains as they are",
        .options = options,
        .words_min = 2,
        .words_max = -1,
        .run = run,
};
