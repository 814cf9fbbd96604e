#include "capture-case.h"

#include <errno.h>
#include <limits.h>
#include <sys/wait.h>
#include <unistd.h>

#include "capture/guardian.h"
#include "chain/chain.h"
#include "repository/capture-lock.h"
#include "repository/point.h"
#include "temporary.h"

#define UUID "8f5f0a7e-2d3c-4f0e-9a59-0d4f3f0c6b11"

static atomic_bool cancelled;

void capture_case_main(int argc, char **argv) {
        Repository *repository;
        Vm *vm;

        fake_source_register(&cancelled);
        if (argc != 6 || strcmp(argv[1], "guardian") != 0)
                return;
        if (repository_open(argv[2], 1 << 20, &repository, NULL) < 0 || vm_open(repository, argv[3], &vm, NULL) < 0)
                exit(1);
        exit(guardian_main(vm, atoi(argv[4]), atoi(argv[5])));
}

void capture_case_begin(CaptureCase *test) {
        TemporaryDirectory directory = temporary_directory();
        char repository[128], fake[128], uri[160];
        Reason reason = REASON_INIT;

        *test = (CaptureCase) { .block_size = 64 << 10 };
        memcpy(test->directory, directory.path, sizeof test->directory);
        close(directory.fd);
        snprintf(repository, sizeof repository, "%s/repository", test->directory);
        snprintf(fake, sizeof fake, "%s/vm", test->directory);
        snprintf(uri, sizeof uri, "fake://%s", fake);
        test->fake = fake_vm_map(fake);
        strcpy(test->fake->uuid, UUID);
        CHECK_INT(repository_init(repository, &reason), 0);
        CHECK_INT(repository_open(repository, 4 << 20, &test->repository, &reason), 0);
        CHECK_INT(vm_add(test->repository, "vm1", UUID, uri, NULL, &reason), 0);
        CHECK_INT(vm_open(test->repository, "vm1", &test->vm, &reason), 0);
}

void capture_case_reopen(CaptureCase *test) {
        CLEANUP(freep) char *path = strdup(repository_path(test->repository));
        Reason reason = REASON_INIT;

        vm_free(test->vm);
        repository_free(test->repository);
        CHECK_INT(repository_open(path, 4 << 20, &test->repository, &reason), 0);
        CHECK_INT(vm_open(test->repository, "vm1", &test->vm, &reason), 0);
}

void capture_case_end(CaptureCase *test) {
        CLEANUP(close_fd) int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        manifest_unref(test->newest);
        vm_free(test->vm);
        repository_free(test->repository);
        fake_vm_unmap(test->fake);
        CHECK_INT(remove_tree(root, test->directory + 1, NULL), 0);
}

static void add_warning(void *context, const char *line) {
        CaptureCase *test = context;
        size_t length = strlen(test->warnings);

        snprintf(test->warnings + length, sizeof test->warnings - length, "%s\n", line);
}

static void count_acceptance(void *context) {
        CaptureCase *test = context;

        test->accepted++;
        CHECK_INT(capture_lock_is_held(test->vm), 1);
}

static void check_progress(CaptureCase *test) {
        CLEANUP(capture_state_clear) CaptureState state = { 0 };

        CHECK_INT(capture_state_read(test->vm, &state, NULL), 0);
        CHECK_INT(state.disk_count, test->newest->disk_count);
        for (size_t i = 0; i < state.disk_count; i++)
                CHECK_INT(state.disks[i].done, state.disks[i].total);
}

/* A guardian that was left something to do goes on a little longer. */
static void await_lock(CaptureCase *test) {
        for (int tries = 0; capture_lock_is_held(test->vm) != 0; tries++) {
                CHECK(tries < 30000);
                usleep(1000);
        }
}

