#include "formats/qcow2/writer-tables.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "formats/qcow2/layout.h"
#include "util/bytes.h"
#include "util/cleanup.h"

#define SLOTS 32 /* L2 tables in memory, of 512 MiB of the disk each; more than there are threads */

typedef struct Slot {
        uint64_t index; /* which L2 table; UINT64_MAX: none */
        uint64_t used;  /* when */
        bool changed;   /* since it was written to the file or copied for that */
        bool writing;   /* a copy of it is on its way to the file */
        unsigned char *entries;
} Slot;

struct WriterTables {
        const WriterPlan *plan;
        const DirectFile *file;
        WriterSpace *space;
        const char *name;
        pthread_mutex_t flushing;
        unsigned char *copies;   /* of `flushing`: room for SLOTS tables */
        pthread_mutex_t lock;    /* of what follows, and of space */
        unsigned char *l1;       /* big-endian entries, whole clusters */
        uint64_t l1_from, l1_to; /* bytes of it that have changed */
        Slot slots[SLOTS];
        uint64_t clock;
};

int writer_tables_new(const WriterPlan *plan, const DirectFile *file, WriterSpace *space, const char *name,
                      WriterTables **ret, Reason *reterr) {
        CLEANUP(writer_tables_freep) WriterTables *tables = calloc(1, sizeof *tables);
        size_t l1_size = plan->l1_count * WRITER_CLUSTER;

        if (!tables)
                return fail_oom(reterr);
        tables->plan = plan;
        tables->file = file;
        tables->space = space;
        tables->name = name;
        pthread_mutex_init(&tables->flushing, NULL);
        pthread_mutex_init(&tables->lock, NULL);
        tables->copies = aligned_alloc(DIRECT_GRAIN, SLOTS * WRITER_CLUSTER);
        tables->l1 = aligned_alloc(DIRECT_GRAIN, l1_size);
        if (!tables->copies || !tables->l1)
                return fail_oom(reterr);
        memset(tables->l1, 0, l1_size);
        tables->l1_from = l1_size;
        for (size_t i = 0; i < SLOTS; i++)
                tables->slots[i].index = UINT64_MAX;
        *ret = STEAL_PTR(tables);
        return 0;
}

WriterTables *writer_tables_free(WriterTables *tables) {
        for (size_t i = 0; i < SLOTS; i++)
                free(tables->slots[i].entries);
        pthread_mutex_destroy(&tables->lock);
        pthread_mutex_destroy(&tables->flushing);
        free(tables->l1);
        free(tables->copies);
        free(tables);
        return NULL;
}

void writer_tables_lock(WriterTables *tables) {
        pthread_mutex_lock(&tables->lock);
}

void writer_tables_unlock(WriterTables *tables) {
        pthread_mutex_unlock(&tables->lock);
}

/* Whether an entry can be one of ours that refers to a cluster. */
static bool refers(const WriterTables *tables, uint64_t entry, uint64_t *ret_cluster) {
        *ret_cluster = (entry & QCOW2_OFFSET_MASK) >> WRITER_CLUSTER_BITS;
        return entry == (QCOW2_COPIED | *ret_cluster << WRITER_CLUSTER_BITS) && *ret_cluster >= tables->plan->start &&
               *ret_cluster < tables->space->end;
}

static int read_part(const WriterTables *tables, unsigned char *bytes, size_t length, uint64_t offset, Reason *reterr) {
        int rc = direct_read(tables->file, bytes, length, offset);

        return rc < 0 ? fail_errno(reterr, rc, "cannot read %s", tables->name) : 0;
}

static bool claim_table(WriterTables *tables, const unsigned char *entries) {
        for (size_t i = 0; i < WRITER_ENTRIES; i++) {
                uint64_t entry = load_be64(entries + 8 * i), cluster;

                if (entry != 0 && entry != QCOW2_ZERO &&
                    (!refers(tables, entry, &cluster) || !writer_space_claim(tables->space, cluster)))
                        return false;
        }
        return true;
}

