#define FUSE_USE_VERSION 314
#include "mount/trigger.h"

#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "codec/checksum.h"
#include "log.h"
#include "mount/launcher.h"
#include "repository/capture-lock.h"
#include "repository/capture-state.h"
#include "util/bytes.h"
#include "util/clock.h"

#define WORD_MAX 32
#define LOOK_MS 250
#define ENDING_MS 2000 /* that an ended capture may take to go away */

struct TriggerFile {
        int references; /* atomic */
        SharedVm *vm;
        pthread_mutex_t lock; /* guards what follows */
        char *text;           /* as last read; NULL: not yet */
        size_t length;
        struct fuse_pollhandle *waiter; /* NULL: nobody waits for a change */
        uint64_t told;                  /* checksum of the state that the waiter knows */
        TriggerFile *next;              /* on the triggers' list; guarded by their lock, as listed is */
        bool listed;
};

/* A capture that is being started, until it is accepted or refused. */
typedef struct Start {
        uint32_t vm; /* its serial */
        struct Start *next;
} Start;

struct Triggers {
        Repository *repository;
        int stop_fd;
        pthread_mutex_t lock; /* guards what follows */
        pthread_cond_t wake;
        pthread_t watcher;
        bool watching; /* the watcher has been started */
        bool ending;
        bool look_now;      /* rather than when the time has come */
        TriggerFile *files; /* those that somebody waits for, referenced */
        Start *starts;
};

static TriggerFile *file_ref(TriggerFile *file) {
        __atomic_add_fetch(&file->references, 1, __ATOMIC_RELAXED);
        return file;
}

static void file_unref(TriggerFile *file) {
        if (__atomic_sub_fetch(&file->references, 1, __ATOMIC_ACQ_REL) > 0)
                return;
        if (file->waiter)
                fuse_pollhandle_destroy(file->waiter);
        pthread_mutex_destroy(&file->lock);
        shared_vm_unref(file->vm);
        free(file->text);
        free(file);
}

int trigger_open(SharedVm *vm, TriggerFile **ret) {
        TriggerFile *file = calloc(1, sizeof *file);

        if (!file)
                return -ENOMEM;
        file->references = 1;
        file->vm = shared_vm_ref(vm);
        pthread_mutex_init(&file->lock, NULL);
        *ret = file;
        return 0;
}

/* The handle of who waits now; it is the caller's to destroy. */
static struct fuse_pollhandle *replace_waiter(TriggerFile *file, struct fuse_pollhandle *waiter) {
        struct fuse_pollhandle *old;

        pthread_mutex_lock(&file->lock);
        old = file->waiter;
        file->waiter = waiter;
        pthread_mutex_unlock(&file->lock);
        return old;
}

TriggerFile *trigger_close(TriggerFile *file) {
        struct fuse_pollhandle *waiter = replace_waiter(file, NULL);

        if (waiter)
                fuse_pollhandle_destroy(waiter);
        file_unref(file);
        return NULL;
}

static int state_text(SharedVm *vm, char **ret, size_t *ret_length) {
        CLEANUP(capture_state_clear) CaptureState state = { 0 };
        Reason reason = REASON_INIT;
        int rc;

        rc = capture_state_read(vm->vm, &state, &reason);
        if (rc < 0) {
                log_once(vm_serial(vm->vm), "%s", reason.text);
                return rc;
        }
        return capture_state_format(&state, ret, ret_length);
}

static int take_snapshot(TriggerFile *file) {
        CLEANUP(freep) char *text = NULL;
        CLEANUP(freep) char *old = NULL;
        size_t length;
        int rc;

        rc = state_text(file->vm, &text, &length);
        if (rc < 0)
                return rc;
        pthread_mutex_lock(&file->lock);
        old = file->text;
        file->text = STEAL_PTR(text);
        file->length = length;
        pthread_mutex_unlock(&file->lock);
        return 0;
}

static bool has_read(TriggerFile *file) {
        bool read;

        pthread_mutex_lock(&file->lock);
        read = file->text != NULL;
        pthread_mutex_unlock(&file->lock);
        return read;
}

int64_t trigger_read(TriggerFile *file, void *buffer, size_t size, uint64_t offset) {
        size_t length = 0;
        int rc;

        if (offset == 0 || !has_read(file)) {
                rc = take_snapshot(file);
                if (rc < 0)
                        return rc;
        }
        pthread_mutex_lock(&file->lock);
        if (offset < file->length) {
                length = min_u64(size, file->length - offset);
                memcpy(buffer, file->text + offset, length);
        }
        pthread_mutex_unlock(&file->lock);
        return (int64_t) length;
}

