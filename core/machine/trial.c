#include "machine/trial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/console.h"
#include "machine/definition.h"
#include "machine/kept-files.h"
#include "machine/origin.h"
#include "machine/overlay.h"
#include "machine/place.h"
#include "machine/point-mount.h"
#include "machine/recovery-note.h"
#include "repository/points-lock.h"
#include "util/clock.h"
#include "util/directory.h"
#include "util/text.h"

#define DEFAULT_PLACE "/var/tmp"
#define PREFIX "virtbackupfs-test-"
#define LISTEN_MS 200
#define AGENT_EVERY_MS 1000
#define AGENT_PATIENCE_MS 2000

typedef struct Trial {
        const TrialWish *wish;
        Origin origin;
        Hypervisor *hypervisor;
        char *directory;  /* of this test; NULL: not made yet */
        char *mountpoint;
        char *name;
        char uuid[UUID_STR_LEN];
        int lock_fd;
        int points_fd; /* of the lock that keeps the point; -1: none is to be had */
        bool runs;
        KeptFiles kept;
        MachineDisk *disks;
        Console *console;
} Trial;

/* ---- the place ---- */

/* Not this process's descriptor: each user of the directory has its own. */
static int lock(const char *directory, int *ret, Reason *reterr) {
        CLEANUP(close_fd) int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

        if (fd < 0)
                return fail_errno(reterr, -errno, "cannot open %s", directory);
        return recovery_note_lock(fd, ret, reterr);
}

static void take_away(const char *base, const char *name) {
        CLEANUP(freep) char *mountpoint = NULL;
        CLEANUP(close_fd) int fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (fd < 0 || text_format(&mountpoint, "%s/%s/mnt", base, name) < 0)
                return;
        if (point_mount_end(mountpoint, NULL) == 0)
                (void) remove_tree(fd, name, NULL);
}

typedef struct Search {
        const Trial *trial;
        const char *base;
} Search;

/* What a test of this user left whose process is gone. */
static int look_at_leftover(void *context, const char *name) {
        const Search *search = context;
        CLEANUP(freep) char *path = NULL, *line = NULL;
        CLEANUP(close_fd) int lock_fd = -1;
        struct stat st;

        if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 || text_format(&path, "%s/%s", search->base, name) < 0 ||
            lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || lock(path, &lock_fd, NULL) < 0)
                return 0;
        take_away(search->base, name);
        if (text_format(&line, "%s, which a test left that was killed, is taken away", path) >= 0)
                search->trial->wish->tell(search->trial->wish->context, line);
        return 0;
}

static int make_directory_of_own(Trial *trial, const char *base, Reason *reterr) {
        const Search search = { trial, base };
        CLEANUP(close_fd) int fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CLEANUP(freep) char *path = NULL;
        mode_t mode = hypervisor_uid(trial->hypervisor) == geteuid() ? 0700 : 0711;

        if (fd < 0)
                return fail_errno(reterr, -errno, "directory %s", base);
        (void) scan_directory(fd, ".", look_at_leftover, (void *) &search, NULL);
        if (text_format(&path, "%s/" PREFIX "XXXXXX", base) < 0)
                return fail_oom(reterr);
        if (!mkdtemp(path))
                return fail_errno(reterr, -errno, "cannot make a directory in %s", base);
        trial->directory = STEAL_PTR(path);
        if (text_format(&trial->mountpoint, "%s/mnt", trial->directory) < 0 ||
            text_format(&trial->name, "%s-test-%s", trial->origin.name, trial->directory + strlen(trial->directory) - 6) < 0)
                return fail_oom(reterr);
        if (chmod(trial->directory, mode) < 0 || mkdir(trial->mountpoint, mode) < 0)
                return fail_errno(reterr, -errno, "cannot make %s", trial->mountpoint);
        return lock(trial->directory, &trial->lock_fd, reterr);
}

static int find_place(Trial *trial, Reason *reterr) {
        CLEANUP(freep) char *base = NULL;
        int rc = place_resolve(trial->hypervisor, trial->wish->place ?: DEFAULT_PLACE, &base, reterr);

        return rc == 0 ? make_directory_of_own(trial, base, reterr) : rc;
}

