/* tests/lib/fake-source.h - a hypervisor with one VM that lives in a file: "fake:///path". Every process that maps the
 * file sees the same one, as with a real hypervisor, so that a capture may be killed and its guardian clean up.
 *
 * It keeps a bitmap for each checkpoint, as QEMU does, and fails, cancels or kills its caller at the request of a given
 * number. Requests are all calls of a source but identify, watch, confirm and leftovers. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FAKE_DISKS 3
#define FAKE_DISK_MAX (3u << 20) /* bytes */
#define FAKE_CHECKPOINTS 8
#define FAKE_GRAIN 512u          /* bytes of the disk for each bit of a bitmap */

typedef struct FakeDisk {
        bool present, raw;       /* raw: tracks no changes */
        char images[2][32];      /* identity; the second, or both, may be "" */
        char backing[32];        /* what is below, for people; or "" */
        bool below[FAKE_DISK_MAX / FAKE_GRAIN]; /* what the backing file has; writing clears it */
        uint64_t bad_start, bad_length;         /* cannot be read */
        uint64_t size;
        unsigned char now[FAKE_DISK_MAX], then[FAKE_DISK_MAX]; /* then: at the job's moment */
        uint64_t then_size;
} FakeDisk;

typedef struct FakeCheckpoint {
        char name[96]; /* "": unused */
        bool dirty[FAKE_DISKS][FAKE_DISK_MAX / FAKE_GRAIN];
        bool frozen[FAKE_DISKS][FAKE_DISK_MAX / FAKE_GRAIN]; /* at the job's moment */
        bool has_bitmap[FAKE_DISKS];
} FakeCheckpoint;

typedef struct FakeVm {
        char uuid[37];
        bool off;
        FakeDisk disks[FAKE_DISKS];
        FakeCheckpoint checkpoints[FAKE_CHECKPOINTS];
        bool job;
        char job_base[96];

        /* What is to happen. */
        atomic_uint requests;
        unsigned fail_at, cancel_at, kill_at; /* 0: never */
        unsigned off_at;                      /* the VM goes off, and readers fail from then on */
        unsigned watch_fails_after;           /* calls; 0: never */
        atomic_uint watched;
        unsigned read_takes_ms;
        unsigned lose_at;                     /* the connection that makes this request breaks */
        bool bad_loses;                       /* so does one that reads a bad place */
        atomic_uint refusals;                 /* so many reads more are refused */
        atomic_uint reads;
        atomic_uint questions;                /* for extents */
        unsigned decays_at;                   /* from this read on there are other bytes; 0: never */
        bool many_readers;
        bool no_checkpoint;                   /* none can be made */
        bool no_top;                          /* it cannot tell what is below */
} FakeVm;

/* Makes the file, or maps it again. A VM that is running, without disks. Exits the test on failure. */
FakeVm *fake_vm_map(const char *path);
void fake_vm_unmap(FakeVm *vm);

/* Once in a program. cancel is raised at the request that says so. */
void fake_source_register(atomic_bool *cancel);

void fake_write(FakeVm *vm, int disk, uint64_t start, uint64_t length, unsigned seed); /* seed 0: zeroes */
void fake_resize(FakeVm *vm, int disk, uint64_t size);
/* How many checkpoints there are. */
int fake_checkpoint_count(const FakeVm *vm);
bool fake_has_checkpoint(const FakeVm *vm, const char *name);
/* As a snapshot or a host's crash would lose it: the checkpoint stays, its bitmaps do not. */
void fake_lose_bitmaps(FakeVm *vm);
void fake_lose_bitmaps_of(FakeVm *vm, int disk);
