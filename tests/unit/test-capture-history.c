#include "capture/capture.h"

#include <errno.h>
#include <unistd.h>

#include "capture-case.h"
#include "unit.h"

static uint64_t random_state;

static uint64_t random_below(uint64_t bound) {
        random_state += 0x9e3779b97f4a7c15u;
        uint64_t z = (random_state ^ (random_state >> 30)) * 0xbf58476d1ce4e5b9u;

        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return (z ^ (z >> 31)) % bound;
}

static void write_somewhere(FakeVm *vm, int disk) {
        uint64_t size = vm->disks[disk].size;
        uint64_t start = random_below(size);
        uint64_t length = 1 + random_below(random_below(4) ? 5000 : 400000);

        if (random_below(3) == 0)
                start -= start % 4096;
        if (length > size - start)
                length = size - start;
        fake_write(vm, disk, start, length, random_below(3) ? 1 + (unsigned) random_below(250) : 0);
}

/* What befalls a VM's disks between two captures. */
static void change_something(FakeVm *vm, int *images) {
        int disk = (int) random_below(FAKE_DISKS);
        FakeDisk *d = &vm->disks[disk];

        if (!d->present) {
                if (disk == 0 || random_below(6) == 0) {
                        d->present = true;
                        d->raw = random_below(4) == 0;
                        memset(d->now, 0, sizeof d->now);
                        d->size = 1 + random_below(FAKE_DISK_MAX);
                        snprintf(d->images[0], sizeof d->images[0], "image-%d", ++*images);
                        if (random_below(4) == 0)
                                d->images[0][0] = 0;
                        d->images[1][0] = 0;
                }
                return;
        }
        switch (random_below(40)) {
        case 0:
                d->present = disk == 0;
                break;
        case 1: /* an overlay on top */
                memcpy(d->images[1], d->images[0], sizeof d->images[1]);
                snprintf(d->images[0], sizeof d->images[0], "image-%d", ++*images);
                break;
        case 2: /* replaced, clean in every bitmap */
                snprintf(d->images[0], sizeof d->images[0], "image-%d", ++*images);
                d->images[1][0] = 0;
                for (uint64_t i = 0; i < d->size; i++)
                        d->now[i] = (unsigned char) (i / 1000 * 7 + (unsigned) *images);
                break;
        case 3:
        case 4:
                fake_resize(vm, disk, 1 + random_below(FAKE_DISK_MAX));
                break;
        case 5:
                if (random_below(4) == 0)
                        fake_lose_bitmaps(vm);
                else if (random_below(2) == 0)
                        fake_lose_bitmaps_of(vm, disk);
                break;
        default:
                write_somewhere(vm, disk);
        }
}

static CaptureWish random_wish(void) {
        switch (random_below(15)) {
        case 0: return CAPTURE_FULL;
        case 1:
        case 2:
        case 3: return CAPTURE_DIFFERENTIAL;
        default: return CAPTURE_AUTO;
        }
}

static void run_history(unsigned seed, unsigned captures) {
        CaptureCase test;
        int images = 0;

        random_state = seed;
        capture_case_begin(&test);
        while (!test.fake->disks[0].present)
                change_something(test.fake, &images);
        for (unsigned i = 0; i < captures; i++) {
                for (unsigned changes = (unsigned) random_below(15); changes > 0; changes--)
                        change_something(test.fake, &images);
                test.block_size = 4096u << random_below(10);
                test.fake->many_readers = random_below(2);
                test.no_zero_detection = random_below(8) == 0;
                test.fake->fail_at = random_below(5) ? 0 : 1 + (unsigned) random_below(40);
                if (capture_case_take(&test, random_wish()) < 0) {
                        capture_case_check_failed(&test, " fails");
                        test.fake->fail_at = 0;
                        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
                }
                if (!test.fake->fail_at)
                        capture_case_check(&test);
        }
        capture_case_end(&test);
}

static void random_histories_are_kept_byte_for_byte(void) {
        const char *seed = getenv("HISTORY_SEED");

        for (unsigned i = 0; i < 4; i++)
                run_history(seed ? (unsigned) atoi(seed) + i : 100 + i, 30);
}

int main(int argc, char **argv) {
        capture_case_main(argc, argv);
        RUN(random_histories_are_kept_byte_for_byte);
        return unit_result();
}
