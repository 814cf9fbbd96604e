/* tests/bench/make-many.c - a repository for list-speed: one VM with many points, and many VMs without any.
 *
 *     make-many REPO POINTS VMS
 *
 * The points have manifests and no layers, which listings do not open. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "points.h"
#include "repository/registration.h"
#include "repository/repository.h"
#include "util/file.h"

#define DISK_SIZE (8ull << 30)

static void make_vm(Repository *repository, unsigned number) {
        Registration registration = { .serial = number, .source = (char *) "qemu:///system" };
        char path[64], name[32];
        Reason reason = REASON_INIT;

        snprintf(registration.uuid, sizeof registration.uuid, "00000000-0000-4000-8000-%012u", number);
        snprintf(name, sizeof name, "vm%05u", number);
        snprintf(path, sizeof path, "vms/%s", name);
        (void) mkdirat(repository_fd(repository), path, 0700);
        snprintf(path, sizeof path, "vms/%s/points", name);
        (void) mkdirat(repository_fd(repository), path, 0700);
        snprintf(path, sizeof path, "vms/%s/" REGISTRATION_FILE, name);
        points_check(registration_write(repository_fd(repository), path, name, &registration, &reason), &reason);
        snprintf(path, sizeof path, "serials/%u", number);
        points_check(create_file(repository_fd(repository), path, name, strlen(name), &reason), &reason);
}

int main(int argc, char **argv) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(vm_freep) Vm *vm = NULL;
        char name[POINT_NAME_MAX] = "";
        Reason reason = REASON_INIT;
        unsigned points = argc == 4 ? (unsigned) strtoul(argv[2], NULL, 10) : 0;
        unsigned vms = argc == 4 ? (unsigned) strtoul(argv[3], NULL, 10) : 0;

        if (argc != 4) {
                fputs("usage: make-many REPO POINTS VMS\n", stderr);
                return 2;
        }
        points_check(repository_init(argv[1], &reason), &reason);
        points_check(repository_open(argv[1], REPOSITORY_CACHE_DEFAULT, &repository, &reason), &reason);
        points_check(vm_add(repository, "many", "00000000-0000-4000-8000-ffffffffffff", "qemu:///system", NULL, &reason),
                     &reason);
        points_check(vm_open(repository, "many", &vm, &reason), &reason);
        for (unsigned i = 0; i < points; i++)
                make_point(vm, i, DISK_SIZE, NULL, name);
        for (unsigned i = 0; i < vms; i++)
                make_vm(repository, i + 2);
        return 0;
}
