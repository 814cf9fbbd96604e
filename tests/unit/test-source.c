/* The door: what it checks for every kind of source, and libvirt's test driver behind it. */
#include "sources/source.h"

#include <errno.h>

#include "unit.h"

#define REPOSITORY "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"

static SourceExtent answer[4];
static size_t answer_count;

static int fake_extents(SourceReader *reader, uint64_t start, uint64_t length, SourceExtents *ret, Reason *reterr) {
        SourceExtent *items = malloc(sizeof answer);

        memcpy(items, answer, sizeof answer);
        *ret = (SourceExtents) { .items = items, .count = answer_count, .capacity = 4 };
        return 0;
}

static int fake_read(SourceReader *reader, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        memset(buffer, 7, length);
        return 0;
}

static void fake_free(SourceReader *reader) {
}

static const SourceReaderOps fake_ops = { fake_extents, fake_read, fake_free };
static SourceReader fake = { .ops = &fake_ops, .size = 100000, .read_max = 65536 };

static int ask(uint64_t start, uint64_t length, Reason *reason) {
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };

        *reason = REASON_INIT;
        return source_extents(&fake, start, length, &e, reason);
}

static void extents_with_gaps_or_overlaps_are_refused(void) {
        static const struct {
                uint64_t start[2], length[2];
                int expected;
        } cases[] = {
                { { 10, 20 }, { 10, 20 }, 0 },
                { { 0, 20 }, { 20, 20 }, -EPROTO },  /* begins before */
                { { 10, 21 }, { 10, 19 }, -EPROTO }, /* gap */
                { { 10, 19 }, { 10, 21 }, -EPROTO }, /* overlap */
                { { 10, 20 }, { 10, 21 }, -EPROTO }, /* past the range */
                { { 10, 20 }, { 10, 19 }, -EPROTO }, /* ends before */
                { { 10, 10 }, { 0, 30 }, -EPROTO },  /* empty */
                { { 10, 20 }, { 10, UINT64_MAX - 5 }, -EPROTO },
        };
        Reason reason;

        answer_count = 2;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                for (size_t k = 0; k < 2; k++)
                        answer[k] = (SourceExtent) { .start = cases[i].start[k], .length = cases[i].length[k] };
                CHECK_INT(ask(10, 30, &reason), cases[i].expected);
                if (cases[i].expected < 0)
                        CHECK_SAYS(reason, "the source's extents");
        }
        answer_count = 0;
        CHECK_INT(ask(10, 30, &reason), -EPROTO);
        CHECK_INT(ask(10, 0, &reason), 0);
}

static void ranges_past_the_end_are_refused(void) {
        static char buffer[65536];
        Reason reason = REASON_INIT;

        CHECK_INT(ask(99999, 2, &reason), -ERANGE);
        CHECK_SAYS(reason, "past the end");
        CHECK_INT(ask(UINT64_MAX, 2, &reason), -ERANGE);
        CHECK_INT(source_read(&fake, buffer, 1, 100000, &reason), -ERANGE);
        CHECK_INT(source_read(&fake, buffer, 65537, 0, &reason), -EINVAL);
        CHECK_SAYS(reason, "longer than the source takes");
        CHECK_INT(source_read(&fake, buffer, 65536, 34464, &reason), 0);
        CHECK_INT(buffer[65535], 7);
}

static void uri_of_no_kind_is_refused(void) {
        const SourceOwner owner = { .source = "gopher://x", .vm = "vm", .repository = REPOSITORY };
        Source *source;
        Reason reason = REASON_INIT;

        CHECK_INT(source_open(&owner, &source, &reason), -EINVAL);
        CHECK_SAYS(reason, "gopher://x");
}

static void vm_is_identified_by_name_and_uuid(void) {
        SourceOwner owner = { .source = "test:///default?domain=test", .vm = "vm", .repository = REPOSITORY };
        CLEANUP(source_freep) Source *source = NULL;
        CLEANUP(freep) char *uuid = NULL;
        SourceVm vm = { 0 };
        Reason reason = REASON_INIT;

        CHECK_INT(source_open(&owner, &source, &reason), 0);
        CHECK_INT(source_identify(source, &uuid, &reason), 0);
        CHECK_INT(strlen(uuid), 36);

        source = source_free(source);
        owner.source = "test:///default";
        CHECK_INT(source_open(&owner, &source, &reason), 0);
        CHECK_INT(source_inspect(source, &vm, &reason), -ENOENT);
        CHECK_SAYS(reason, "has no VM named vm");

        source = source_free(source);
        owner.vm = "test";
        owner.vm_uuid = REPOSITORY;
        CHECK_INT(source_open(&owner, &source, &reason), 0);
        CHECK_INT(source_inspect(source, &vm, &reason), -ESTALE);
        CHECK_SAYS(reason, uuid);
}

int main(void) {
        RUN(extents_with_gaps_or_overlaps_are_refused);
        RUN(ranges_past_the_end_are_refused);
        RUN(uri_of_no_kind_is_refused);
        RUN(vm_is_identified_by_name_and_uuid);
        return unit_result();
}
