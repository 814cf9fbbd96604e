#define FUSE_USE_VERSION 314
#include "operations.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "chain/chain.h"
#include "contents.h"
#include "log.h"
#include "reader.h"
#include "util/bytes.h"
#include "util/scratch.h"

#define BACKGROUND_REQUESTS 64 /* read-ahead of many readers at once */

/* What is behind an open file or directory. */
struct OpenFile {
        Item item;
        Chain *chain;         /* NODE_RAW */
        TriggerFile *trigger; /* NODE_TRIGGER */
        Strings names;        /* directories: as they were when it was opened */
        char *text;           /* the others */
        size_t length;
        OpenFile *next, *previous; /* of the mount; guarded by its lock */
};

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

static int make_entry(Mount *mount, const Item *item, struct fuse_entry_param *ret) {
        *ret = (struct fuse_entry_param) {
                .ino = node_number(item->node),
                .generation = tree_generation(item),
                .attr_timeout = tree_attribute_lifetime(item),
                .entry_timeout = tree_entry_lifetime(item),
        };
        return tree_attributes(&mount->tree, item, &ret->attr);
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
        int rc;

        rc = tree_item(&mount_of(req)->tree, parent_number, &parent);
        if (rc >= 0 && !itself)
                rc = find(mount_of(req), &parent, name, &item);
        if (rc >= 0)
                rc = make_entry(mount_of(req), itself ? &parent : &item, &entry);
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
        struct stat st;
        int rc;

        (void) info;
        rc = tree_item(&mount_of(req)->tree, number, &item);
        if (rc >= 0)
                rc = tree_attributes(&mount_of(req)->tree, &item, &st);
        if (rc < 0)
                reply_error(req, rc);
        else
                fuse_reply_attr(req, &st, tree_attribute_lifetime(&item));
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

static OpenFile *file_free(OpenFile *file) {
        chain_unref(file->chain);
        if (file->trigger)
                trigger_close(file->trigger);
        item_clear(&file->item);
        strings_free(&file->names);
        free(file->text);
        free(file);
        return NULL;
}
DEFINE_CLEANUP(OpenFile, file_free)

static bool is_directory(const OpenFile *file) {
        return node_type(file->item.node.kind) == S_IFDIR;
}

static void put_on_list(Mount *mount, OpenFile *file) {
        atomic_fetch_add(&mount->open_files, !is_directory(file));
        pthread_mutex_lock(&mount->lock);
        file->next = mount->files;
        if (file->next)
                file->next->previous = file;
        mount->files = file;
        pthread_mutex_unlock(&mount->lock);
}

static void close_file_of(Mount *mount, OpenFile *file) {
        pthread_mutex_lock(&mount->lock);
        if (file->next)
                file->next->previous = file->previous;
        if (file->previous)
                file->previous->next = file->next;
        else
                mount->files = file->next;
        pthread_mutex_unlock(&mount->lock);
        atomic_fetch_sub(&mount->open_files, !is_directory(file));
        file_free(file);
}

void mount_close_files(Mount *mount) {
        while (mount->files)
                close_file_of(mount, mount->files);
}

/* Gives the file to the kernel, which may not want it any more: who asked was interrupted, and no release comes. */
static void reply_open(fuse_req_t req, OpenFile *file, struct fuse_file_info *info) {
        Mount *mount = mount_of(req);

        info->fh = (uintptr_t) file;
        put_on_list(mount, file);
        if (fuse_reply_open(req, info) == -ENOENT)
                close_file_of(mount, file);
}

static int open_chain(const Item *item, Chain **ret) {
        Reason reason = REASON_INIT;
        char subject[SUBJECT_MAX];
        int rc;

        rc = chain_open(item->vm->vm, item->point->name, item_disk(item)->name, ret, &reason);
        if (rc < 0) {
                item_subject(item, subject);
                log_once(node_number(item->node), "%s: %s", subject, reason.text);
        }
        return rc;
}

static int fill(Mount *mount, OpenFile *file, struct fuse_file_info *info) {
        info->noflush = 1;
        switch (file->item.node.kind) {
        case NODE_ROOT:
        case NODE_VM:
        case NODE_POINT:
                return -EISDIR;
        case NODE_LATEST:
                return -ELOOP;
        case NODE_TRIGGER:
                info->direct_io = 1;
                return trigger_open(file->item.vm, &file->trigger);
        case NODE_RAW:
                info->keep_cache = 1;
                return open_chain(&file->item, &file->chain);
        case NODE_KEPT:
                info->keep_cache = 1;
                break;
        case NODE_INFO:
        case NODE_MAP:
                info->direct_io = 1; /* their size is not known, or not for ever */
                break;
        }
        return contents_make(&mount->tree, &file->item, &file->text, &file->length);
}

static void op_open(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *info) {
        CLEANUP(file_freep) OpenFile *file = calloc(1, sizeof *file);
        Mount *mount = mount_of(req);
        int rc;

        if (!file) {
                reply_error(req, -ENOMEM);
                return;
        }
        rc = tree_item(&mount->tree, number, &file->item);
        if (rc >= 0 && file->item.node.kind != NODE_TRIGGER && (info->flags & O_ACCMODE) != O_RDONLY)
                rc = -EROFS;
        if (rc >= 0)
                rc = fill(mount, file, info);
        if (rc < 0) {
                reply_error(req, rc);
                return;
        }
        reply_open(req, STEAL_PTR(file), info);
}

static void op_release(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *info) {
        (void) number;
        close_file_of(mount_of(req), open_file(info));
        fuse_reply_err(req, 0);
}

/* The text may be freed as soon as the kernel has the answer, by the file's release in another thread: a copy of it is
 * answered with. */
static int64_t copy_text(const OpenFile *file, void *buffer, size_t size, uint64_t offset) {
        size_t length;

        if (offset >= file->length)
                return 0;
        length = (size_t) min_u64(size, file->length - offset);
        memcpy(buffer, file->text + offset, length);
        return (int64_t) length;
}

static void read_text(fuse_req_t req, OpenFile *file, size_t size, uint64_t offset) {
        void *buffer = scratch_get(SCRATCH_ANSWER, size);
        int64_t length;

        if (!buffer)
                length = -ENOMEM;
        else if (file->trigger)
                length = trigger_read(file->trigger, buffer, size, offset);
        else
                length = copy_text(file, buffer, size, offset);
        if (length < 0)
                reply_error(req, (int) length);
        else
                fuse_reply_buf(req, buffer, (size_t) length);
}

static void op_read(fuse_req_t req, fuse_ino_t number, size_t size, off_t offset, struct fuse_file_info *info) {
        OpenFile *file = open_file(info);
        const void *bytes = NULL;
        size_t length = 0;

        (void) number;
        if (!file->chain)
                read_text(req, file, size, (uint64_t) offset);
        else if (reader_read(file->chain, &file->item, size, (uint64_t) offset, &bytes, &length) < 0)
                reply_error(req, -EIO);
        else
                fuse_reply_buf(req, bytes, length);
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
        OpenFile *file = open_file(info);
        uint64_t length = file->length;
        int64_t found;

        (void) number;
        if (offset < 0)
                found = -ENXIO;
        else if (file->chain)
                found = chain_seek(file->chain, (uint64_t) offset, whence);
        else if (file->trigger)
                found = -EINVAL; /* its length is not known: whoever asks has to read */
        else
                found = (uint64_t) offset >= length ? -ENXIO : whence == SEEK_DATA ? offset : (int64_t) length;
        if (found < 0)
                reply_error(req, (int) found);
        else
                fuse_reply_lseek(req, found);
}

static void op_opendir(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *info) {
        CLEANUP(file_freep) OpenFile *directory = calloc(1, sizeof *directory);
        int rc;

        rc = directory ? tree_item(&mount_of(req)->tree, number, &directory->item) : -ENOMEM;
        if (rc >= 0)
                rc = tree_list(&mount_of(req)->tree, &directory->item, &directory->names);
        if (rc < 0)
                reply_error(req, rc);
        else
                reply_open(req, STEAL_PTR(directory), info);
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

/* Adds one entry; 0 where it does not fit in any more. What costs something to tell the attributes of is listed without
 * them, as are "." and "..", which the kernel knows. */
static size_t add_entry(fuse_req_t req, bool plus, size_t index, const char *name, const Item *item, char *at, size_t room) {
        struct fuse_entry_param entry = { .attr = { .st_ino = node_number(item->node), .st_mode = node_type(item->node.kind) } };
        size_t length;

        if (!plus)
                length = fuse_add_direntry(req, at, room, name, &entry.attr, (off_t) index + 1);
        else {
                if (index >= 2 && item->node.kind != NODE_INFO && make_entry(mount_of(req), item, &entry) < 0)
                        entry.ino = 0;
                length = fuse_add_direntry_plus(req, at, room, name, &entry, (off_t) index + 1);
        }
        return length <= room ? length : 0;
}

static void read_directory(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *info, bool plus) {
        const OpenFile *directory = open_file(info);
        char *buffer = scratch_get(SCRATCH_ANSWER, size);
        size_t used = 0;

        if (!buffer || offset < 0) {
                reply_error(req, buffer ? -EINVAL : -ENOMEM);
                return;
        }
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
