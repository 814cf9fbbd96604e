#include "image-source.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "codec/checksum.h"
#include "sources/nbd-reader.h"
#include "sources/source.h"
#include "util/timestamp.h"

#define SCHEME "images://"
#define PREFIX "virtbackupfs-"
#define OUTPUT_MAX (1u << 20) /* bytes of qemu-img's answer */

typedef struct ImageSource {
        Source source;
        Strings images; /* paths */
        char *base, *checkpoint; /* of the job */
} ImageSource;

static void json_freep(json_t **json) {
        json_decref(*json);
}

/* Runs a program; what it prints goes to ret_output, where that is asked for (the caller frees it). */
static int run(const char *const *argv, char **ret_output, Reason *reterr) {
        CLEANUP(freep) char *output = calloc(1, OUTPUT_MAX);
        posix_spawn_file_actions_t actions;
        int ends[2], status, rc;
        size_t length = 0;
        ssize_t got;
        pid_t pid;

        if (!output || pipe2(ends, O_CLOEXEC) < 0)
                return fail_errno(reterr, -errno, "cannot run %s", argv[0]);
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        rc = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *) argv, environ);
        posix_spawn_file_actions_destroy(&actions);
        close(ends[1]);
        while (rc == 0 && (got = read(ends[0], output + length, OUTPUT_MAX - 1 - length)) > 0)
                length += (size_t) got;
        close(ends[0]);
        if (rc != 0)
                return fail_errno(reterr, -rc, "cannot run %s", argv[0]);
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return fail_errno(reterr, -errno, "cannot wait for %s", argv[0]);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                return fail(reterr, -EIO, "%s %s failed", argv[0], argv[1]);
        if (ret_output)
                *ret_output = STEAL_PTR(output);
        return 0;
}

/* The names of the bitmaps of an image that can be used; broken ones too where all is true. */
static int list_bitmaps(const char *image, bool all, Strings *ret, Reason *reterr) {
        const char *argv[] = { "qemu-img", "info", "-U", "--output=json", image, NULL };
        CLEANUP(json_freep) json_t *info = NULL;
        CLEANUP(freep) char *output = NULL;
        json_t *bitmaps, *bitmap, *flag;
        size_t i, j;
        int rc;

        rc = run(argv, &output, reterr);
        if (rc < 0)
                return rc;
        info = json_loads(output, 0, NULL);
        bitmaps = json_object_get(json_object_get(json_object_get(info, "format-specific"), "data"), "bitmaps");
        json_array_foreach(bitmaps, i, bitmap) {
                bool usable = true;

                json_array_foreach(json_object_get(bitmap, "flags"), j, flag)
                        usable &= strcmp(json_string_value(flag), "in-use") != 0;
                if ((usable || all) && strings_add(ret, json_string_value(json_object_get(bitmap, "name"))) < 0)
                        return fail_oom(reterr);
        }
        return 0;
}

static int change_bitmap(const char *image, const char *change, const char *name, Reason *reterr) {
        const char *argv[] = { "qemu-img", "bitmap", change, image, name, NULL };

        return run(argv, NULL, reterr);
}

static void beside(const char *image, const char *suffix, char ret[static 256]) {
        snprintf(ret, 256, "%s.%s", image, suffix);
}

static bool claims(const char *uri) {
        return strncmp(uri, SCHEME, sizeof SCHEME - 1) == 0;
}

static void image_free(Source *base) {
        ImageSource *source = (ImageSource *) base;

        strings_free(&source->images);
        free(source->base);
        free(source->checkpoint);
        free(source);
}

static int image_open(const SourceOwner *owner, Source **ret, Reason *reterr) {
        CLEANUP(freep) char *paths = strdup(owner->source + sizeof SCHEME - 1);
        ImageSource *source = calloc(1, sizeof *source);
        char *rest;

        if (!source || !paths)
                return fail_oom(reterr);
        for (char *path = strtok_r(paths, ",", &rest); path; path = strtok_r(NULL, ",", &rest))
                if (strings_add(&source->images, path) < 0)
                        return fail_oom(reterr);
        *ret = &source->source;
        return 0;
}

static int image_identify(Source *base, char **ret, Reason *reterr) {
        const char *uri = base->owner.source;
        uint64_t sum = checksum(uri, strlen(uri));

        if (asprintf(ret, "%08x-%04x-4%03x-8000-000000000000", (uint32_t) sum, (unsigned) (sum >> 32 & 0xffff),
                     (unsigned) (sum >> 48 & 0xfff)) < 0)
                return fail_oom(reterr);
        return 0;
}

static int image_inspect(Source *base, SourceVm *ret, Reason *reterr) {
        ImageSource *source = (ImageSource *) base;
        int rc;

        rc = image_identify(base, &ret->uuid, reterr);
        if (rc < 0)
                return rc;
        ret->disks = calloc(source->images.count, sizeof *ret->disks);
        for (size_t i = 0; i < source->images.count; i++) {
                SourceDisk *disk = &ret->disks[ret->disk_count++];

                if (asprintf(&disk->name, "vd%c", (char) ('a' + i)) < 0 ||
                    strings_add(&disk->images, source->images.items[i]) < 0)
                        return fail_oom(reterr);
                disk->tracks_changes = true;
        }
        return 0;
}