int writer_tables_load(WriterTables *tables, const atomic_bool *cancel, Reason *reterr) {
        if (read_part(tables, tables->l1, tables->plan->l1_count * WRITER_CLUSTER,
                      tables->plan->l1_start << WRITER_CLUSTER_BITS, NULL) < 0)
                return 0;
        for (uint64_t i = 0; i < tables->plan->l1_count * WRITER_ENTRIES; i++) {
                uint64_t entry = load_be64(tables->l1 + 8 * i), cluster;

                if (entry == 0)
                        continue;
                if (cancel && atomic_load(cancel))
                        return fail(reterr, -ECANCELED, "interrupted");
                if (i >= tables->plan->tables || !refers(tables, entry, &cluster) ||
                    !writer_space_claim(tables->space, cluster) ||
                    read_part(tables, tables->copies, WRITER_CLUSTER, cluster << WRITER_CLUSTER_BITS, NULL) < 0 ||
                    !claim_table(tables, tables->copies))
                        return 0;
        }
        return 1;
}

static uint64_t l1_entry(const WriterTables *tables, uint64_t index) {
        return load_be64(tables->l1 + 8 * index);
}

/* Of those that the file has as well; NULL: there is none. */
static Slot *oldest(WriterTables *tables) {
        Slot *found = NULL;

        for (size_t i = 0; i < SLOTS; i++) {
                Slot *slot = &tables->slots[i];

                if (!slot->changed && !slot->writing && (!found || slot->used < found->used))
                        found = slot;
        }
        return found;
}

/* What was checked when it was found, or written by us, may have been changed by somebody. */
static int check_table(const WriterTables *tables, const unsigned char *entries, Reason *reterr) {
        for (size_t i = 0; i < WRITER_ENTRIES; i++) {
                uint64_t entry = load_be64(entries + 8 * i), cluster;

                if (entry != 0 && entry != QCOW2_ZERO && !refers(tables, entry, &cluster))
                        return fail(reterr, -EBADMSG, "%s has been changed by another program", tables->name);
        }
        return 0;
}

static int make_table(WriterTables *tables, uint64_t index, Slot *slot, Reason *reterr) {
        uint64_t cluster, count;
        int rc;

        rc = writer_space_take(tables->space, 1, &cluster, &count, reterr);
        if (rc < 0)
                return rc;
        writer_space_use(tables->space, cluster);
        store_be64(tables->l1 + 8 * index, QCOW2_COPIED | cluster << WRITER_CLUSTER_BITS);
        tables->l1_from = min_u64(tables->l1_from, 8 * index);
        tables->l1_to = max_u64(tables->l1_to, 8 * index + 8);
        memset(slot->entries, 0, WRITER_CLUSTER);
        return 0;
}

static int fill(WriterTables *tables, uint64_t index, Slot *slot, Reason *reterr) {
        uint64_t entry = l1_entry(tables, index);
        int rc;

        if (!slot->entries)
                slot->entries = aligned_alloc(DIRECT_GRAIN, WRITER_CLUSTER);
        if (!slot->entries)
                return fail_oom(reterr);
        slot->index = UINT64_MAX;
        if (entry == 0) {
                rc = make_table(tables, index, slot, reterr);
        } else {
                rc = read_part(tables, slot->entries, WRITER_CLUSTER, entry & QCOW2_OFFSET_MASK, reterr);
                if (rc == 0)
                        rc = check_table(tables, slot->entries, reterr);
        }
        if (rc == 0)
                slot->index = index;
        return rc;
}

/* With the lock, which is let go of where no slot is to be had. */
static int get_slot(WriterTables *tables, uint64_t index, Slot **ret, Reason *reterr) {
        Slot *slot = NULL;
        int rc = 0;

        while (rc == 0 && !slot) {
                for (size_t i = 0; i < SLOTS && !slot; i++)
                        if (tables->slots[i].index == index)
                                slot = &tables->slots[i];
                if (slot)
                        break;
                slot = oldest(tables);
                if (slot) {
                        rc = fill(tables, index, slot, reterr);
                } else {
                        pthread_mutex_unlock(&tables->lock);
                        rc = writer_tables_flush(tables, reterr);
                        pthread_mutex_lock(&tables->lock);
                }
        }
        if (rc < 0)
                return rc;
        slot->used = ++tables->clock;
        *ret = slot;
        return 0;
}

