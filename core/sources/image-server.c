#include "sources/image-server.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "sources/nbd-reader.h"
#include "sources/nbd-server.h"
#include "util/text.h"

#define EXPORT "disk"

/* QEMU's locks: bytes of the file by which those who have it open tell each other what they do, and do not put up with. */
#define LOCK_WRITES 101
#define LOCK_NO_WRITES 201

struct ImageServer {
        const ImageChain *chain;
        struct stat *stamps; /* its images as they were when reading began */
        char *socket_path;
        char *bitmap;        /* context */
        NbdServer *server;
        int lock_fd;         /* -1: shared */
};

ImageServer *image_server_stop(ImageServer *server) {
        if (server->server)
                nbd_server_stop(server->server);
        close_fd(&server->lock_fd);
        free(server->stamps);
        free(server->socket_path);
        free(server->bitmap);
        free(server);
        return NULL;
}

static int take_stamps(ImageServer *server, Reason *reterr) {
        server->stamps = calloc(server->chain->count, sizeof *server->stamps);
        if (!server->stamps)
                return fail_oom(reterr);
        for (size_t i = 0; i < server->chain->count; i++)
                if (stat(server->chain->images[i].path, &server->stamps[i]) < 0)
                        return fail_errno(reterr, -errno, "cannot look at %s", server->chain->images[i].path);
        return 0;
}

/* A qemu-nbd that reads a raw image puts up with writers. File systems without locks have none. */
static int lock_out_writers(ImageServer *server, Reason *reterr) {
        const char *path = server->chain->images[0].path;
        struct flock ours = { .l_type = F_RDLCK, .l_start = LOCK_NO_WRITES, .l_len = 1 };
        struct flock theirs = { .l_type = F_WRLCK, .l_start = LOCK_WRITES, .l_len = 1 };

        server->lock_fd = open(path, O_RDONLY | O_CLOEXEC);
        if (server->lock_fd < 0)
                return fail_errno(reterr, -errno, "cannot open the image %s", path);
        (void) fcntl(server->lock_fd, F_OFD_SETLK, &ours);
        if (fcntl(server->lock_fd, F_OFD_GETLK, &theirs) == 0 && theirs.l_type != F_UNLCK)
                return fail(reterr, -EBUSY, "%s is in use by another program, a running VM maybe: shut that down, or "
                                            "capture the VM itself, by libvirt or qmp", path);
        return 0;
}

/* Commas are doubled, as QEMU's options have it. */
static char *escape_path(const char *path) {
        char *escaped = malloc(2 * strlen(path) + 1), *to = escaped;

        if (!escaped)
                return NULL;
        for (; *path; path++) {
                *to++ = *path;
                if (*path == ',')
                        *to++ = ',';
        }
        *to = 0;
        return escaped;
}

static int start(ImageServer *server, const ImageServing *serving, Reason *reterr) {
        const ImageInfo *image = &serving->chain->images[0];
        CLEANUP(freep) char *path = escape_path(image->path), *options = NULL, *wanted = NULL;
        const char *argv[10] = { "qemu-nbd", "--read-only", "--persistent", "--shared=64", ("--export-name=" EXPORT) };
        size_t count = 5;

        if (!path || text_format(&options, "driver=%s,read-only=on,%sfile.driver=%s,file.filename=%s%s", image->format,
                                 serving->shared ? "force-share=on," : "",
                                 S_ISBLK(server->stamps[0].st_mode) ? "host_device" : "file", path,
                                 serving->shared ? ",file.locking=off" : "") < 0)
                return fail_oom(reterr);
        if (serving->bitmap && text_format(&wanted, "--bitmap=%s", serving->bitmap) < 0)
                return fail_oom(reterr);
        if (wanted)
                argv[count++] = wanted;
        if (serving->top)
                argv[count++] = "--allocation-depth";
        argv[count++] = "--image-opts";
        argv[count++] = options;
        return nbd_server_start(argv, server->socket_path, &server->server, reterr);
}

int image_server_start(const ImageServing *serving, ImageServer **ret, Reason *reterr) {
        CLEANUP(image_server_stopp) ImageServer *server = calloc(1, sizeof *server);
        int rc;

        if (!server)
                return fail_oom(reterr);
        server->lock_fd = -1;
        server->chain = serving->chain;
        server->socket_path = strdup(serving->socket_path);
        if (!server->socket_path)
                return fail_oom(reterr);
        if (serving->bitmap && text_format(&server->bitmap, "qemu:dirty-bitmap:%s", serving->bitmap) < 0)
                return fail_oom(reterr);
        rc = serving->shared ? 0 : lock_out_writers(server, reterr);
        if (rc == 0)
                rc = take_stamps(server, reterr);
        if (rc == 0)
                rc = start(server, serving, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(server);
        return 0;
}

int image_server_open_reader(ImageServer *server, const SourceView *view, unsigned patience_ms, const atomic_bool *cancel,
                             SourceReader **ret, Reason *reterr) {
        const char *path = server->chain->images[0].path;
        const NbdAddress address = {
                .socket_path = server->socket_path,
                .export_name = EXPORT,
                .bitmap = view->incremental ? server->bitmap : NULL,
                .ignore_zero = !view->ask_zero,
                .top_depth = view->top ? 1 : 0,
                .patience_ms = patience_ms,
        };
        Reason why = REASON_INIT, last = REASON_INIT;
        int rc;

        rc = nbd_reader_open(&address, cancel, ret, &why);
        if (rc == 0)
                return 0;
        if (rc == -ECANCELED || nbd_server_check(server->server, &last) == 0)
                return fail(reterr, rc, "%s", why.text);
        return fail(reterr, -EIO, "cannot open the image %s: %.*s", path, REASON_MAX / 2, last.text);
}

static bool is_untouched(const struct stat *then, const struct stat *now) {
        return now->st_dev == then->st_dev && now->st_ino == then->st_ino && now->st_size == then->st_size &&
               now->st_mtim.tv_sec == then->st_mtim.tv_sec && now->st_mtim.tv_nsec == then->st_mtim.tv_nsec;
}

int image_server_check_untouched(const ImageServer *server, Reason *reterr) {
        for (size_t i = 0; i < server->chain->count; i++) {
                const char *path = server->chain->images[i].path;
                struct stat now;

                if (stat(path, &now) < 0)
                        return fail(reterr, -ESTALE, "%s went away while it was captured", path);
                if (!is_untouched(&server->stamps[i], &now))
                        return fail(reterr, -ESTALE, "%s was written to while it was captured; capture again", path);
        }
        return 0;
}
