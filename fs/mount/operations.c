#define FUSE_USE_VERSION 314
#include "mount/operations.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/statvfs.h>

#include "chain/allocation.h"
#include "mount/attributes.h"
#include "mount/direct-mapping.h"
#include "mount/reader.h"
#include "mount/waiting.h"
#include "util/scratch.h"

#define BACKGROUND_REQUESTS 64 /* read-ahead of many readers at once */

static Mount *mount_of(fuse_req_t req) {
        return fuse_req_userdata(req);
}

static OpenFile *open_file(const struct fuse_file_info *info) {
        return (OpenFile *) (uintptr_t) info->fh;
}

/* What is wrong with what is stored is EIO to those who read it. */
static void reply_error(fuse_req_t req, int rc) {
        if (rc == -EBADMSG || rc == -ENOTSUP || rc == -ENODATA || rc == -ELOOP || rc == -EXDEV)
                rc = -EIO;
        fuse_reply_err(req, -rc);
}

/* Reading a disk, and making text of it, may have to wait. Looking about may not, though it may want to know what is in
 * one. */
static void begin_waiting(fuse_req_t req, Waiting *waiting, bool light) {
        waiting_begin(waiting, req, mount_of(req)->session, mount_of(req)->tree.options->max_threads, light);
}

static int make_entry(Mount *mount, const Item *item, struct fuse_entry_param *ret) {
        *ret = (struct fuse_entry_param) {
                .ino = node_number(item->node),
                .generation = attributes_generation(item),
                .attr_timeout = attributes_lifetime(&mount->tree, item),
                .entry_timeout = attributes_entry_lifetime(&mount->tree, item),
        };
        return attributes_get(&mount->tree, item, &ret->attr);
}

static void op_init(void *userdata, struct fuse_conn_info *connection) {
        const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_DIO | FUSE_CAP_READDIRPLUS |
                                FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_EXPORT_SUPPORT;

        (void) userdata;
        /* Attributes come with the manifest that a listing reads anyway, hence always; what is cached never changes, hence
         * nothing is invalidated because of them. Splicing was measured slower than copying. */
        connection->want = connection->capable & wanted;
        connection->max_background = BACKGROUND_REQUESTS;
        connection->congestion_threshold = BACKGROUND_REQUESTS * 3 / 4;
}

static int find(Mount *mount, const Item *parent, const char *name, Item *ret) {
        if (strcmp(name, "..") == 0)
                return tree_parent(parent, ret);
        return tree_find(&mount->tree, parent, name, ret);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent_number, const char *name) {
        CLEANUP(item_clear) Item parent = { 0 };
        CLEANUP(item_clear) Item item = { 0 };
        struct fuse_entry_param entry;
        bool itself = strcmp(name, ".") == 0; /* so ask NFS servers for what a handle names */
        Waiting waiting;
        int rc;

        begin_waiting(req, &waiting, true);
        rc = tree_item(&mount_of(req)->tree, parent_number, &parent);
        if (rc >= 0 && !itself)
                rc = find(mount_of(req), &parent, name, &item);
        if (rc >= 0)
                rc = make_entry(mount_of(req), itself ? &parent : &item, &entry);
        rc = waiting_end(&waiting, rc);
        if (rc < 0)
                reply_error(req, rc);
        else
                fuse_reply_entry(req, &entry);
}

/* Numbers are decoded: nothing is remembered that could be forgotten. */
static void op_forget(fuse_req_t req, fuse_ino_t number, uint64_t count) {
        (void) number;
        (void) count;
        fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets) {
        (void) count;
        (void) forgets;
        fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *info) {
        CLEANUP(item_clear) Item item = { 0 };
        Waiting waiting;
        struct stat st;
        int rc;

        (void) info;
        begin_waiting(req, &waiting, true);
        rc = tree_item(&mount_of(req)->tree, number, &item);
        if (rc >= 0)
                rc = attributes_get(&mount_of(req)->tree, &item, &st);
        rc = waiting_end(&waiting, rc);
        if (rc < 0)
                reply_error(req, rc);
        else
                fuse_reply_attr(req, &st, attributes_lifetime(&mount_of(req)->tree, &item));
}