int capture_case_take(CaptureCase *test, CaptureWish wish) {
        char program[PATH_MAX] = "";
        const char *guardian[] = { program, "guardian", repository_path(test->repository), "vm1", NULL };
        CaptureOptions options = {
                .wish = wish,
                .codec = codec_by_name("lz4"),
                .block_size = test->block_size,
                .compare = test->compare,
                .memory = test->memory,
                .rate = test->rate,
                .top = test->top,
                .no_zero_detection = test->no_zero_detection,
                .threshold = test->threshold,
                .on_source_error = test->on_source_error,
                .guardian_argv = guardian,
                .cancel = &cancelled,
                .accepted = count_acceptance,
                .warn = add_warning,
                .context = test,
        };
        Manifest *manifest;
        int rc;

        CHECK(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
        atomic_store(&cancelled, false);
        atomic_store(&test->fake->requests, 0);
        atomic_store(&test->fake->watched, 0);
        atomic_store(&test->fake->reads, 0);
        atomic_store(&test->fake->questions, 0);
        test->warnings[0] = 0;
        test->accepted = 0;
        test->reason = REASON_INIT;
        rc = capture_run(test->vm, &options, &manifest, &test->reason);
        await_lock(test);
        if (rc == 0) {
                manifest_unref(test->newest);
                test->newest = manifest;
                check_progress(test);
        }
        return rc;
}

static size_t count_entries(CaptureCase *test, const char *path) {
        CLEANUP(strings_free) Strings names = { 0 };
        int rc = list_directory(vm_fd(test->vm), path, &names, NULL);

        CHECK(rc == 0 || rc == -ENOENT);
        return names.count;
}

static void check_disk(CaptureCase *test, const ManifestDisk *disk) {
        static unsigned char bytes[FAKE_DISK_MAX];
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        const FakeDisk *fake = &test->fake->disks[disk->name[2] - 'a'];
        Reason reason = REASON_INIT;
        uint64_t data = 0;

        CHECK_INT(chain_open(test->vm, test->newest->name, disk->name, &chain, &reason), 0);
        CHECK(!chain_damage(chain));
        CHECK_INT(chain_size(chain), fake->then_size);
        CHECK_INT(disk->size, fake->then_size);
        if (chain_read(chain, bytes, fake->then_size, 0, &reason) < 0) {
                fprintf(stderr, "%s\n", reason.text);
                exit(1);
        }
        for (uint64_t i = 0; i < fake->then_size; i++)
                if (bytes[i] != fake->then[i]) {
                        fprintf(stderr, "%s/%s: byte %" PRIu64 " is %u, not %u\n", test->newest->name, disk->name, i,
                                bytes[i], fake->then[i]);
                        exit(1);
                }
        for (uint64_t at = 0; at < disk->size;) {
                ChainExtent extent;

                CHECK_INT(chain_next_extent(chain, at, &extent, NULL), 0);
                if (extent.state == EXTENT_DATA)
                        data += extent.start + extent.length - at;
                at = extent.start + extent.length;
        }
        CHECK_INT(disk->allocated, data);
}

static void check_checkpoints(CaptureCase *test) {
        const Manifest *newest = test->newest;

        CHECK(newest->checkpoint && fake_has_checkpoint(test->fake, newest->checkpoint));
        CHECK(!newest->full_checkpoint || fake_has_checkpoint(test->fake, newest->full_checkpoint));
        CHECK_INT(fake_checkpoint_count(test->fake), newest->full_checkpoint ? 2 : 1);
}

void capture_case_check(CaptureCase *test) {
        CLEANUP(capture_state_clear) CaptureState state = { 0 };
        const Manifest *newest = test->newest;
        Reason reason = REASON_INIT;

        CHECK_INT(point_check(test->vm, newest->name, &reason), 0);
        for (size_t i = 0; i < newest->disk_count; i++)
                check_disk(test, &newest->disks[i]);
        CHECK(!test->fake->job);
        check_checkpoints(test);
        CHECK_INT(count_entries(test, "data"), count_entries(test, "points"));
        CHECK_INT(capture_state_read(test->vm, &state, &reason), 0);
        CHECK_INT(state.phase, CAPTURE_IDLE);
        CHECK_TEXT(state.last, newest->name);
}

void capture_case_check_failed(CaptureCase *test, const char *why) {
        CLEANUP(capture_state_clear) CaptureState state = { 0 };
        CLEANUP(strings_free) Strings points = { 0 };
        Reason reason = REASON_INIT;

        CHECK_INT(vm_list_points(test->vm, &points, &reason), 0);
        CHECK_INT(points.count, test->newest ? test->newest->serial : 0);
        CHECK_INT(count_entries(test, "data"), points.count);
        CHECK(!test->fake->job);
        if (test->newest)
                check_checkpoints(test);
        else
                CHECK_INT(fake_checkpoint_count(test->fake), 0);
        CHECK_INT(capture_state_read(test->vm, &state, &reason), 0);
        CHECK_INT(state.phase, CAPTURE_FAILED);
        CHECK(strstr(state.error, why));
}

void capture_case_kill(CaptureCase *test, unsigned at_request) {
        pid_t child;
        int status;

        fflush(stdout);
        test->fake->kill_at = at_request;
        child = fork();
        CHECK(child >= 0);
        if (child == 0) {
                capture_case_take(test, CAPTURE_AUTO);
                _exit(0);
        }
        CHECK_INT(waitpid(child, &status, 0), child);
        CHECK(WIFSIGNALED(status));
        test->fake->kill_at = 0;
        await_lock(test);
}
