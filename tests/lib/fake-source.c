#include "fake-source.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sources/source.h"
#include "util/bytes.h"
#include "util/timestamp.h"

#define SCHEME "fake://"

typedef struct FakeSource {
        Source source;
        FakeVm *vm;
        int disks[FAKE_DISKS]; /* of the last inspection */
        size_t disk_count;
        char checkpoint[96]; /* of the job */
} FakeSource;

typedef struct FakeReader {
        SourceReader reader;
        FakeSource *source;
        int disk;
        bool incremental, top, ask_zero;
} FakeReader;

static atomic_bool *cancel_flag;

FakeVm *fake_vm_map(const char *path) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        void *mapping = MAP_FAILED;

        if (fd >= 0 && ftruncate(fd, sizeof(FakeVm)) == 0)
                mapping = mmap(NULL, sizeof(FakeVm), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (mapping == MAP_FAILED) {
                perror(path);
                exit(1);
        }
        close(fd);
        return mapping;
}

void fake_vm_unmap(FakeVm *vm) {
        munmap(vm, sizeof *vm);
}

static void mark_dirty(FakeVm *vm, int disk, uint64_t start, uint64_t length) {
        for (int c = 0; c < FAKE_CHECKPOINTS; c++)
                if (vm->checkpoints[c].name[0])
                        for (uint64_t at = start / FAKE_GRAIN; at <= (start + length - 1) / FAKE_GRAIN; at++)
                                vm->checkpoints[c].dirty[disk][at] = true;
}

void fake_write(FakeVm *vm, int disk, uint64_t start, uint64_t length, unsigned seed) {
        unsigned char *bytes = vm->disks[disk].now + start;

        if (length == 0)
                return;
        for (uint64_t i = 0; i < length; i++)
                bytes[i] = seed ? (unsigned char) (seed + i / 7 + i * seed / 3) : 0;
        for (uint64_t at = start / FAKE_GRAIN; at <= (start + length - 1) / FAKE_GRAIN; at++)
                vm->disks[disk].below[at] = false;
        mark_dirty(vm, disk, start, length);
}

/* What grows is clean in the bitmaps, as in QEMU. */
void fake_resize(FakeVm *vm, int disk, uint64_t size) {
        FakeDisk *d = &vm->disks[disk];

        if (size < d->size)
                memset(d->now + size, 0, d->size - size);
        d->size = size;
}

int fake_checkpoint_count(const FakeVm *vm) {
        int count = 0;

        for (int c = 0; c < FAKE_CHECKPOINTS; c++)
                count += vm->checkpoints[c].name[0] != 0;
        return count;
}

static FakeCheckpoint *find_checkpoint(FakeVm *vm, const char *name) {
        for (int c = 0; c < FAKE_CHECKPOINTS; c++)
                if (strcmp(vm->checkpoints[c].name, name) == 0)
                        return &vm->checkpoints[c];
        return NULL;
}

bool fake_has_checkpoint(const FakeVm *vm, const char *name) {
        return name[0] && find_checkpoint((FakeVm *) vm, name);
}

void fake_lose_bitmaps_of(FakeVm *vm, int disk) {
        for (int c = 0; c < FAKE_CHECKPOINTS; c++)
                vm->checkpoints[c].has_bitmap[disk] = false;
}

void fake_lose_bitmaps(FakeVm *vm) {
        for (int i = 0; i < FAKE_DISKS; i++)
                fake_lose_bitmaps_of(vm, i);
}

static int request(FakeVm *vm, Reason *reterr) {
        unsigned number = atomic_fetch_add(&vm->requests, 1) + 1;

        if (number == vm->kill_at)
                kill(getpid(), SIGKILL);
        if (number == vm->cancel_at && cancel_flag)
                atomic_store(cancel_flag, true);
        if (number == vm->off_at)
                vm->off = true;
        if (number == vm->fail_at)
                return fail(reterr, -EIO, "request %u fails", number);
        return 0;
}