/* One word, with or without a newline. */
static int parse_word(const char *bytes, size_t length, const char **ret_option) {
        static const struct {
                const char *word, *option;
        } words[] = { { "full", "--full" }, { "incremental", "--incremental" }, { "auto", NULL } };

        if (length > WORD_MAX)
                return -EINVAL;
        if (length > 0 && bytes[length - 1] == '\n')
                length--;
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
                if (strlen(words[i].word) == length && memcmp(words[i].word, bytes, length) == 0) {
                        *ret_option = words[i].option;
                        return 0;
                }
        return -EINVAL;
}

static void look_soon(Triggers *triggers) {
        pthread_mutex_lock(&triggers->lock);
        triggers->look_now = true;
        pthread_cond_signal(&triggers->wake);
        pthread_mutex_unlock(&triggers->lock);
}

/* A capture says how it ended before it gives up the VM, and whoever read that may already want the next one. Whether
 * that is so, and the VM is free now. */
static bool has_just_ended(Vm *vm) {
        const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };

        for (int i = 0; i < ENDING_MS / 10; i++) {
                CLEANUP(capture_state_clear) CaptureState state = { 0 };

                if (capture_lock_is_held(vm) == 0)
                        return true;
                if (capture_state_read(vm, &state, NULL) < 0 || state.phase == CAPTURE_RUNNING)
                        return false;
                nanosleep(&pause, NULL);
        }
        return false;
}

/* Of those who write at once, one starts a capture; the others need not wait until it runs to be told that they are late. */
static bool enter_start(Triggers *triggers, Start *start) {
        bool alone = true;

        pthread_mutex_lock(&triggers->lock);
        for (const Start *other = triggers->starts; other; other = other->next)
                alone &= other->vm != start->vm;
        if (alone) {
                start->next = triggers->starts;
                triggers->starts = start;
        }
        pthread_mutex_unlock(&triggers->lock);
        return alone;
}

static void leave_start(Triggers *triggers, const Start *start) {
        Start **at = &triggers->starts;

        pthread_mutex_lock(&triggers->lock);
        while (*at != start)
                at = &(*at)->next;
        *at = start->next;
        pthread_mutex_unlock(&triggers->lock);
}

static int start_capture(Triggers *triggers, Vm *vm, const char *option) {
        const char *path = repository_path(triggers->repository);
        Start start = { .vm = vm_serial(vm) };
        int rc;

        if (!enter_start(triggers, &start))
                return -EBUSY;
        /* A held lock is known without a process that finds out. */
        rc = capture_lock_is_held(vm) == 1 ? -EBUSY : launcher_start(path, vm_name(vm), option, triggers->stop_fd);
        if (rc == -EBUSY && has_just_ended(vm))
                rc = launcher_start(path, vm_name(vm), option, triggers->stop_fd);
        leave_start(triggers, &start);
        return rc;
}

int64_t trigger_write(Triggers *triggers, TriggerFile *file, const char *bytes, size_t length) {
        CLEANUP(vm_freep) Vm *vm = NULL;
        const char *option;
        int rc;

        rc = parse_word(bytes, length, &option);
        if (rc < 0)
                return rc;
        /* It may have been forgotten or added again since the file was opened. */
        rc = vm_open(triggers->repository, vm_name(file->vm->vm), &vm, NULL);
        if (rc < 0)
                return rc == -ENOENT ? -EROFS : rc;
        if (!vm_is_captured(vm) || vm_serial(vm) != vm_serial(file->vm->vm))
                return -EROFS;
        rc = start_capture(triggers, vm, option);
        if (rc < 0)
                return rc;
        look_soon(triggers);
        return (int64_t) length;
}

/* How the state stands to what this file has read, and its checksum. A state that cannot be read is no change. */
static bool has_changed(TriggerFile *file, uint64_t *ret_state) {
        CLEANUP(freep) char *text = NULL;
        size_t length = 0;
        bool changed;
        int rc;

        rc = state_text(file->vm, &text, &length);
        *ret_state = rc < 0 ? 0 : checksum(text, length);
        pthread_mutex_lock(&file->lock);
        changed = !file->text || (rc >= 0 && (length != file->length || memcmp(text, file->text, length) != 0));
        pthread_mutex_unlock(&file->lock);
        return changed;
}

