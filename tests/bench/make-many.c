/* tests/bench/make-many.c - a repository for list-speed: one VM with many points, and many VMs without any.
 *
 *     make-many REPO POINTS VMS
 *
 * The points have manifests and no layers, which listings do not open. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "repository/manifest.h"
#include "repository/registration.h"
#include "repository/repository.h"
#include "repository/vm.h"
#include "util/io.h"

#define FIRST_MOMENT 1795136523 /* 2026-11-20T01:02:03Z */
#define DISK_SIZE (8ull << 30)

static void check(int rc, const Reason *reason) {
        if (rc >= 0)
                return;
        fprintf(stderr, "make-many: %s\n", reason->text);
        exit(1);
}

static char *copy(const char *text) {
        char *made = strdup(text);

        if (!made)
                abort();
        return made;
}

static void make_point(Vm *vm, unsigned number, char name[static POINT_NAME_MAX]) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        Reason reason = REASON_INIT;
        ManifestDisk *disk;

        check(manifest_new(&manifest), &reason);
        manifest->time = (struct timespec) { .tv_sec = FIRST_MOMENT + 3600 * (time_t) number };
        manifest->parent = number > 0 ? copy(name) : NULL;
        check(point_name_next(manifest->time.tv_sec, name, manifest->name), &reason);
        manifest->vm = copy(vm_name(vm));
        manifest->vm_uuid = copy(vm_uuid(vm));
        manifest->serial = number + 1;
        manifest->kind = number > 0 ? POINT_INCREMENTAL : POINT_FULL;
        manifest->capture = copy(manifest->name);
        manifest->disks = calloc(1, sizeof *manifest->disks);
        disk = manifest->disks;
        manifest->disk_count = 1;
        *disk = (ManifestDisk) {
                .name = copy("vda"), .size = DISK_SIZE, .allocated = DISK_SIZE / 2, .kind = manifest->kind,
                .layers = calloc(1, sizeof *disk->layers), .layer_count = 1,
        };
        *disk->layers = (ManifestLayer) { .format = copy("native"), .file = copy("vda.layer"), .length = 1 << 20 };
        check(manifest_commit(vm, manifest, &reason), &reason);
        memcpy(name, manifest->name, POINT_NAME_MAX);
}

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
        check(registration_write(repository_fd(repository), path, name, &registration, &reason), &reason);
        snprintf(path, sizeof path, "serials/%u", number);
        check(create_file(repository_fd(repository), path, name, strlen(name), &reason), &reason);
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
        check(repository_init(argv[1], &reason), &reason);
        check(repository_open(argv[1], REPOSITORY_CACHE_DEFAULT, &repository, &reason), &reason);
        check(vm_add(repository, "many", "00000000-0000-4000-8000-ffffffffffff", "qemu:///system", NULL, &reason), &reason);
        check(vm_open(repository, "many", &vm, &reason), &reason);
        for (unsigned i = 0; i < points; i++)
                make_point(vm, i, name);
        for (unsigned i = 0; i < vms; i++)
                make_vm(repository, i + 2);
        return 0;
}
