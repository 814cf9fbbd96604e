/* fs/commands/files.c - mounts the file systems of a point, read-only, so that single files can be copied. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command-line/cancel.h"
#include "command-line/command.h"
#include "command-line/path.h"
#include "files/filesystem-tools.h"
#include "files/pick.h"
#include "files/place.h"
#include "own-program.h"
#include "partitions/partitions.h"
#include "util/program.h"
#include "util/text.h"

enum { OPTION_FOREGROUND, OPTION_UNMOUNT };
static const CommandOption options[] = {
        [OPTION_FOREGROUND] = { "foreground", 'f', NULL, "stay, and take it down at Ctrl-C" },
        [OPTION_UNMOUNT] = { "unmount", 'u', "DIR", "take down what is shown in DIR" },
        { 0 },
};

/* What there is to be mounted. */
typedef struct Volume {
        char *name; /* as the file in the tree has it, without .raw */
        char *type;
} Volume;

typedef struct Volumes {
        Volume *items;
        size_t count;
} Volumes;

static void volumes_clear(Volumes *volumes) {
        for (size_t i = 0; i < volumes->count; i++) {
                free(volumes->items[i].name);
                free(volumes->items[i].type);
        }
        free(volumes->items);
        *volumes = (Volumes) { 0 };
}

static int add_volume(Volumes *volumes, const char *name, const char *type) {
        Volume *grown = reallocarray(volumes->items, volumes->count + 1, sizeof *grown);

        if (!grown)
                return -ENOMEM;
        volumes->items = grown;
        grown[volumes->count] = (Volume) { strdup(name), strdup(type) };
        volumes->count++;
        return grown[volumes->count - 1].name && grown[volumes->count - 1].type ? 0 : -ENOMEM;
}

static int add_filesystem(Volumes *volumes, const char *name, const Filesystem *filesystem) {
        return filesystem->type && filesystem_has_files(filesystem->type) ? add_volume(volumes, name, filesystem->type) : 0;
}

static void warn_of(const char *name, const char *trouble) {
        char line[REASON_MAX + NAME_MAX];

        snprintf(line, sizeof line, "%s: %s", name, trouble);
        command_warn(line);
}

/* vda2 asks for vda2 and the volumes on it. */
static bool is_asked_for(const char *only, const char *name) {
        size_t length = strlen(only);

        return strncmp(only, name, length) == 0 && (!name[length] || name[length] == '.');
}

/* The file systems of one disk: of the partition alone where one is named. *ret_seen: the disk, or the partition, is there.
 */
static int find_on_disk(Vm *vm, const char *point, const char *disk, const char *only, Volumes *volumes,
                        bool *ret_seen, Reason *reterr) {
        CLEANUP(partition_table_unrefp) PartitionTable *table = NULL;
        bool whole = !only || strcmp(only, disk) == 0;
        char name[NAME_MAX + 1];
        int rc = partitions_find(vm, point, disk, &table, reterr);

        if (rc < 0)
                return rc;
        *ret_seen |= whole;
        if (whole && table->count == 0)
                rc = add_filesystem(volumes, disk, &table->filesystem);
        for (size_t i = 0; rc >= 0 && i < table->count; i++) {
                const Partition *partition = &table->partitions[i];

                partition_name(disk, partition, name, sizeof name);
                if (!whole && !is_asked_for(only, name))
                        continue;
                *ret_seen = true;
                if (!partition->readable && partition->volume)
                        warn_of(name, partition->trouble);
                else if (partition->readable)
                        rc = add_filesystem(volumes, name, &partition->filesystem);
        }
        if (table->trouble && (whole || volumes->count == 0))
                warn_of(disk, table->trouble);
        return rc < 0 ? fail_oom(reterr) : 0;
}

static int find_volumes(const Path *path, Volumes *volumes, Reason *reterr) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        bool seen = false;
        int rc = manifest_read(path->vm, path->point, &manifest, reterr);

        for (size_t i = 0; rc >= 0 && i < manifest->disk_count; i++) {
                const char *disk = manifest->disks[i].name;

                if (!path->disk || strncmp(path->disk, disk, strlen(disk)) == 0)
                        rc = find_on_disk(path->vm, path->point, disk, path->disk, volumes, &seen, reterr);
        }
        if (rc < 0)
                return rc;
        if (path->disk && !seen)
                return fail(reterr, -ENOENT, "%s/%s has neither a disk nor a partition %s", vm_name(path->vm), path->point,
                            path->disk);
        if (volumes->count == 0)
                return fail(reterr, -ENOENT, "%s/%s%s%s: no file system is known there", vm_name(path->vm), path->point,
                            path->disk ? "/" : "", path->disk ?: "");
        return 0;
}

static int mount_with(const char *mount_options, const char *repository, const char *tree, const atomic_bool *cancel,
                      Reason *reterr) {
        const char *argv[] = { NULL, "mount", "-o", mount_options, "--", repository, tree, NULL };
        CLEANUP(freep) char *program = NULL;
        CLEANUP(freep) char *output = NULL;
        int rc = own_program(&program, reterr);

        argv[0] = program;
        return rc < 0 ? rc : program_output(argv, 4096, cancel, &output, reterr);
}

/* What an ordinary user mounts is closed to programs that are setuid, as ntfs-3g is, where fuse.conf does not allow
 * otherwise. The files are their owner's alone all the same. */