/* The VM first, which has all else in use. */
static void trial_clear(Trial *trial) {
        Reason reason;
        int rc = 0;

        if (trial->runs)
                rc = hypervisor_destroy(trial->hypervisor, trial->uuid, &reason);
        kept_files_remove(&trial->kept.made);
        kept_files_clear(&trial->kept);
        if (trial->console)
                trial->console = console_close(trial->console);
        if (rc == 0 && trial->directory) {
                char *slash = strrchr(trial->directory, '/');

                *slash = 0;
                take_away(*trial->directory ? trial->directory : "/", slash + 1);
        } else if (rc < 0)
                trial->wish->warn(trial->wish->context, reason.text);
        for (size_t i = 0; trial->disks && i < trial->origin.manifest->disk_count; i++) {
                free((char *) trial->disks[i].path);
                free((char *) trial->disks[i].backing);
        }
        free(trial->disks);
        free(trial->directory);
        free(trial->mountpoint);
        free(trial->name);
        origin_clear(&trial->origin);
        if (trial->hypervisor)
                trial->hypervisor = hypervisor_free(trial->hypervisor);
        close_fd(&trial->lock_fd);
        close_fd(&trial->points_fd);
}

/* ---- the VM ---- */

static int mount_point(const Trial *trial, Reason *reterr) {
        const PointMountWish wish = {
                .program = trial->wish->program,
                .repository = repository_path(vm_repository(trial->origin.vm)),
                .mountpoint = trial->mountpoint,
                .held_by = trial->name,
                .hypervisor = trial->hypervisor,
        };

        return point_mount_start(&wish, trial->wish->cancel, reterr);
}