/* The trigger may be truncated and touched, which does nothing. */
static void op_setattr(fuse_req_t req, fuse_ino_t number, struct stat *attributes, int set, struct fuse_file_info *info) {
        Node node;

        (void) attributes;
        if (node_decode(number, &node) < 0 || node.kind != NODE_TRIGGER)
                fuse_reply_err(req, EROFS);
        else if (set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
                fuse_reply_err(req, EPERM);
        else
                op_getattr(req, number, info);
}

static void op_readlink(fuse_req_t req, fuse_ino_t number) {
        CLEANUP(item_clear) Item item = { 0 };
        char target[POINT_NAME_MAX];
        int rc;

        rc = tree_item(&mount_of(req)->tree, number, &item);
        if (rc >= 0)
                rc = tree_link(&item, target);
        if (rc < 0)
                reply_error(req, rc);
        else
                fuse_reply_readlink(req, target);
}

/* Gives the file to the kernel, which may not want it any more: who asked was interrupted, and no release comes. */
static void reply_open(fuse_req_t req, OpenFile *file, struct fuse_file_info *info) {
        OpenFiles *files = &mount_of(req)->files;

        info->fh = (uintptr_t) file;
        open_files_add(files, file);
        if (fuse_reply_open(req, info) == -ENOENT)
                open_files_close(files, file);
}

/* What has no size that is known, or none for ever, is asked for each time; what never changes stays in the page cache. */
static bool is_made_up(NodeKind kind) {
        return kind == NODE_TRIGGER || kind == NODE_INFO || kind == NODE_MAP || kind == NODE_CHANGES;
}

/* Whether disks are read past the page cache. */
static bool reads_directly(const MountOptions *options) {
        return options->disk_reads == DISK_READS_DIRECT ||
               (options->disk_reads == DISK_READS_BEST && direct_mapping_granted());
}

static void op_open(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *info) {
        OpenFile *file;
        Waiting waiting;
        Node node;
        int rc;

        rc = node_decode(number, &node);
        if (rc >= 0 && node.kind != NODE_TRIGGER && (info->flags & O_ACCMODE) != O_RDONLY)
                rc = -EROFS;
        begin_waiting(req, &waiting, rc >= 0 && node.kind == NODE_INFO);
        if (rc >= 0)
                rc = open_file_new(&mount_of(req)->tree, number, &file);
        rc = waiting_end(&waiting, rc);
        if (rc >= 0 && node_is_image(node.kind) && mount_of(req)->tree.options->hold) {
                rc = holding_add(&mount_of(req)->holding, file->item.vm->vm);
                if (rc < 0)
                        open_file_free(file);
        }
        if (rc < 0) {
                reply_error(req, rc);
                return;
        }
        info->noflush = 1;
        file->direct = node_is_image(node.kind) && reads_directly(mount_of(req)->tree.options);
        if (file->direct)
                (void) prefetch_new(mount_of(req)->prefetcher, file->view, &file->prefetch); /* it reads without, too */
        info->direct_io = file->direct || is_made_up(node.kind);
        info->keep_cache = !is_made_up(node.kind);
        reply_open(req, file, info);
}

static void op_opendir(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *info) {
        OpenFile *directory;
        Waiting waiting;
        int rc;

        begin_waiting(req, &waiting, true);
        rc = waiting_end(&waiting, open_file_new(&mount_of(req)->tree, number, &directory));
        if (rc < 0)
                reply_error(req, rc);
        else
                reply_open(req, directory, info);
}

static void op_release(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *info) {
        (void) number;
        open_files_close(&mount_of(req)->files, open_file(info));
        fuse_reply_err(req, 0);
}

static void read_text(fuse_req_t req, OpenFile *file, size_t size, uint64_t offset, Waiting *waiting) {
        void *buffer = scratch_get(SCRATCH_ANSWER, size);
        int64_t length = buffer ? open_file_copy(file, buffer, size, offset) : -ENOMEM;
        int rc = waiting_end(waiting, length < 0 ? (int) length : 0);

        if (rc < 0)
                reply_error(req, rc);
        else
                fuse_reply_buf(req, buffer, (size_t) length);
}

static void op_read(fuse_req_t req, fuse_ino_t number, size_t size, off_t offset, struct fuse_file_info *info) {
        OpenFile *file = open_file(info);
        Answer answer = { 0 };
        Waiting waiting;
        int rc;

        (void) number;
        begin_waiting(req, &waiting, false);
        if (!file->view) {
                read_text(req, file, size, (uint64_t) offset, &waiting);
                return;
        }
        rc = waiting_end(&waiting, reader_read(file, size, (uint64_t) offset, &answer));
        if (rc < 0)
                reply_error(req, rc == -EINTR || rc == -EAGAIN ? rc : -EIO);
        else
                fuse_reply_buf(req, answer.bytes, answer.length);
        reader_release(&answer);
}

static void op_write(fuse_req_t req, fuse_ino_t number, const char *bytes, size_t size, off_t offset,
                     struct fuse_file_info *info) {
        OpenFile *file = open_file(info);
        int64_t length;

        (void) number;
        (void) offset;
        length = file->trigger ? trigger_write(mount_of(req)->triggers, file->trigger, bytes, size) : -EBADF;
        if (length < 0)
                fuse_reply_err(req, (int) -length);
        else
                fuse_reply_write(req, (size_t) length);
}

static void op_poll(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *info, struct fuse_pollhandle *handle) {
        OpenFile *file = open_file(info);
        unsigned events = POLLIN | POLLRDNORM;
        int rc = 0;

        (void) number;
        if (file->trigger)
                rc = trigger_poll(mount_of(req)->triggers, file->trigger, handle, &events);
        else if (handle)
                fuse_pollhandle_destroy(handle);
        if (rc < 0)
                reply_error(req, rc);
        else
                fuse_reply_poll(req, events);
}

/* Only SEEK_DATA and SEEK_HOLE come here. */
static void op_lseek(fuse_req_t req, fuse_ino_t number, off_t offset, int whence, struct fuse_file_info *info) {
        Waiting waiting;
        int64_t found;

        (void) number;
        begin_waiting(req, &waiting, false);
        found = offset < 0 ? -ENXIO : open_file_seek(open_file(info), (uint64_t) offset, whence);
        if (found < 0)
                found = waiting_end(&waiting, (int) found);
        else
                (void) waiting_end(&waiting, 0);
        if (found < 0)
                reply_error(req, (int) found);
        else
                fuse_reply_lseek(req, found);
}

/* One entry of a listing: "." and ".." first. A name that has gone meanwhile gets -ENOENT. */
static int list_entry(Mount *mount, const OpenFile *directory, size_t index, const char **ret_name, Item *ret) {
        if (index == 0) {
                *ret_name = ".";
                return tree_item(&mount->tree, node_number(directory->item.node), ret);
        }
        if (index == 1) {
                *ret_name = "..";
                return tree_parent(&directory->item, ret);
        }
        *ret_name = directory->names.items[index - 2];
        return tree_find(&mount->tree, &directory->item, *ret_name, ret);
}

/* Whether its attributes have to be worked out. */
static bool is_costly(const Item *item) {
        return item->node.kind == NODE_INFO || item->node.kind == NODE_PARTITION ||
               (item->node.kind == NODE_RAW && manifest_disk_allocated(item_disk(item)) == ALLOCATED_UNKNOWN &&
                !allocation_is_bound(item_disk(item)));
}

/* Adds one entry; 0 where it does not fit in any more. What costs something to tell the attributes of is listed without
 * them, as are "." and "..", which the kernel knows. */
static size_t add_entry(fuse_req_t req, bool plus, size_t index, const char *name, const Item *item, char *at, size_t room) {
        struct stat st = { .st_ino = node_number(item->node), .st_mode = node_type(item->node.kind) };
        struct fuse_entry_param entry = { .attr = st };
        size_t length;

        if (!plus)
                length = fuse_add_direntry(req, at, room, name, &entry.attr, (off_t) index + 1);
        else {
                if (index >= 2 && !is_costly(item) && make_entry(mount_of(req), item, &entry) < 0)
                        entry.ino = 0;
                length = fuse_add_direntry_plus(req, at, room, name, &entry, (off_t) index + 1);
        }
        return length <= room ? length : 0;
}

static void prepare_listing(Mount *mount, const OpenFile *directory) {
        if (directory->item.node.kind == NODE_ROOT || directory->item.node.kind == NODE_VM)
                catalogue_prepare(mount->tree.catalogue, directory->item.vm, &directory->names);
}

static void read_directory(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *info, bool plus) {
        const OpenFile *directory = open_file(info);
        char *buffer = scratch_get(SCRATCH_ANSWER, size);
        Waiting waiting;
        size_t used = 0;

        if (!buffer || offset < 0) {
                reply_error(req, buffer ? -EINVAL : -ENOMEM);
                return;
        }
        begin_waiting(req, &waiting, true);
        if (plus && offset == 0)
                prepare_listing(mount_of(req), directory);
        for (size_t index = (size_t) offset; index < directory->names.count + 2; index++) {
                CLEANUP(item_clear) Item item = { 0 };
                const char *name;
                size_t length;

                if (list_entry(mount_of(req), directory, index, &name, &item) < 0)
                        continue;
                length = add_entry(req, plus, index, name, &item, buffer + used, size - used);
                if (length == 0)
                        break;
                used += length;
        }
        (void) waiting_end(&waiting, 0);
        fuse_reply_buf(req, buffer, used);
}

static void op_readdir(fuse_req_t req, fuse_ino_t number, size_t size, off_t offset, struct fuse_file_info *info) {
        (void) number;
        read_directory(req, size, offset, info, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t number, size_t size, off_t offset, struct fuse_file_info *info) {
        (void) number;
        read_directory(req, size, offset, info, true);
}

static void op_statfs(fuse_req_t req, fuse_ino_t number) {
        struct statvfs theirs;

        (void) number;
        if (fstatvfs(repository_fd(mount_of(req)->tree.repository), &theirs) < 0) {
                reply_error(req, -errno);
                return;
        }
        theirs.f_namemax = NAME_MAX;
        fuse_reply_statfs(req, &theirs);
}

/* What would change the tree. */
static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device) {
        (void) parent, (void) name, (void) mode, (void) device;
        fuse_reply_err(req, EROFS);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode) {
        (void) parent, (void) name, (void) mode;
        fuse_reply_err(req, EROFS);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name) {
        (void) parent, (void) name;
        fuse_reply_err(req, EROFS);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name) {
        (void) target, (void) parent, (void) name;
        fuse_reply_err(req, EROFS);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
                      unsigned flags) {
        (void) parent, (void) name, (void) new_parent, (void) new_name, (void) flags;
        fuse_reply_err(req, EROFS);
}

static void op_link(fuse_req_t req, fuse_ino_t number, fuse_ino_t new_parent, const char *new_name) {
        (void) number, (void) new_parent, (void) new_name;
        fuse_reply_err(req, EROFS);
}

const struct fuse_lowlevel_ops mount_operations = {
        .init = op_init,
        .lookup = op_lookup,
        .forget = op_forget,
        .forget_multi = op_forget_multi,
        .getattr = op_getattr,
        .setattr = op_setattr,
        .readlink = op_readlink,
        .open = op_open,
        .release = op_release,
        .read = op_read,
        .write = op_write,
        .poll = op_poll,
        .lseek = op_lseek,
        .opendir = op_opendir,
        .releasedir = op_release,
        .readdir = op_readdir,
        .readdirplus = op_readdirplus,
        .statfs = op_statfs,
        .mknod = op_mknod,
        .mkdir = op_mkdir,
        .unlink = op_unlink,
        .rmdir = op_unlink,
        .symlink = op_symlink,
        .rename = op_rename,
        .link = op_link,
};
