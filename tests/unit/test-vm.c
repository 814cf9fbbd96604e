#include "repository/vm.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "repository/capture-lock.h"
#include "repository-fixture.h"
#include "util/file.h"

static void reopen(Fixture *f) {
        Reason reason = REASON_INIT;

        f->vm = vm_free(f->vm);
        CHECK_INT(vm_open(f->repository, "vm1", &f->vm, &reason), 0);
}

static void names_that_could_lead_elsewhere_are_refused(void) {
        static const char *const good[] = { "vm1", "a", "VM with spaces", "ü", "a.b", "a..", "x-y:z\\" };
        static const char *const bad[] = { "", ".", "..", ".a", "-a", "a/b", "/a", "a/", "a\nb", "a\x7f", "\xff", "\xc3" };
        char longest[VM_NAME_MAX + 2];

        for (size_t i = 0; i < sizeof good / sizeof *good; i++)
                CHECK(vm_name_is_valid(good[i]));
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
                CHECK(!vm_name_is_valid(bad[i]));
        memset(longest, 'a', sizeof longest);
        longest[VM_NAME_MAX + 1] = 0;
        CHECK(!vm_name_is_valid(longest));
        longest[VM_NAME_MAX] = 0;
        CHECK(vm_name_is_valid(longest));
}

static void a_vm_is_what_was_registered(void) {
        WITH_FIXTURE(f);
        Reason reason = REASON_INIT;
        Vm *none = NULL;

        CHECK_TEXT(vm_name(f.vm), "vm1");
        CHECK_TEXT(vm_uuid(f.vm), FIXTURE_UUID);
        CHECK_TEXT(vm_source(f.vm), "qemu:///system");
        CHECK_INT(vm_serial(f.vm), 1);
        CHECK(!vm_damage(f.vm));
        CHECK(vm_repository(f.vm) == f.repository);
        CHECK_INT(vm_open(f.repository, "vm2", &none, &reason), -ENOENT);
        CHECK_SAYS(reason, "there is no VM vm2");
        CHECK_INT(vm_open(f.repository, "../vms/vm1", &none, &reason), -ENOENT);
        CHECK_INT(create_file(f.directory.fd, "vms/file", "", 0, &reason), 0);
        CHECK_INT(vm_open(f.repository, "file", &none, &reason), -ENOENT);
        CHECK(!none);
}

static void the_choice_of_disks_is_kept(void) {
        WITH_FIXTURE(f);
        CLEANUP(vm_freep) Vm *other = NULL;
        char *included[] = { (char *) "vda", (char *) "sdb" }, *excluded[] = { (char *) "vdc" }, *bad[] = { (char *) "a/b" };
        const VmDisks disks = { .include = { included, 2 }, .exclude = { excluded, 1 } };
        Reason reason = REASON_INIT;

        CHECK_INT(vm_include(f.vm)->count, 0);
        CHECK_INT(vm_exclude(f.vm)->count, 0);
        CHECK_INT(vm_add(f.repository, "vm2", OTHER_UUID, "x", &(VmDisks) { .exclude = { bad, 1 } }, &reason), -EINVAL);
        CHECK_SAYS(reason, "cannot be a disk's name");
        CHECK_INT(vm_add(f.repository, "vm2", OTHER_UUID, "x", &disks, &reason), 0);
        CHECK_INT(vm_open(f.repository, "vm2", &other, &reason), 0);
        CHECK_INT(vm_include(other)->count, 2);
        CHECK_TEXT(vm_include(other)->items[1], "sdb");
        CHECK_INT(vm_exclude(other)->count, 1);
        CHECK_TEXT(vm_exclude(other)->items[0], "vdc");
}

static void names_and_uuids_are_registered_once(void) {
        WITH_FIXTURE(f);
        CLEANUP(strings_free) Strings names = { 0 };
        Reason reason = REASON_INIT;

        CHECK_INT(vm_add(f.repository, "vm1", FIXTURE_UUID, "x", NULL, &reason), -EEXIST);
        CHECK_SAYS(reason, "cannot add vm1: it is registered already");
        CHECK_INT(vm_add(f.repository, "vm1", OTHER_UUID, "x", NULL, &reason), -EEXIST);
        CHECK_SAYS(reason, "another VM of that name");
        CHECK_INT(vm_add(f.repository, "vm2", FIXTURE_UUID, "x", NULL, &reason), -EEXIST);
        CHECK_SAYS(reason, "is registered as vm1");
        CHECK_INT(vm_add(f.repository, "vm2", "none", "x", NULL, &reason), -EINVAL);
        CHECK_INT(vm_add(f.repository, "../vm2", OTHER_UUID, "x", NULL, &reason), -EINVAL);
        CHECK_INT(vm_add(f.repository, "vm2", OTHER_UUID, "", NULL, &reason), -EINVAL);
        CHECK_INT(repository_list_vms(f.repository, &names, &reason), 0);
        CHECK_INT(names.count, 1);
}