int writer_tables_peek(WriterTables *tables, uint64_t index, const unsigned char **ret, Reason *reterr) {
        Slot *slot;
        int rc;

        *ret = NULL;
        if (l1_entry(tables, index) == 0)
                return 0;
        rc = get_slot(tables, index, &slot, reterr);
        if (rc == 0)
                *ret = slot->entries;
        return rc;
}

int writer_tables_make(WriterTables *tables, uint64_t index, unsigned char **ret, Reason *reterr) {
        Slot *slot;
        int rc = get_slot(tables, index, &slot, reterr);

        if (rc < 0)
                return rc;
        slot->changed = true;
        *ret = slot->entries;
        return 0;
}

/* What is to be written, as it was at one moment. */
typedef struct Changes {
        struct {
                Slot *slot;
                uint64_t offset; /* in the file */
        } tables[SLOTS];
        size_t count;
        unsigned char *l1;       /* whole grains of it */
        uint64_t l1_from, l1_to;
} Changes;

static void changes_clear(Changes *changes) {
        free(changes->l1);
}

/* With both locks. */
static int collect(WriterTables *tables, Changes *changes, Reason *reterr) {
        uint64_t from = round_down(tables->l1_from, DIRECT_GRAIN), to = round_up(tables->l1_to, DIRECT_GRAIN);

        if (from < to) {
                changes->l1 = aligned_alloc(DIRECT_GRAIN, to - from);
                if (!changes->l1)
                        return fail_oom(reterr);
                memcpy(changes->l1, tables->l1 + from, to - from);
                changes->l1_from = from;
                changes->l1_to = to;
                tables->l1_from = tables->plan->l1_count * WRITER_CLUSTER;
                tables->l1_to = 0;
        }
        for (size_t i = 0; i < SLOTS; i++) {
                Slot *slot = &tables->slots[i];

                if (!slot->changed)
                        continue;
                slot->changed = false;
                slot->writing = true;
                memcpy(tables->copies + changes->count * WRITER_CLUSTER, slot->entries, WRITER_CLUSTER);
                changes->tables[changes->count].slot = slot;
                changes->tables[changes->count++].offset = l1_entry(tables, slot->index) & QCOW2_OFFSET_MASK;
        }
        return 0;
}

/* With both locks. */
static void settle(WriterTables *tables, const Changes *changes, bool written) {
        for (size_t i = 0; i < changes->count; i++) {
                changes->tables[i].slot->writing = false;
                changes->tables[i].slot->changed |= !written;
        }
        if (changes->l1 && !written) {
                tables->l1_from = min_u64(tables->l1_from, changes->l1_from);
                tables->l1_to = max_u64(tables->l1_to, changes->l1_to);
        }
}

static int sync_file(const WriterTables *tables, Reason *reterr) {
        if (fdatasync(tables->file->fd) < 0)
                return fail_errno(reterr, -errno, "cannot sync %s", tables->name);
        return 0;
}

/* What the tables tell of comes first. */
static int write_changes(const WriterTables *tables, const Changes *changes, Reason *reterr) {
        uint64_t l1_offset = (tables->plan->l1_start << WRITER_CLUSTER_BITS) + changes->l1_from;
        int rc;

        rc = sync_file(tables, reterr);
        if (rc < 0 || (changes->count == 0 && !changes->l1))
                return rc;
        for (size_t i = 0; rc == 0 && i < changes->count; i++)
                rc = direct_write(tables->file, tables->copies + i * WRITER_CLUSTER, WRITER_CLUSTER,
                                  changes->tables[i].offset);
        if (rc == 0 && changes->l1)
                rc = direct_write(tables->file, changes->l1, changes->l1_to - changes->l1_from, l1_offset);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot write %s", tables->name);
        return sync_file(tables, reterr);
}

int writer_tables_flush(WriterTables *tables, Reason *reterr) {
        CLEANUP(changes_clear) Changes changes = { .count = 0 };
        int rc;

        pthread_mutex_lock(&tables->flushing);
        pthread_mutex_lock(&tables->lock);
        rc = collect(tables, &changes, reterr);
        pthread_mutex_unlock(&tables->lock);
        if (rc == 0) {
                rc = write_changes(tables, &changes, reterr);
                pthread_mutex_lock(&tables->lock);
                settle(tables, &changes, rc == 0);
                pthread_mutex_unlock(&tables->lock);
        }
        pthread_mutex_unlock(&tables->flushing);
        return rc;
}