static bool claims(const char *uri) {
        return strncmp(uri, SCHEME, sizeof SCHEME - 1) == 0;
}

static int fake_open(const SourceOwner *owner, Source **ret, Reason *reterr) {
        FakeSource *source = calloc(1, sizeof *source);

        if (!source)
                return fail_oom(reterr);
        source->vm = fake_vm_map(owner->source + sizeof SCHEME - 1);
        *ret = &source->source;
        return 0;
}

static void fake_free(Source *base) {
        FakeSource *source = (FakeSource *) base;

        fake_vm_unmap(source->vm);
        free(source);
}

static int fake_identify(Source *base, char **ret, Reason *reterr) {
        *ret = strdup(((FakeSource *) base)->vm->uuid);
        return *ret ? 0 : fail_oom(reterr);
}

static int fake_inspect(Source *base, SourceVm *ret, Reason *reterr) {
        FakeSource *source = (FakeSource *) base;
        FakeVm *vm = source->vm;
        int rc = request(vm, reterr);

        if (rc < 0)
                return rc;
        if (vm->off)
                return fail(reterr, -EHOSTDOWN, "the VM is not running");
        ret->uuid = strdup(vm->uuid);
        ret->disks = calloc(FAKE_DISKS, sizeof *ret->disks);
        source->disk_count = 0;
        for (int i = 0; i < FAKE_DISKS; i++) {
                SourceDisk *disk = &ret->disks[ret->disk_count];
                char name[8];

                if (!vm->disks[i].present)
                        continue;
                snprintf(name, sizeof name, "vd%c", 'a' + i);
                disk->name = strdup(name);
                disk->tracks_changes = !vm->disks[i].raw;
                disk->why_not = vm->disks[i].raw ? strdup("raw image cannot carry a bitmap") : NULL;
                disk->backing = vm->disks[i].backing[0] ? strdup(vm->disks[i].backing) : NULL;
                for (int image = 0; image < 2; image++)
                        if (vm->disks[i].images[image][0])
                                strings_add(&disk->images, vm->disks[i].images[image]);
                source->disks[ret->disk_count++] = i;
        }
        source->disk_count = ret->disk_count;
        ret->files = calloc(1, sizeof *ret->files);
        ret->files[0] = (SourceFile) { strdup("domain.xml"), strdup("<domain/>\n"), 10 };
        ret->file_count = 1;
        return 0;
}

static int fake_begin(Source *base, const SourceJob *job, struct timespec *ret_moment, Reason *reterr) {
        FakeSource *source = (FakeSource *) base;
        FakeVm *vm = source->vm;
        FakeCheckpoint *old = NULL, *new;
        int rc = request(vm, reterr);

        if (rc < 0)
                return rc;
        if (vm->job)
                return fail(reterr, -EBUSY, "the VM has a job");
        if (job->top && vm->no_top)
                return fail(reterr, -ENOTSUP, "this source cannot tell what is below");
        for (size_t i = 0; i < source->disk_count; i++) {
                if (!job->incremental[i])
                        continue;
                if (!job->base || !job->base_definition)
                        return fail(reterr, -EINVAL, "an incremental disk without a base");
                old = find_checkpoint(vm, job->base);
                if (!old || !old->has_bitmap[source->disks[i]])
                        return source_blame(job, i, fail(reterr, -ESTALE, "checkpoint %s has no bitmap", job->base));
        }
        new = find_checkpoint(vm, "");
        if (!new || fake_has_checkpoint(vm, job->checkpoint))
                return fail(reterr, -EIO, "no room for a checkpoint");
        for (int i = 0; i < FAKE_DISKS; i++) {
                FakeDisk *disk = &vm->disks[i];

                memcpy(disk->then, disk->now, sizeof disk->then);
                disk->then_size = disk->size;
                if (old)
                        memcpy(old->frozen[i], old->dirty[i], sizeof old->frozen[i]);
        }
        memset(new, 0, sizeof *new);
        if (!vm->no_checkpoint)
                snprintf(new->name, sizeof new->name, "%s", job->checkpoint);
        for (size_t i = 0; i < source->disk_count; i++)
                new->has_bitmap[source->disks[i]] = !vm->disks[source->disks[i]].raw;
        snprintf(source->checkpoint, sizeof source->checkpoint, "%s", job->checkpoint);
        snprintf(vm->job_base, sizeof vm->job_base, "%s", job->base ?: "");
        vm->job = true;
        *ret_moment = timestamp_now();
        return request(vm, reterr); /* begun, and the answer lost */
}