static void a_forgotten_vm_keeps_its_points_and_comes_back(void) {
        WITH_FIXTURE(f);
        CLEANUP(strings_free) Strings points = { 0 };
        Reason reason = REASON_INIT;

        commit_point(&f, "2026-11-20T010203Z", NULL, 1);
        CHECK_INT(vm_forget(f.vm, false, &reason), 0);
        reopen(&f);
        CHECK(!vm_source(f.vm));
        CHECK_TEXT(vm_uuid(f.vm), FIXTURE_UUID);
        CHECK_INT(vm_list_points(f.vm, &points, &reason), 0);
        CHECK_INT(points.count, 1);
        CHECK_INT(vm_add(f.repository, "vm1", OTHER_UUID, "x", NULL, &reason), -EEXIST);
        CHECK_SAYS(reason, "has points of another VM");
        CHECK_INT(vm_add(f.repository, "vm1", FIXTURE_UUID, "qemu:///session", NULL, &reason), 0);
        reopen(&f);
        CHECK_TEXT(vm_source(f.vm), "qemu:///session");
        CHECK_INT(vm_serial(f.vm), 1);
}

static void forgetting_with_points_leaves_nothing(void) {
        WITH_FIXTURE(f);
        CLEANUP(strings_free) Strings names = { 0 };
        Reason reason = REASON_INIT;
        struct stat st;

        commit_point(&f, "2026-11-20T010203Z", NULL, 1);
        commit_point(&f, "2026-11-20T010203Z-02", "2026-11-20T010203Z", 2);
        CHECK_INT(make_directory(vm_fd(f.vm), "data/x", &reason), 0);
        CHECK_INT(vm_forget(f.vm, true, &reason), 0);
        CHECK_INT(repository_list_vms(f.repository, &names, &reason), 0);
        CHECK_INT(names.count, 0);
        CHECK_INT(fstatat(f.directory.fd, "vms/.gone", &st, 0), -1);
        /* A serial is never given again. */
        CHECK_INT(vm_add(f.repository, "vm1", OTHER_UUID, "x", NULL, &reason), 0);
        reopen(&f);
        CHECK_INT(vm_serial(f.vm), 2);
}

static void another_vm_takes_a_forgotten_name_without_points(void) {
        WITH_FIXTURE(f);
        Reason reason = REASON_INIT;

        CHECK_INT(vm_forget(f.vm, false, &reason), 0);
        CHECK_INT(vm_add(f.repository, "vm1", OTHER_UUID, "x", NULL, &reason), 0);
        reopen(&f);
        CHECK_TEXT(vm_uuid(f.vm), OTHER_UUID);
        CHECK_INT(vm_serial(f.vm), 2);
}

static void a_damaged_registration_is_told_and_repaired_by_adding_again(void) {
        WITH_FIXTURE(f);
        CLEANUP(strings_free) Strings points = { 0 };
        Reason reason = REASON_INIT;

        commit_point(&f, "2026-11-20T010203Z", NULL, 1);
        CHECK_INT(replace_file(vm_fd(f.vm), "vm.json", "{", 1, &reason), 0);
        reopen(&f);
        CHECK(strstr(vm_damage(f.vm), "vm.json is damaged"));
        CHECK_TEXT(vm_uuid(f.vm), "");
        CHECK(!vm_source(f.vm));
        CHECK(vm_serial(f.vm) > SERIAL_MAX && vm_serial(f.vm) < 1u << SERIAL_BITS);
        CHECK_INT(vm_serial(f.vm), serial_stand_in("vm1"));
        CHECK_INT(vm_list_points(f.vm, &points, &reason), 0);
        CHECK_INT(points.count, 1);
        CHECK_INT(vm_forget(f.vm, false, &reason), -EBADMSG);
        CHECK_INT(vm_add(f.repository, "vm1", OTHER_UUID, "x", NULL, &reason), -EEXIST);
        CHECK_INT(vm_add(f.repository, "vm1", FIXTURE_UUID, "x", NULL, &reason), 0);
        reopen(&f);
        CHECK(!vm_damage(f.vm));
        CHECK_INT(vm_serial(f.vm), 1);
}

static void what_a_crash_left_blocks_nothing(void) {
        WITH_FIXTURE(f);
        CLEANUP(strings_free) Strings names = { 0 };
        Reason reason = REASON_INIT;

        CHECK_INT(make_directory(f.directory.fd, "vms/.new", &reason), 0);
        CHECK_INT(make_directory(f.directory.fd, "vms/.new/points", &reason), 0);
        CHECK_INT(create_file(f.directory.fd, "serials/2", "vm2", 3, &reason), 0);
        CHECK_INT(vm_add(f.repository, "vm2", OTHER_UUID, "x", NULL, &reason), 0);
        CHECK_INT(repository_list_vms(f.repository, &names, &reason), 0);
        CHECK_INT(names.count, 2);
}