static int mount_tree(const char *repository, const char *tree, const atomic_bool *cancel, Reason *reterr) {
        if (geteuid() != 0 && mount_with("ro,allow_other", repository, tree, cancel, NULL) == 0)
                return 0;
        return mount_with("ro", repository, tree, cancel, reterr);
}

/* Prints the directory of one that is mounted, and warns of one that is not. */
static int mount_volume(FilesPlace *place, const Path *path, const Volume *volume, const atomic_bool *cancel,
                        Reason *reterr) {
        CLEANUP(freep) char *image = NULL;
        CLEANUP(freep) char *target = NULL;
        Reason reason = REASON_INIT;
        int rc;

        if (text_format(&image, "%s/%s/%s/%s.raw", files_place_tree(place), vm_name(path->vm), path->point,
                        volume->name) < 0)
                return fail_oom(reterr);
        rc = files_place_add(place, volume->name, &target, reterr);
        if (rc < 0)
                return rc;
        rc = filesystem_mount(volume->type, image, target, cancel, &reason);
        if (rc == -ECANCELED)
                return fail(reterr, rc, "%s", reason.text);
        if (rc < 0) {
                (void) rmdir(target);
                warn_of(volume->name, reason.text);
                return 0;
        }
        printf("%s\n", target);
        fflush(stdout);
        return 1;
}

/* The number of file systems that are shown now. */
static int show(const char *repository, const Path *path, const Volumes *volumes, FilesPlace *place,
                const atomic_bool *cancel, Reason *reterr) {
        int rc = mount_tree(repository, files_place_tree(place), cancel, reterr);
        int shown = 0;

        for (size_t i = 0; rc >= 0 && i < volumes->count; i++) {
                rc = mount_volume(place, path, &volumes->items[i], cancel, reterr);
                shown += rc > 0;
        }
        if (rc >= 0 && shown == 0)
                return fail(reterr, -ENOTSUP, "none of the file systems can be mounted");
        return rc < 0 ? rc : shown;
}

static void wait_for_cancel(const atomic_bool *cancel) {
        if (isatty(STDERR_FILENO))
                command_tell("Ctrl-C takes it down");
        while (!atomic_load(cancel))
                usleep(100000);
}

static int files(const char *repository_path, const char *text, const char *directory, bool foreground, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(path_clear) Path path = { 0 };
        CLEANUP(volumes_clear) Volumes volumes = { 0 };
        const atomic_bool *cancel = cancel_on_signals();
        FilesPlace *place;
        Reason reason = REASON_INIT;
        bool cleared = false;
        int rc, ended = 0;

        rc = path_open(repository_path, text, &repository, &path, reterr);
        if (rc >= 0 && !*path.point)
                rc = fail(reterr, -EINVAL, "%s names a VM: it has to be a point, a disk or a partition, as %s/latest", text,
                          text);
        if (rc >= 0)
                rc = find_volumes(&path, &volumes, reterr);
        if (rc >= 0)
                rc = files_place_open(directory, foreground, &place, &cleared, reterr);
        if (rc < 0)
                return rc;
        if (cleared)
                command_tell("what an interrupted run left there was taken down");
        rc = show(repository_path, &path, &volumes, place, cancel, reterr);
        if (rc >= 0 && foreground)
                wait_for_cancel(cancel);
        if (rc < 0 || foreground)
                ended = files_place_end(files_place_path(place), &reason);
        files_place_free(place);
        if (ended < 0 && rc >= 0)
                return fail(reterr, ended, "%s", reason.text);
        return rc < 0 ? rc : (size_t) rc < volumes.count;
}

static int run_picked(Reason *reterr) {
        CLEANUP(freep) char *repository = NULL;
        CLEANUP(freep) char *path = NULL;
        CLEANUP(freep) char *directory = NULL;
        int rc = files_pick(&repository, &path, &directory, reterr);

        return rc < 0 ? rc : files(repository, path, directory, true, reterr);
}

static int run(const Command *command, int argc, char **argv) {
        CommandParse parse = { 0 };
        const char *unmount = NULL;
        bool foreground = false;
        Reason reason = REASON_INIT;
        int words, rc;

        while (command_parse(command, argc, argv, &parse)) {
                foreground |= parse.option == OPTION_FOREGROUND;
                if (parse.option == OPTION_UNMOUNT)
                        unmount = parse.argument;
        }
        if (parse.status >= 0)
                return parse.status;
        words = argc - optind;
        if (unmount ? words != 0 : words != 3 && !(words == 0 && isatty(STDIN_FILENO) && isatty(STDERR_FILENO)))
                return command_misused(command, unmount ? "--unmount takes DIR alone" : "it takes REPO PATH DIR");
        rc = unmount      ? files_place_end(unmount, &reason)
             : words == 0 ? run_picked(&reason)
                          : files(argv[optind], argv[optind + 1], argv[optind + 2], foreground, &reason);
        if (rc < 0)
                return command_failed(&reason);
        return rc > 0 ? STATUS_FINDINGS : STATUS_DONE;
}

const Command command_files = {
        .name = "files",
        .arguments = "REPO PATH DIR",
        .summary = "mount the file systems of a point, read-only, to copy single files",
        .options = options,
        .words_min = 0,
        .words_max = 3,
        .run = run,
};