static int fake_checkpoint(Source *base, char **ret_name, char **ret_definition, Reason *reterr) {
        FakeSource *source = (FakeSource *) base;
        int rc = request(source->vm, reterr);

        if (rc < 0)
                return rc;
        *ret_name = *ret_definition = NULL;
        if (source->vm->no_checkpoint)
                return 0;
        *ret_name = strdup(source->checkpoint);
        *ret_definition = strdup("<domaincheckpoint/>\n");
        return *ret_name && *ret_definition ? 0 : fail_oom(reterr);
}

/* Of a connection, which the VM may break. */
static int request_by(FakeReader *reader, Reason *reterr) {
        FakeVm *vm = reader->source->vm;
        unsigned lose_at = vm->lose_at;
        int rc;

        if (reader->reader.lost)
                return fail(reterr, -ENOTCONN, "the connection is gone");
        rc = request(vm, reterr);
        if (rc == 0 && lose_at && atomic_load(&vm->requests) == lose_at) {
                reader->reader.lost = true;
                return fail(reterr, -ECONNRESET, "the connection is lost");
        }
        return rc;
}

static int fake_extents(SourceReader *base, uint64_t start, uint64_t length, SourceExtents *ret, Reason *reterr) {
        FakeReader *reader = (FakeReader *) base;
        FakeVm *vm = reader->source->vm;
        FakeDisk *disk = &vm->disks[reader->disk];
        FakeCheckpoint *old = reader->incremental ? find_checkpoint(vm, vm->job_base) : NULL;
        int rc = request_by(reader, reterr);

        atomic_fetch_add(&vm->questions, 1);
        if (rc < 0)
                return rc;
        ret->count = 0;
        for (uint64_t at = start, step; at < start + length; at += step) {
                uint64_t end = min_u64(round_down(at, FAKE_GRAIN) + FAKE_GRAIN, start + length);
                SourceExtent extent = { at, end - at, .dirty = !old || old->frozen[reader->disk][at / FAKE_GRAIN] };
                SourceExtent *last = ret->count > 0 ? &ret->items[ret->count - 1] : NULL;

                step = end - at;
                /* Here and there zeroes that are not known to be: allocated, as a guest's writing of zeroes leaves it. */
                extent.zero = reader->ask_zero && bytes_are_zero(disk->then + at, step) && at / FAKE_GRAIN / 32 % 3 != 0;
                extent.below = reader->top && disk->below[at / FAKE_GRAIN];
                if (last && last->dirty == extent.dirty && last->zero == extent.zero && last->below == extent.below) {
                        last->length += step;
                        continue;
                }
                if (ret->count == ret->capacity) {
                        ret->capacity = ret->capacity ? 2 * ret->capacity : 16;
                        ret->items = reallocarray(ret->items, ret->capacity, sizeof *ret->items);
                }
                ret->items[ret->count++] = extent;
        }
        return 0;
}

static bool take_one(atomic_uint *count) {
        unsigned left = atomic_load(count);

        while (left > 0 && !atomic_compare_exchange_weak(count, &left, left - 1))
                ;
        return left > 0;
}