static int make_disks(Trial *trial, Reason *reterr) {
        const Manifest *manifest = trial->origin.manifest;

        trial->disks = calloc(manifest->disk_count + 1, sizeof *trial->disks);
        if (!trial->disks)
                return fail_oom(reterr);
        for (size_t i = 0; i < manifest->disk_count; i++) {
                const ManifestDisk *disk = &manifest->disks[i];
                char *path = NULL, *backing = NULL;
                int rc;

                if (text_format(&path, "%s/%s.qcow2", trial->directory, disk->name) < 0)
                        return fail_oom(reterr);
                trial->disks[i] = (MachineDisk) { .name = disk->name, .path = path, .format = "qcow2" };
                if (text_format(&backing, "%s/%s/%s/%s.raw", trial->mountpoint, vm_name(trial->origin.vm), manifest->name,
                                disk->name) < 0)
                        return fail_oom(reterr);
                trial->disks[i].backing = backing;
                rc = overlay_make(path, backing, disk->size, trial->wish->cancel, reterr);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static void warn(const Trial *trial, const char *line) {
        origin_say(trial->wish->warn, trial->wish->context, trial->name, line);
}

static int start(Trial *trial, const char *console, const char *agent, Reason *reterr) {
        CLEANUP(freep) char *definition = NULL, *said = NULL;
        CLEANUP(strings_free) Strings notes = { 0 };
        const KeptWish kept = {
                .vm = trial->origin.vm, .manifest = trial->origin.manifest, .definition = trial->origin.definition,
                .directory = trial->directory, .name = trial->name, .uuid = trial->uuid, .hypervisor = trial->hypervisor,
        };
        DefinitionWish wish = {
                .name = trial->name, .uuid = trial->uuid, .disks = trial->disks,
                .disk_count = trial->origin.manifest->disk_count, .console = console, .agent = agent, .isolated = true,
                .emulated = !hypervisor_has_kvm(trial->hypervisor),
        };
        int rc;

        rc = kept_files_write(&kept, &trial->kept, &said, reterr);
        if (rc < 0)
                return rc;
        if (said)
                warn(trial, said);
        wish.files = trial->kept.files;
        wish.file_count = trial->kept.count;
        rc = definition_make(trial->origin.definition, &wish, &definition, &notes, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < notes.count; i++)
                warn(trial, notes.items[i]);
        rc = hypervisor_run(trial->hypervisor, definition, reterr);
        trial->runs = rc == 0;
        return rc;
}

static int boot(Trial *trial, Reason *reterr) {
        CLEANUP(freep) char *console = NULL, *agent = NULL;
        uuid_t uuid;
        int rc;

        uuid_generate(uuid);
        uuid_unparse_lower(uuid, trial->uuid);
        if (text_format(&console, "%s/console", trial->directory) < 0 ||
            text_format(&agent, "%s/agent", trial->directory) < 0)
                return fail_oom(reterr);
        rc = mount_point(trial, reterr);
        if (rc == 0)
                rc = make_disks(trial, reterr);
        if (rc == 0)
                rc = console_open(console, &trial->console, reterr);
        return rc == 0 ? start(trial, console, agent, reterr) : rc;
}

/* ---- what it does ---- */

static void __attribute__((format(printf, 3, 4))) judge(TrialResult *result, bool booted, const char *format, ...) {
        va_list args;

        result->booted = booted;
        va_start(args, format);
        vsnprintf(result->words, sizeof result->words, format, args);
        va_end(args);
}

/* 1: judged. */
static int look(Trial *trial, uint64_t passed_ms, bool ask, TrialResult *result, Reason *reterr) {
        const char *until = trial->wish->until;
        unsigned seconds = (unsigned) (passed_ms / 1000);
        MachineState state;
        const char *ends;
        char last[200];
        int rc;

        if (until && console_said(trial->console, until)) {
                judge(result, true, "its console said \"%.100s\" after %u s", until, seconds);
                return 1;
        }
        if (!until && ask &&
            hypervisor_ask_agent(trial->hypervisor, trial->uuid, AGENT_PATIENCE_MS, trial->wish->cancel, NULL) == 0) {
                judge(result, true, "its guest agent answered after %u s", seconds);
                return 1;
        }
        rc = hypervisor_state(trial->hypervisor, trial->uuid, &state, reterr);
        if (rc < 0)
                return rc;
        console_last_line(trial->console, last, sizeof last);
        ends = *last ? "; its console ends with: " : "";
        if (state == MACHINE_GONE || state == MACHINE_OFF)
                judge(result, false, "it ended by itself after %u s%s%s", seconds, ends, last);
        else if (state == MACHINE_STOPPED)
                judge(result, false, "it stands still after %u s: reading or writing a disk has failed", seconds);
        else if (passed_ms >= trial->wish->timeout * UINT64_C(1000))
                judge(result, false, until ? "its console has not said that within %u s%s%s"
                                           : "its guest agent has not answered within %u s%s%s",
                      seconds, ends, last);
        else
                return 0;
        return 1;
}

static int watch(Trial *trial, TrialResult *result, Reason *reterr) {
        uint64_t began = clock_now_ms(), asked = began;
        int rc = 0;

        while (rc == 0) {
                uint64_t now;

                if (atomic_load(trial->wish->cancel))
                        return fail(reterr, -ECANCELED, "interrupted: nothing is left of the test");
                console_listen(trial->console, LISTEN_MS);
                now = clock_now_ms();
                rc = look(trial, now - began, now - asked >= AGENT_EVERY_MS, result, reterr);
                if (now - asked >= AGENT_EVERY_MS)
                        asked = clock_now_ms();
        }
        return rc < 0 ? rc : 0;
}

int trial_run(const TrialWish *wish, TrialResult *ret, Reason *reterr) {
        CLEANUP(trial_clear) Trial trial = { .wish = wish, .lock_fd = -1, .points_fd = -1 };
        int rc;

        rc = points_lock_share(wish->vm, &trial.points_fd, reterr);
        if (rc == 0)
                rc = origin_read(wish->vm, wish->point, &trial.origin, reterr);
        if (rc == 0)
                rc = origin_open_hypervisor(&trial.origin, wish->uri, &trial.hypervisor, reterr);
        if (rc == 0)
                rc = find_place(&trial, reterr);
        if (rc == 0)
                rc = boot(&trial, reterr);
        return rc == 0 ? watch(&trial, ret, reterr) : rc;
}
