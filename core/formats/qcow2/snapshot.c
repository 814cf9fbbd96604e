#include "formats/qcow2/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/bytes.h"

#define ENTRY_LENGTH 40u
#define SNAPSHOTS_MAX 65536u
#define EXTRA_MAX 4096u
#define EXTRA_WITH_SIZE 16u /* bytes of extra data with which it tells the disk's size */

void qcow2_snapshots_clear(Qcow2Snapshots *snapshots) {
        for (size_t i = 0; i < snapshots->count; i++) {
                free(snapshots->items[i].id);
                free(snapshots->items[i].name);
        }
        free(snapshots->items);
        *snapshots = (Qcow2Snapshots) { 0 };
}

static int read_text(ByteStore *image, uint64_t offset, uint32_t length, char **ret, Reason *reterr) {
        CLEANUP(freep) char *text = malloc(length + 1u);
        int rc;

        if (!text)
                return fail_oom(reterr);
        rc = byte_store_read(image, text, length, offset, reterr);
        if (rc < 0)
                return rc;
        text[length] = 0;
        if (strlen(text) != length)
                return fail(reterr, -EBADMSG, "a name in it is none");
        *ret = STEAL_PTR(text);
        return 0;
}

/* The entry at *at, which is moved behind it. */
static int load_entry(ByteStore *image, const Qcow2Header *header, uint64_t *at, Qcow2Snapshot *snapshot, Reason *reterr) {
        unsigned char bytes[ENTRY_LENGTH + EXTRA_WITH_SIZE] = { 0 };
        uint32_t id_length, name_length, extra;
        uint64_t text;
        int rc = byte_store_read(image, bytes, ENTRY_LENGTH, *at, reterr);

        if (rc < 0)
                return rc;
        id_length = load_be16(bytes + 12);
        name_length = load_be16(bytes + 14);
        extra = load_be32(bytes + 36);
        if (extra > EXTRA_MAX)
                return fail(reterr, -EBADMSG, "an entry is too long");
        if (extra >= EXTRA_WITH_SIZE)
                rc = byte_store_read(image, bytes + ENTRY_LENGTH, EXTRA_WITH_SIZE, *at + ENTRY_LENGTH, reterr);
        if (rc < 0)
                return rc;
        snapshot->state.l1_offset = load_be64(bytes);
        snapshot->l1_count = load_be32(bytes + 8);
        snapshot->state.disk_size = header->active.disk_size;
        if (extra >= EXTRA_WITH_SIZE)
                snapshot->state.disk_size = load_be64(bytes + ENTRY_LENGTH + 8);
        snapshot->time.tv_sec = load_be32(bytes + 16);
        snapshot->time.tv_nsec = load_be32(bytes + 20) < 1000000000 ? load_be32(bytes + 20) : 0;
        text = *at + ENTRY_LENGTH + extra;
        rc = read_text(image, text, id_length, &snapshot->id, reterr);
        if (rc >= 0)
                rc = read_text(image, text + id_length, name_length, &snapshot->name, reterr);
        *at = round_up(text + id_length + name_length, 8);
        return rc;
}

int qcow2_snapshots_load(ByteStore *image, const Qcow2Header *header, Qcow2Snapshots *ret, Reason *reterr) {
        CLEANUP(qcow2_snapshots_clear) Qcow2Snapshots snapshots = { 0 };
        uint64_t at = header->snapshots_offset;
        Reason reason = REASON_INIT;
        int rc = 0;

        if (header->snapshot_count > SNAPSHOTS_MAX || at > byte_store_size(image) ||
            header->snapshot_count > (byte_store_size(image) - at) / ENTRY_LENGTH)
                return fail(reterr, -EBADMSG, "%s is damaged: its snapshots cannot be where its header says",
                            byte_store_name(image));
        snapshots.items = calloc((size_t) header->snapshot_count + 1, sizeof *snapshots.items);
        if (!snapshots.items)
                return fail_oom(reterr);
        while (rc >= 0 && snapshots.count < header->snapshot_count)
                rc = load_entry(image, header, &at, &snapshots.items[snapshots.count++], &reason);
        if (rc == -ENOMEM)
                return fail_oom(reterr);
        if (rc < 0)
                return fail(reterr, -EBADMSG, "%s is damaged: the table of its snapshots: %s", byte_store_name(image),
                            reason.text);
        *ret = snapshots;
        snapshots = (Qcow2Snapshots) { 0 };
        return 0;
}

int qcow2_snapshot_check(const Qcow2Header *header, const Qcow2Snapshot *snapshot, uint64_t file_size, Reason *reterr) {
        if (header->has_data_file)
                return fail(reterr, -EBADMSG, "it has a snapshot, which with a data file cannot be");
        return qcow2_state_check(header, &snapshot->state, snapshot->l1_count, file_size, "the snapshot", reterr);
}
