/* fs/mount/open-file.h - what is behind a descriptor that somebody has open in the mount, file or directory.
 *
 * Threads: a file is read by any number at once; the list has a lock, taken to open and to close only. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "chain/chain-view.h"
#include "mount/prefetch.h"
#include "mount/tree.h"
#include "mount/trigger.h"

typedef struct OpenFile OpenFile;
struct OpenFile {
        Item item;
        ChainView *view;           /* images */
        bool direct;               /* the kernel reads it past its page cache */
        Prefetch *prefetch;        /* where it is read directly; or NULL */
        TriggerFile *trigger;      /* NODE_TRIGGER */
        Strings names;             /* directories: as they were when it was opened */
        Layer *kept;               /* NODE_KEPT */
        char *text;                /* the others */
        size_t length;
        OpenFile *next, *previous; /* guarded by the list's lock */
};

/* Opens the disk, makes the text or lists the names. What goes wrong is logged. -ELOOP for a symbolic link. */
int open_file_new(Tree *tree, uint64_t number, OpenFile **ret);
OpenFile *open_file_free(OpenFile *file); /* always NULL */
DEFINE_CLEANUP(OpenFile, open_file_free)

/* What of the text, of the kept file's or of the trigger's, lies in the range is copied: the length, or a negative errno. */
int64_t open_file_copy(OpenFile *file, void *buffer, size_t size, uint64_t offset);

/* lseek(2) with SEEK_DATA or SEEK_HOLE. */
int64_t open_file_seek(OpenFile *file, uint64_t offset, int whence);

/* All that are open in a mount. */
typedef struct OpenFiles {
        pthread_mutex_t lock;
        OpenFile *first;
        atomic_long count; /* without directories */
} OpenFiles;
#define OPEN_FILES_INIT { .lock = PTHREAD_MUTEX_INITIALIZER }

void open_files_add(OpenFiles *files, OpenFile *file); /* takes it over */
void open_files_close(OpenFiles *files, OpenFile *file);

/* Closes what was open when the connection ended: the kernel does not. No request runs any more. */
void open_files_close_all(OpenFiles *files);
