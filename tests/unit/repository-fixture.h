/* tests/unit/repository-fixture.h - a repository with one VM, and points made from a few words. */
#pragma once

#include "repository/manifest.h"
#include "repository/point.h"
#include "temporary.h"

#define FIXTURE_UUID "0b7d4b0e-0000-4000-8000-000000000001"
#define OTHER_UUID "0b7d4b0e-0000-4000-8000-000000000002"

typedef struct Fixture {
        TemporaryDirectory directory;
        Repository *repository;
        Vm *vm;
} Fixture;

static inline Fixture fixture_with_cache(size_t cache_bytes) {
        Fixture f = { .directory = temporary_directory() };
        Reason reason = REASON_INIT;

        CHECK_INT(repository_init(f.directory.path, &reason), 0);
        CHECK_INT(repository_open(f.directory.path, cache_bytes, &f.repository, &reason), 0);
        CHECK_INT(vm_add(f.repository, "vm1", FIXTURE_UUID, "qemu:///system", NULL, &reason), 0);
        CHECK_INT(vm_open(f.repository, "vm1", &f.vm, &reason), 0);
        return f;
}

/* With so little that what is cached does not stay. */
static inline Fixture fixture(void) {
        return fixture_with_cache(1 << 20);
}

static inline void fixture_clear(Fixture *f) {
        vm_free(f->vm);
        repository_free(f->repository);
        temporary_directory_clear(&f->directory);
}

#define WITH_FIXTURE(f) CLEANUP(fixture_clear) Fixture f = fixture()

/* A manifest without a parent (full) or with one (incremental), and disks of the same kind by these names. */
static inline Manifest *sample_manifest(const char *name, const char *parent, uint32_t serial, const char *const *disks,
                                        size_t disk_count) {
        Manifest *m;

        CHECK_INT(manifest_new(&m), 0);
        CHECK(strlen(name) < sizeof m->name);
        strcpy(m->name, name);
        m->vm = strdup("vm1");
        m->vm_uuid = strdup(FIXTURE_UUID);
        CHECK(asprintf(&m->capture, "%s.9f3c21aa", name) > 0);
        m->serial = serial;
        m->kind = parent ? POINT_INCREMENTAL : POINT_FULL;
        m->time = (struct timespec) { 1795136523, 5 };
        m->parent = parent ? strdup(parent) : NULL;
        m->checkpoint = strdup("virtbackupfs-1");
        m->disks = calloc(disk_count, sizeof *m->disks);
        m->disk_count = disk_count;
        for (size_t i = 0; i < disk_count; i++) {
                ManifestDisk *d = &m->disks[i];

                d->name = strdup(disks[i]);
                d->size = 1000001;
                d->allocated = 4096;
                d->kind = m->kind;
                CHECK_INT(strings_add(&d->images, "/images/ä.qcow2 1:2"), 0);
                d->layers = calloc(1, sizeof *d->layers);
                d->layer_count = 1;
                d->layers[0].format = strdup("native");
                CHECK(asprintf(&d->layers[0].file, "%s.layer", disks[i]) > 0);
                d->layers[0].length = 777;
                d->layers[0].seal = 0xfedcba9876543210;
        }
        return m;
}

static inline void commit_point(Fixture *f, const char *name, const char *parent, uint32_t serial) {
        static const char *const disks[] = { "vda", "vdb" };
        CLEANUP(manifest_unrefp) Manifest *m = sample_manifest(name, parent, serial, disks, 2);
        Reason reason = REASON_INIT;

        CHECK_INT(manifest_commit(f->vm, m, &reason), 0);
}