/* Wherever it is killed, what is listed is whole and the next one works. */
static void a_killed_add_blocks_nothing(void) {
        WITH_FIXTURE(f);
        CLEANUP(strings_free) Strings names = { 0 };
        Reason reason = REASON_INIT;

        for (int round = 0; round < 40; round++) {
                char name[32], uuid[40];
                int status;
                pid_t child = fork();

                CHECK(child >= 0);
                if (child == 0)
                        for (int i = 0;; i++) {
                                snprintf(name, sizeof name, "child%d-%d", round, i);
                                snprintf(uuid, sizeof uuid, "0b7d4b0e-0000-4000-9%03d-%012d", round, i);
                                if (vm_add(f.repository, name, uuid, "x", NULL, NULL) < 0)
                                        _exit(1);
                        }
                usleep((useconds_t) (round * 97 % 1500));
                CHECK_INT(kill(child, SIGKILL), 0);
                CHECK_INT(waitpid(child, &status, 0), child);
                CHECK(WIFSIGNALED(status));
                snprintf(name, sizeof name, "parent%d", round);
                snprintf(uuid, sizeof uuid, "0b7d4b0e-0000-4000-a000-%012d", round);
                CHECK_INT(vm_add(f.repository, name, uuid, "x", NULL, &reason), 0);
        }
        CHECK_INT(repository_list_vms(f.repository, &names, &reason), 0);
        CHECK(names.count > 40);
        for (size_t i = 0; i < names.count; i++) {
                CLEANUP(vm_freep) Vm *vm = NULL;

                CHECK_INT(vm_open(f.repository, names.items[i], &vm, &reason), 0);
                CHECK(!vm_damage(vm));
        }
}

static void concurrent_adds_get_serials_of_their_own(void) {
        WITH_FIXTURE(f);
        enum { ADDERS = 10 };
        bool taken[ADDERS + 2] = { 0 };
        int same = 0;

        for (int i = 0; i < ADDERS; i++) {
                pid_t child = fork();

                CHECK(child >= 0);
                if (child == 0) {
                        char name[16], uuid[40];
                        int rc;

                        snprintf(name, sizeof name, "new%d", i);
                        snprintf(uuid, sizeof uuid, "0b7d4b0e-0000-4000-9000-%012d", i);
                        rc = vm_add(f.repository, name, uuid, "x", NULL, NULL);
                        if (rc == 0 && vm_add(f.repository, "one", "0b7d4b0e-0000-4000-a000-000000000000", "x", NULL,
                                              NULL) == 0)
                                _exit(7);
                        _exit(rc == 0 ? 0 : 1);
                }
        }
        for (int i = 0; i < ADDERS; i++) {
                int status;

                CHECK(wait(&status) > 0);
                CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 7));
                same += WEXITSTATUS(status) == 7;
        }
        CHECK_INT(same, 1);
        for (int i = 0; i < ADDERS; i++) {
                CLEANUP(vm_freep) Vm *vm = NULL;
                char name[16];

                snprintf(name, sizeof name, "new%d", i);
                CHECK_INT(vm_open(f.repository, name, &vm, NULL), 0);
                CHECK(vm_serial(vm) >= 2 && vm_serial(vm) <= ADDERS + 2);
                CHECK(!taken[vm_serial(vm) - 1]);
                taken[vm_serial(vm) - 1] = true;
        }
}

static void points_are_listed_by_age(void) {
        static const char *const names[] = { "2026-11-20T010203Z", "2026-11-20T010203Z-02", "2026-11-20T010203Z-10",
                                             "2026-11-20T010204Z" };
        WITH_FIXTURE(f);
        CLEANUP(strings_free) Strings points = { 0 };

        for (size_t i = 4; i-- > 0;)
                commit_point(&f, names[i], NULL, (uint32_t) i + 1);
        CHECK_INT(create_file(vm_fd(f.vm), "points/notes.txt", "", 0, NULL), 0);
        CHECK_INT(create_file(vm_fd(f.vm), "points/x.json", "", 0, NULL), 0);
        CHECK_INT(create_file(vm_fd(f.vm), "points/.2026-11-20T010205Z.json", "", 0, NULL), 0);
        CHECK_INT(vm_list_points(f.vm, &points, NULL), 0);
        CHECK_INT(points.count, 4);
        for (size_t i = 0; i < 4; i++)
                CHECK_TEXT(points.items[i], names[i]);
}

int main(void) {
        RUN(names_that_could_lead_elsewhere_are_refused);
        RUN(a_vm_is_what_was_registered);
        RUN(the_choice_of_disks_is_kept);
        RUN(names_and_uuids_are_registered_once);
        RUN(a_forgotten_vm_keeps_its_points_and_comes_back);
        RUN(forgetting_with_points_leaves_nothing);
        RUN(another_vm_takes_a_forgotten_name_without_points);
        RUN(a_damaged_registration_is_told_and_repaired_by_adding_again);
        RUN(what_a_crash_left_blocks_nothing);
        RUN(a_killed_add_blocks_nothing);
        RUN(concurrent_adds_get_serials_of_their_own);
        RUN(points_are_listed_by_age);
        return unit_result();
}