/* A child, so that there is somebody to collect it; its pid is kept in a file for those who are not its parent. */
static int serve(const char *image, const char *bitmap, Reason *reterr) {
        char socket[256], pid_option[256 + 16], pid_file[256];
        const char *argv[] = { "qemu-nbd", "-r", "-t", "-e", "8", "-f", "qcow2", "-x", "disk", "-k", socket, pid_option, image,
                               bitmap ? "-B" : NULL, bitmap, NULL };
        int rc, status;
        pid_t pid;

        beside(image, "socket", socket);
        beside(image, "pid", pid_file);
        snprintf(pid_option, sizeof pid_option, "--pid-file=%s", pid_file);
        rc = posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *) argv, environ);
        if (rc != 0)
                return fail_errno(reterr, -rc, "cannot run %s", argv[0]);
        while (access(pid_file, F_OK) < 0) { /* written when it listens */
                if (waitpid(pid, &status, WNOHANG) != 0)
                        return fail(reterr, -EIO, "qemu-nbd does not serve %s", image);
                usleep(1000);
        }
        return 0;
}

/* A process that has ended may stay a zombie where nobody collects it. */
static bool runs(pid_t pid) {
        char path[64], text[512] = "";
        CLEANUP(close_fd) int fd = -1;
        const char *name_end;

        snprintf(path, sizeof path, "/proc/%d/stat", (int) pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
                return false;
        name_end = strrchr(text, ')');
        return name_end && name_end[1] == ' ' && name_end[2] != 'Z';
}

static void stop_serving(const char *image) {
        char socket[256], pid_file[256], text[32] = "";
        CLEANUP(close_fd) int fd = -1;

        beside(image, "socket", socket);
        beside(image, "pid", pid_file);
        fd = open(pid_file, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 && atoi(text) > 1) {
                pid_t pid = atoi(text);

                kill(pid, SIGTERM);
                while (waitpid(pid, NULL, WNOHANG) != pid && runs(pid))
                        usleep(1000);
        }
        (void) unlink(pid_file);
        (void) unlink(socket);
}

static int image_end(Source *base, Reason *reterr) {
        ImageSource *source = (ImageSource *) base;

        (void) reterr;
        for (size_t i = 0; i < source->images.count; i++)
                stop_serving(source->images.items[i]);
        return 0;
}

static int has_bitmap(const char *image, const char *name, Reason *reterr) {
        CLEANUP(strings_free) Strings bitmaps = { 0 };
        int rc = list_bitmaps(image, false, &bitmaps, reterr);

        if (rc < 0)
                return rc;
        for (size_t i = 0; i < bitmaps.count; i++)
                if (strcmp(bitmaps.items[i], name) == 0)
                        return 0;
        return fail(reterr, -ESTALE, "%s has no bitmap %s", image, name);
}

static int image_begin(Source *base, const SourceJob *job, struct timespec *ret_moment, Reason *reterr) {
        ImageSource *source = (ImageSource *) base;
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < source->images.count; i++)
                if (job->incremental[i])
                        rc = has_bitmap(source->images.items[i], job->base, reterr);
        for (size_t i = 0; rc == 0 && i < source->images.count; i++)
                rc = change_bitmap(source->images.items[i], "--add", job->checkpoint, reterr);
        for (size_t i = 0; rc == 0 && i < source->images.count; i++)
                rc = serve(source->images.items[i], job->incremental[i] ? job->base : NULL, reterr);
        if (rc < 0)
                return rc;
        source->base = job->base ? strdup(job->base) : NULL;
        source->checkpoint = strdup(job->checkpoint);
        *ret_moment = timestamp_now();
        return 0;
}

static int image_checkpoint(Source *base, char **ret_name, char **ret_definition, Reason *reterr) {
        ImageSource *source = (ImageSource *) base;

        *ret_definition = NULL;
        *ret_name = strdup(source->checkpoint);
        return *ret_name ? 0 : fail_oom(reterr);
}

static int image_open_reader(Source *base, size_t disk, const SourceView *view, SourceReader **ret, Reason *reterr) {
        ImageSource *source = (ImageSource *) base;
        char socket[256], context[256];
        NbdAddress address = { .socket_path = socket, .export_name = "disk", .bitmap = view->incremental ? context : NULL };

        beside(source->images.items[disk], "socket", socket);
        snprintf(context, sizeof context, "qemu:dirty-bitmap:%s", source->base ?: "");
        return nbd_reader_open(&address, base->owner.cancel, ret, reterr);
}

static int image_watch(Source *base, Reason *reterr) {
        (void) base;
        (void) reterr;
        return 0;
}

static int image_keep_checkpoints(Source *base, const char *const *keep, size_t count, Reason *reterr) {
        ImageSource *source = (ImageSource *) base;

        for (size_t i = 0; i < source->images.count; i++) {
                CLEANUP(strings_free) Strings bitmaps = { 0 };
                int rc = list_bitmaps(source->images.items[i], true, &bitmaps, reterr);

                for (size_t j = 0; rc == 0 && j < bitmaps.count; j++) {
                        bool kept = strncmp(bitmaps.items[j], PREFIX, sizeof PREFIX - 1) != 0;

                        for (size_t k = 0; k < count; k++)
                                kept |= strcmp(bitmaps.items[j], keep[k]) == 0;
                        if (!kept)
                                rc = change_bitmap(source->images.items[i], "--remove", bitmaps.items[j], reterr);
                }
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static const SourceOps image_ops = {
        .name = "images",
        .claims = claims,
        .open = image_open,
        .identify = image_identify,
        .inspect = image_inspect,
        .begin = image_begin,
        .checkpoint = image_checkpoint,
        .open_reader = image_open_reader,
        .watch = image_watch,
        .end = image_end,
        .end_leftovers = image_end,
        .keep_checkpoints = image_keep_checkpoints,
        .free = image_free,
};

void image_source_register(void) {
        source_register(&image_ops);
}