static int fake_read(SourceReader *base, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        FakeReader *reader = (FakeReader *) base;
        const atomic_bool *cancel = reader->source->source.owner.cancel;
        FakeVm *vm = reader->source->vm;
        const FakeDisk *disk = &vm->disks[reader->disk];
        unsigned number = atomic_fetch_add(&vm->reads, 1) + 1;
        int rc = request_by(reader, reterr);

        if (rc < 0)
                return rc;
        if (vm->off)
                return fail(reterr, -EIO, "the connection broke");
        if (disk->bad_length > 0 && offset < disk->bad_start + disk->bad_length && disk->bad_start < offset + length) {
                base->lost = vm->bad_loses;
                return fail(reterr, -EIO, "a bad place");
        }
        if (take_one(&vm->refusals))
                return fail(reterr, -EIO, "refused");
        for (unsigned ms = 0; ms < vm->read_takes_ms; ms++) {
                if (cancel && atomic_load(cancel))
                        return fail(reterr, -ECANCELED, "cancelled");
                usleep(1000);
        }
        memcpy(buffer, disk->then + offset, length);
        if (vm->decays_at && number >= vm->decays_at)
                *(unsigned char *) buffer ^= 1;
        return 0;
}

static void fake_reader_free(SourceReader *base) {
        free(base);
}

static const SourceReaderOps reader_ops = { fake_extents, fake_read, fake_reader_free };

static int fake_open_reader(Source *base, size_t disk, const SourceView *view, SourceReader **ret, Reason *reterr) {
        FakeSource *source = (FakeSource *) base;
        FakeReader *reader;
        int rc = request(source->vm, reterr);

        if (rc < 0)
                return rc;
        reader = calloc(1, sizeof *reader);
        if (!reader)
                return fail_oom(reterr);
        reader->source = source;
        reader->disk = source->disks[disk];
        reader->incremental = view->incremental;
        reader->top = view->top;
        reader->ask_zero = view->ask_zero;
        reader->reader = (SourceReader) {
                .ops = &reader_ops,
                .size = source->vm->disks[reader->disk].then_size,
                .read_max = 100 << 10,
                .multi = source->vm->many_readers,
        };
        *ret = &reader->reader;
        return 0;
}

static int fake_watch(Source *base, Reason *reterr) {
        FakeVm *vm = ((FakeSource *) base)->vm;

        if (vm->watch_fails_after && atomic_fetch_add(&vm->watched, 1) + 1 >= vm->watch_fails_after)
                return fail(reterr, -ENOSPC, "the scratch space runs out");
        return 0;
}

static int fake_end(Source *base, Reason *reterr) {
        FakeVm *vm = ((FakeSource *) base)->vm;
        int rc = request(vm, reterr);

        if (rc < 0)
                return rc;
        vm->job = false;
        return 0;
}

static int fake_end_leftovers(Source *base, Reason *reterr) {
        (void) reterr;
        ((FakeSource *) base)->vm->job = false;
        return 0;
}

static int fake_keep_checkpoints(Source *base, const char *const *keep, size_t count, Reason *reterr) {
        FakeVm *vm = ((FakeSource *) base)->vm;
        int rc = request(vm, reterr);

        if (rc < 0)
                return rc;
        for (int c = 0; c < FAKE_CHECKPOINTS; c++) {
                bool kept = false;

                for (size_t i = 0; i < count; i++)
                        kept |= strcmp(vm->checkpoints[c].name, keep[i]) == 0;
                if (!kept)
                        vm->checkpoints[c].name[0] = 0;
        }
        return 0;
}

static const SourceOps fake_ops = {
        .name = "fake",
        .claims = claims,
        .open = fake_open,
        .identify = fake_identify,
        .inspect = fake_inspect,
        .begin = fake_begin,
        .checkpoint = fake_checkpoint,
        .open_reader = fake_open_reader,
        .watch = fake_watch,
        .end = fake_end,
        .end_leftovers = fake_end_leftovers,
        .keep_checkpoints = fake_keep_checkpoints,
        .free = fake_free,
};

void fake_source_register(atomic_bool *cancel) {
        cancel_flag = cancel;
        source_register(&fake_ops);
}
