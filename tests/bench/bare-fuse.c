/* tests/bench/bare-fuse.c - one file, shown by FUSE as simply as can be: what no filesystem in user space can pass.
 *
 *     bare-fuse FILE MOUNTPOINT [cached]     shows MOUNTPOINT/image, in the foreground, until it is unmounted
 *     bare-fuse FILE MOUNTPOINT lz4          FILE is what the following made of it: what no reader of LZ4 can pass
 *     bare-fuse --pack RAW FILE
 *
 * As many threads and the same size of requests as the mount of a repository, and past the page cache as that is by
 * default, or through it. */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bare-lz4.h"

#define IMAGE 2 /* its inode number */
#define FOREVER 86400.0
#define LARGEST (1u << 20) /* bytes of a request */

static int image;
static bool cached, packed;

static int get_attributes(fuse_ino_t number, struct stat *ret) {
        if (fstat(image, ret) < 0)
                return errno;
        if (packed)
                ret->st_size = (off_t) bare_lz4_size();
        ret->st_ino = number;
        if (number == FUSE_ROOT_ID)
                ret->st_mode = S_IFDIR | 0755;
        return 0;
}

static void op_init(void *userdata, struct fuse_conn_info *connection) {
        connection->want = connection->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_DIO);
        connection->max_background = 64;
        connection->congestion_threshold = 48;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name) {
        struct fuse_entry_param entry = { .ino = IMAGE, .attr_timeout = FOREVER, .entry_timeout = FOREVER };
        int error = strcmp(name, "image") == 0 ? get_attributes(IMAGE, &entry.attr) : ENOENT;

        if (error)
                fuse_reply_err(req, error);
        else
                fuse_reply_entry(req, &entry);
}

static void op_getattr(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *info) {
        struct stat st;
        int error = get_attributes(number, &st);

        if (error)
                fuse_reply_err(req, error);
        else
                fuse_reply_attr(req, &st, FOREVER);
}

static void op_open(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *info) {
        info->direct_io = !cached;
        info->keep_cache = cached;
        fuse_reply_open(req, info);
}

static ssize_t read_image(char *buffer, size_t length, off_t offset) {
        ssize_t done;

        if (packed)
                return bare_lz4_read(buffer, length, (uint64_t) offset);
        done = pread(image, buffer, length, offset);
        return done < 0 ? -errno : done;
}

static void op_read(fuse_req_t req, fuse_ino_t number, size_t size, off_t offset, struct fuse_file_info *info) {
        static __thread char *buffer;
        ssize_t length;

        if (!buffer)
                buffer = aligned_alloc(4096, LARGEST);
        length = !buffer ? -ENOMEM : read_image(buffer, size < LARGEST ? size : LARGEST, offset);
        if (length < 0)
                fuse_reply_err(req, (int) -length);
        else
                fuse_reply_buf(req, buffer, (size_t) length);
}

static void op_lseek(fuse_req_t req, fuse_ino_t number, off_t offset, int whence, struct fuse_file_info *info) {
        off_t found = packed ? bare_lz4_seek(offset, whence) : lseek(image, offset, whence);

        if (found < 0)
                fuse_reply_err(req, packed ? (int) -found : errno);
        else
                fuse_reply_lseek(req, found);
}

static const struct fuse_lowlevel_ops operations = {
        .init = op_init,
        .lookup = op_lookup,
        .getattr = op_getattr,
        .open = op_open,
        .read = op_read,
        .lseek = op_lseek,
};

static int pack(const char *raw, const char *file) {
        int rc = bare_lz4_pack(raw, file);

        if (rc < 0)
                fprintf(stderr, "bare-fuse: cannot pack %s: %s\n", raw, strerror(-rc));
        return rc < 0;
}

int main(int argc, char **argv) {
        char *words[] = { argv[0], "-o", "default_permissions,fsname=bare-fuse", NULL };
        struct fuse_args args = FUSE_ARGS_INIT(3, words);
        struct fuse_session *session;
        struct fuse_loop_config *config;
        int rc;

        if (argc != 3 && argc != 4) {
                fprintf(stderr, "Usage: bare-fuse FILE MOUNTPOINT [cached|lz4] | --pack RAW FILE\n");
                return 2;
        }
        if (strcmp(argv[1], "--pack") == 0)
                return argc == 4 ? pack(argv[2], argv[3]) : 2;
        cached = argc == 4 && strcmp(argv[3], "cached") == 0;
        packed = argc == 4 && strcmp(argv[3], "lz4") == 0;
        image = open(argv[1], O_RDONLY | O_CLOEXEC);
        rc = image < 0 ? -errno : packed ? bare_lz4_open(argv[1]) : 0;
        if (rc < 0) {
                fprintf(stderr, "bare-fuse: cannot open %s: %s\n", argv[1], strerror(-rc));
                return 1;
        }
        rc = 1;
        session = fuse_session_new(&args, &operations, sizeof operations, NULL);
        config = fuse_loop_cfg_create();
        if (session && config && fuse_session_mount(session, argv[2]) == 0) {
                fuse_set_signal_handlers(session);
                rc = fuse_session_loop_mt(session, config) == 0 ? 0 : 1;
                fuse_remove_signal_handlers(session);
                fuse_session_unmount(session);
        }
        fuse_loop_cfg_destroy(config);
        if (session)
                fuse_session_destroy(session);
        close(image);
        return rc;
}
