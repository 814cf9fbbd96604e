#include "mount/reader.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "chain/reach.h"
#include "log.h"
#include "util/bytes.h"
#include "util/patience.h"
#include "util/scratch.h"

#define ZEROES (1u << 20) /* as long as the longest request of the kernel */
#define SHORT (16u << 10) /* bytes, that are zeroed sooner than it is found out that they are a hole */
#define PIECE (4u << 10)  /* what is tried by itself where not all can be read: the smallest block */
#define REACH_NAMED 8u    /* points that damage reaches, by their names */
#define REACH_MAX 400u    /* bytes */
#define REACH_MS 200u     /* that are taken to look for them */

static char zeroes[ZEROES] __attribute__((aligned(4096)));

/* How much can be read from the beginning of a range of which not all can. */
static size_t readable_start(const ChainView *view, unsigned char *buffer, size_t size, uint64_t offset) {
        uint64_t end = offset + size, at = offset;

        while (at < end) {
                uint64_t next = min_u64(round_down(at, PIECE) + PIECE, end);

                if (chain_view_read(view, buffer + (at - offset), next - at, at, NULL) < 0)
                        break;
                at = next;
        }
        return (size_t) (at - offset);
}

/* Which points show what lies there, as words behind others: "", where that is not known. */
static void tell_reach(const OpenFile *file, uint64_t offset, char words[static REACH_MAX]) {
        const Item *item = &file->item;
        bool is_partition = item->node.kind == NODE_PARTITION, more;
        CLEANUP(strings_free) Strings points = { 0 };
        ChainExtent extent;
        size_t length;

        words[0] = '\0';
        if (is_partition && item_partition(item)->piece_count > 0) /* of a volume, which may lie on several disks */
                return;
        if (chain_view_next_extent(file->view, offset, &extent, NULL) < 0 || !extent.point)
                return;
        if (is_partition)
                offset += item_partition(item)->start;
        if (reach_find(item->vm->vm, extent.point, item_disk(item)->name, offset, REACH_MS, &points, &more, NULL) < 0)
                return;
        length = (size_t) snprintf(words, REACH_MAX, "; it reaches %s", points.items[0]);
        for (size_t i = 1; i < points.count && i < REACH_NAMED; i++)
                length += (size_t) snprintf(words + length, REACH_MAX - length, ", %s", points.items[i]);
        if (more)
                snprintf(words + length, REACH_MAX - length, ", and maybe later ones");
        else if (points.count > REACH_NAMED)
                snprintf(words + length, REACH_MAX - length, " and %zu more", points.count - REACH_NAMED);
}

/* Where the first byte is that cannot be read. */
static void log_damage(const OpenFile *file, uint64_t offset, const Reason *reason) {
        char line[SUBJECT_MAX + REASON_MAX], reach[REACH_MAX];

        item_subject(&file->item, line);
        snprintf(line + strlen(line), sizeof line - strlen(line), ": %s", reason->text);
        if (!log_is_due(node_number(file->item.node), line))
                return;
        tell_reach(file, offset, reach);
        log_line(LOG_ERR, "%s%s", line, reach);
}

int reader_read(OpenFile *file, size_t size, uint64_t offset, Answer *ret) {
        Reason reason = REASON_INIT;
        size_t readable;
        void *buffer;
        int rc;

        if (offset >= chain_view_size(file->view))
                return 0;
        size = (size_t) min_u64(size, chain_view_size(file->view) - offset);
        if (file->prefetch && size > 0)
                ret->range = prefetch_read(file->prefetch, offset, size, &ret->bytes);
        ret->length = size;
        ret->end = offset + size;
        if (ret->range)
                return 0;
        if (size > SHORT && size <= sizeof zeroes && chain_view_is_zero(file->view, offset, size) == 1) {
                ret->bytes = zeroes;
                return 0;
        }
        buffer = scratch_get(SCRATCH_ANSWER, size);
        if (!buffer)
                return -ENOMEM;
        rc = chain_view_read(file->view, buffer, size, offset, &reason);
        if (rc < 0) {
                readable = readable_start(file->view, buffer, size, offset);
                if (!patience_is_over())
                        log_damage(file, offset + readable, &reason);
                ret->length = file->direct ? readable : 0;
        }
        ret->bytes = buffer;
        return ret->length > 0 ? 0 : rc;
}

void reader_release(Answer *answer) {
        if (answer->range)
                prefetch_release(answer->range, answer->end);
        answer->range = NULL;
}
