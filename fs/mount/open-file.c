#include "mount/open-file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "mount/contents.h"
#include "util/bytes.h"

OpenFile *open_file_free(OpenFile *file) {
        if (file->prefetch)
                prefetch_free(file->prefetch);
        if (file->view)
                chain_view_free(file->view);
        layer_unref(file->kept);
        if (file->trigger)
                trigger_close(file->trigger);
        item_clear(&file->item);
        strings_free(&file->names);
        free(file->text);
        free(file);
        return NULL;
}

static int open_kept(const Item *item, Layer **ret) {
        Reason reason = REASON_INIT;
        int rc = manifest_open_file(item->vm->vm, item->point->manifest, item_kept(item), ret, &reason);

        if (rc < 0)
                log_once(node_number(item->node), "%s", reason.text);
        return rc;
}

static int fill(Tree *tree, OpenFile *file) {
        switch (file->item.node.kind) {
        case NODE_ROOT:
        case NODE_VM:
        case NODE_POINT:
                return tree_list(tree, &file->item, &file->names);
        case NODE_LATEST:
                return -ELOOP;
        case NODE_TRIGGER:
                return trigger_open(file->item.vm, &file->trigger);
        case NODE_RAW:
        case NODE_PARTITION:
                return item_open_view(&file->item, &file->view);
        case NODE_KEPT:
                return open_kept(&file->item, &file->kept);
        case NODE_INFO:
        case NODE_MAP:
        case NODE_CHANGES:
                break;
        }
        return contents_make(tree, &file->item, &file->text, &file->length);
}

int open_file_new(Tree *tree, uint64_t number, OpenFile **ret) {
        CLEANUP(open_file_freep) OpenFile *file = calloc(1, sizeof *file);
        int rc;

        if (!file)
                return -ENOMEM;
        rc = tree_item(tree, number, &file->item);
        if (rc >= 0)
                rc = fill(tree, file);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(file);
        return 0;
}

/* A copy, and not the text itself: it may be freed as soon as the kernel has the answer, by the file's release in another
 * thread. */
int64_t open_file_copy(OpenFile *file, void *buffer, size_t size, uint64_t offset) {
        uint64_t end = file->kept ? layer_disk_size(file->kept) : file->length;
        Reason reason = REASON_INIT;
        size_t length;
        int rc;

        if (file->trigger)
                return trigger_read(file->trigger, buffer, size, offset);
        if (offset >= end)
                return 0;
        length = (size_t) min_u64(size, end - offset);
        if (file->kept) {
                rc = layer_read_filled(file->kept, buffer, length, offset, &reason);
                if (rc < 0)
                        log_once(node_number(file->item.node), "%s", reason.text);
                return rc < 0 ? rc : (int64_t) length;
        }
        memcpy(buffer, file->text + offset, length);
        return (int64_t) length;
}

int64_t open_file_seek(OpenFile *file, uint64_t offset, int whence) {
        uint64_t end;

        if (file->view)
                return chain_view_seek(file->view, offset, whence);
        if (file->trigger)
                return -EINVAL; /* its length is not known: whoever asks has to read */
        end = file->kept ? layer_disk_size(file->kept) : file->length;
        if (offset >= end)
                return -ENXIO;
        return (int64_t) (whence == SEEK_DATA ? offset : end);
}

static bool is_directory(const OpenFile *file) {
        return node_type(file->item.node.kind) == S_IFDIR;
}

void open_files_add(OpenFiles *files, OpenFile *file) {
        atomic_fetch_add(&files->count, !is_directory(file));
        pthread_mutex_lock(&files->lock);
        file->next = files->first;
        if (file->next)
                file->next->previous = file;
        files->first = file;
        pthread_mutex_unlock(&files->lock);
}

void open_files_close(OpenFiles *files, OpenFile *file) {
        pthread_mutex_lock(&files->lock);
        if (file->next)
                file->next->previous = file->previous;
        if (file->previous)
                file->previous->next = file->next;
        else
                files->first = file->next;
        pthread_mutex_unlock(&files->lock);
        atomic_fetch_sub(&files->count, !is_directory(file));
        open_file_free(file);
}

void open_files_close_all(OpenFiles *files) {
        while (files->first)
                open_files_close(files, files->first);
}