static bool is_waited_for(TriggerFile *file) {
        bool waited;

        pthread_mutex_lock(&file->lock);
        waited = file->waiter != NULL;
        pthread_mutex_unlock(&file->lock);
        return waited;
}

/* Wakes who waits where the state is another one than when it was asked for. Whoever goes on waiting asks again. */
static void tell_change(TriggerFile *file) {
        struct fuse_pollhandle *waiter = NULL;
        uint64_t state;

        if (!is_waited_for(file))
                return;
        (void) has_changed(file, &state);
        pthread_mutex_lock(&file->lock);
        if (state != file->told)
                waiter = STEAL_PTR(file->waiter);
        pthread_mutex_unlock(&file->lock);
        if (waiter) {
                fuse_lowlevel_notify_poll(waiter);
                fuse_pollhandle_destroy(waiter);
        }
}

/* Looks at all files on the list once. Called with the lock held, which it gives up meanwhile. */
static void look(Triggers *triggers) {
        TriggerFile *files = STEAL_PTR(triggers->files), *next;

        pthread_mutex_unlock(&triggers->lock);
        for (TriggerFile *file = files; file; file = file->next)
                tell_change(file);
        pthread_mutex_lock(&triggers->lock);
        for (TriggerFile *file = files; file; file = next) {
                next = file->next;
                if (is_waited_for(file)) {
                        file->next = triggers->files;
                        triggers->files = file;
                } else {
                        file->listed = false;
                        file_unref(file);
                }
        }
}

static void *watch(void *argument) {
        Triggers *triggers = argument;

        pthread_mutex_lock(&triggers->lock);
        while (!triggers->ending) {
                struct timespec until = clock_in_ms(LOOK_MS);

                if (!triggers->files) {
                        pthread_cond_wait(&triggers->wake, &triggers->lock);
                        continue;
                }
                while (!triggers->ending && !triggers->look_now &&
                       pthread_cond_timedwait(&triggers->wake, &triggers->lock, &until) != ETIMEDOUT)
                        ;
                triggers->look_now = false;
                if (!triggers->ending)
                        look(triggers);
        }
        pthread_mutex_unlock(&triggers->lock);
        return NULL;
}

static int put_on_list(Triggers *triggers, TriggerFile *file) {
        int rc = 0;

        pthread_mutex_lock(&triggers->lock);
        if (!triggers->watching) {
                rc = -pthread_create(&triggers->watcher, NULL, watch, triggers);
                triggers->watching = rc == 0;
        }
        if (rc == 0 && !file->listed) {
                file->listed = true;
                file->next = triggers->files;
                triggers->files = file_ref(file);
                pthread_cond_signal(&triggers->wake);
        }
        pthread_mutex_unlock(&triggers->lock);
        return rc;
}

int trigger_poll(Triggers *triggers, TriggerFile *file, struct fuse_pollhandle *handle, unsigned *ret_events) {
        uint64_t state;

        *ret_events = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;
        if (has_changed(file, &state))
                *ret_events |= POLLPRI | POLLERR;
        if (!handle)
                return 0;
        pthread_mutex_lock(&file->lock);
        file->told = state;
        pthread_mutex_unlock(&file->lock);
        handle = replace_waiter(file, handle);
        if (handle)
                fuse_pollhandle_destroy(handle);
        return put_on_list(triggers, file);
}

int triggers_new(Repository *repository, int stop_fd, Triggers **ret) {
        Triggers *triggers = calloc(1, sizeof *triggers);

        if (!triggers)
                return -ENOMEM;
        triggers->repository = repository;
        triggers->stop_fd = stop_fd;
        pthread_mutex_init(&triggers->lock, NULL);
        clock_condition_init(&triggers->wake);
        *ret = triggers;
        return 0;
}

Triggers *triggers_free(Triggers *triggers) {
        TriggerFile *next;

        pthread_mutex_lock(&triggers->lock);
        triggers->ending = true;
        pthread_cond_signal(&triggers->wake);
        pthread_mutex_unlock(&triggers->lock);
        if (triggers->watching)
                pthread_join(triggers->watcher, NULL);
        for (TriggerFile *file = triggers->files; file; file = next) {
                next = file->next;
                file_unref(file);
        }
        pthread_cond_destroy(&triggers->wake);
        pthread_mutex_destroy(&triggers->lock);
        free(triggers);
        return NULL;
}
