/* Frames of LZ4 whose blocks are linked: what is read of them to get at a place in their midst. */
#include "formats/virtnbdbackup/lz4-reader.h"
#include "stream-maker.h"
#include "util/bytes.h"

#define FRAME (16u << 20)    /* bytes of the disk */
#define FAR (3u << 20)       /* bytes: the most that is unpacked to get anywhere, once places are known */
#define PLACES_MEMORY (8u << 20)

/* Bytes in memory that count what is read of them. */
typedef struct CountingStore {
        ByteStore store;
        const char *bytes;
        uint64_t read;
} CountingStore;

static int count_and_read(ByteStore *store, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        CountingStore *counting = (CountingStore *) store;

        counting->read += length;
        memcpy(buffer, counting->bytes + offset, length);
        return 0;
}

static const ByteStoreOps counting_ops = { .read = count_and_read };

typedef struct Case {
        StreamMaker maker;
        char *truth;
        CountingStore counting;
        Cache *cache;
        Memory memory;
        Run run;
} Case;

static void case_make(Case *c, size_t memory) {
        *c = (Case) { .maker = stream_maker_new(true, FRAME), .truth = stream_noise(FRAME) };
        stream_lz4(&c->maker, c->truth, FRAME);
        c->counting = (CountingStore) { { &counting_ops, c->maker.length, "a frame" }, c->maker.bytes, 0 };
        c->run = (Run) { .offset = 0, .stored = c->maker.length, .length = FRAME };
        CHECK_INT(cache_new(memory, &c->cache), 0);
        c->memory = (Memory) { c->cache, cache_new_owner() };
}

static void case_clear(Case *c) {
        cache_forget(c->cache, c->memory.owner);
        cache_free(c->cache);
        stream_maker_clear(&c->maker);
        free(c->truth);
}

/* Reads 4 KiB and compares them; what was read of the frame for that. */
static uint64_t read_at(Case *c, uint64_t offset) {
        uint64_t before = c->counting.read;
        Reason reason = REASON_INIT;
        char got[4096];

        CHECK_INT(lz4_read(&c->counting.store, &c->memory, &c->run, got, sizeof got, offset, false, &reason), 0);
        CHECK_INT(memcmp(got, c->truth + offset, sizeof got), 0);
        return c->counting.read - before;
}

static void a_frame_is_unpacked_from_its_start_once(void) {
        Case c;

        case_make(&c, PLACES_MEMORY);
        CHECK(read_at(&c, FRAME - 4096) > c.maker.length / 2);
        for (int i = 0; i < 100; i++)
                CHECK(read_at(&c, random_below(FRAME - 4096)) <= FAR);
        CHECK(cache_used(c.cache) <= PLACES_MEMORY);
        case_clear(&c);
}

static void places_that_there_is_no_memory_for_are_found_again(void) {
        Case c;

        case_make(&c, 3 * 70000); /* of three or so */
        for (int i = 0; i < 10; i++)
                read_at(&c, random_below(FRAME - 4096));
        CHECK(cache_used(c.cache) <= 3 * 70000);
        case_clear(&c);
}

int main(void) {
        RUN(a_frame_is_unpacked_from_its_start_once);
        RUN(places_that_there_is_no_memory_for_are_found_again);
        return unit_result();
}
