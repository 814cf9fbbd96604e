#include "formats/qcow2/writer.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/qcow2/layout.h"
#include "formats/qcow2/writer-tables.h"
#include "util/bytes.h"

_Static_assert(QCOW2_WRITER_GRAIN == WRITER_CLUSTER, "whole clusters are written");

#define BATCH 256u /* clusters that are looked at, given out and written at once */

struct Qcow2Writer {
        DirectFile file;
        const char *name;
        WriterPlan plan;
        WriterSpace space;    /* under the tables' lock */
        WriterTables *tables;
        bool open;            /* what is in the file is this one's, and not finished */
};

/* What is not needed of the room that was set aside goes. */
Qcow2Writer *qcow2_writer_free(Qcow2Writer *writer) {
        if (!writer)
                return NULL;
        if (writer->open)
                (void) writer_space_trim(&writer->space, NULL);
        if (writer->tables)
                writer_tables_free(writer->tables);
        writer_space_clear(&writer->space);
        free(writer);
        return NULL;
}

static int begin(const Qcow2WriterFile *file, Qcow2Writer **ret, Reason *reterr) {
        CLEANUP(qcow2_writer_freep) Qcow2Writer *writer = calloc(1, sizeof *writer);
        int rc;

        if (!writer)
                return fail_oom(reterr);
        writer->file = file->file;
        writer->name = file->name;
        rc = writer_plan_make(file->disk_size, file->backing, &writer->plan, reterr);
        if (rc == 0)
                *ret = STEAL_PTR(writer);
        return rc;
}

static int begin_tables(Qcow2Writer *writer, uint64_t file_size, Reason *reterr) {
        int rc = writer_space_begin(&writer->plan, &writer->file, writer->name, file_size, &writer->space, reterr);

        return rc < 0 ? rc : writer_tables_new(&writer->plan, &writer->file, &writer->space, writer->name, &writer->tables,
                                               reterr);
}

static int write_header(Qcow2Writer *writer, bool finished, Reason *reterr) {
        CLEANUP(freep) unsigned char *header = aligned_alloc(DIRECT_GRAIN, WRITER_CLUSTER);
        int rc;

        if (!header)
                return fail_oom(reterr);
        writer_plan_header(&writer->plan, finished, header);
        rc = direct_write(&writer->file, header, WRITER_CLUSTER, 0);
        return rc < 0 ? fail_errno(reterr, rc, "cannot write %s", writer->name) : 0;
}

int qcow2_writer_new(const Qcow2WriterFile *file, Qcow2Writer **ret, Reason *reterr) {
        CLEANUP(qcow2_writer_freep) Qcow2Writer *writer = NULL;
        int rc;

        rc = begin(file, &writer, reterr);
        if (rc < 0)
                return rc;
        if (ftruncate(file->file.fd, 0) < 0)
                return fail_errno(reterr, -errno, "cannot empty %s", file->name);
        rc = begin_tables(writer, 0, reterr);
        if (rc == 0)
                rc = write_header(writer, false, reterr);
        if (rc < 0)
                return rc;
        writer->open = true;
        *ret = STEAL_PTR(writer);
        return 0;
}

/* Whether the file begins as ours of this disk does. */
static int check_header(const Qcow2Writer *writer, uint64_t file_size, Reason *reterr) {
        CLEANUP(freep) unsigned char *found = aligned_alloc(DIRECT_GRAIN, WRITER_CLUSTER),
                                     *wanted = aligned_alloc(DIRECT_GRAIN, WRITER_CLUSTER);

        if (!found || !wanted)
                return fail_oom(reterr);
        writer_plan_header(&writer->plan, false, wanted);
        return file_size >> WRITER_CLUSTER_BITS >= writer->plan.start &&
               file_size >> WRITER_CLUSTER_BITS <= writer->plan.limit &&
               direct_read(&writer->file, found, WRITER_CLUSTER, 0) == 0 && memcmp(found, wanted, WRITER_CLUSTER) == 0;
}

int qcow2_writer_resume(const Qcow2WriterFile *file, const atomic_bool *cancel, Qcow2Writer **ret, Reason *reterr) {
        CLEANUP(qcow2_writer_freep) Qcow2Writer *writer = NULL;
        struct stat st;
        int rc;

        if (fstat(file->file.fd, &st) < 0)
                return fail_errno(reterr, -errno, "cannot look at %s", file->name);
        rc = begin(file, &writer, reterr);
        if (rc == 0)
                rc = check_header(writer, (uint64_t) st.st_size, reterr);
        if (rc <= 0)
                return rc;
        rc = begin_tables(writer, (uint64_t) st.st_size, reterr);
        if (rc == 0)
                rc = writer_tables_load(writer->tables, cancel, reterr);
        if (rc <= 0)
                return rc;
        /* What lies behind all that is in use may have anything; nothing that is lost may refer to it. */
        if (fdatasync(file->file.fd) < 0)
                return fail_errno(reterr, -errno, "cannot sync %s", file->name);
        rc = writer_space_trim(&writer->space, reterr);
        if (rc < 0)
                return rc;
        writer->open = true;
        *ret = STEAL_PTR(writer);
        return 1;
}

uint64_t qcow2_writer_size(const Qcow2Writer *writer) {
        return writer->plan.clusters << WRITER_CLUSTER_BITS;
}

/* A range of clusters that lies within one L2 table. */
typedef struct Part {
        uint64_t table;
        uint32_t entry, count;
} Part;

static Part part_of(uint64_t length, uint64_t offset, uint32_t max) {
        uint64_t cluster = offset >> WRITER_CLUSTER_BITS;
        uint32_t entry = (uint32_t) (cluster % WRITER_ENTRIES);

        return (Part) { cluster / WRITER_ENTRIES, entry,
                        (uint32_t) min_u64(min_u64(length >> WRITER_CLUSTER_BITS, max), WRITER_ENTRIES - entry) };
}

static void check_range(const Qcow2Writer *writer, uint64_t length, uint64_t offset) {
        assert(offset % WRITER_CLUSTER == 0 && length % WRITER_CLUSTER == 0);
        assert(offset <= qcow2_writer_size(writer) && length <= qcow2_writer_size(writer) - offset);
}

/* Offset in the file of the cluster that an entry refers to; 0: none. */
static uint64_t entry_host(uint64_t entry) {
        return entry & QCOW2_OFFSET_MASK;
}

/* With the lock. */
static int load_entries(Qcow2Writer *writer, const Part *part, uint64_t *ret, Reason *reterr) {
        const unsigned char *entries;
        int rc = writer_tables_peek(writer->tables, part->table, &entries, reterr);

        for (uint32_t i = 0; rc == 0 && i < part->count; i++)
                ret[i] = entries ? load_be64(entries + 8 * (part->entry + i)) : 0;
        return rc;
}

/* Gives a place to those that have none. With the lock. */
static int take_places(Qcow2Writer *writer, uint64_t *entries, uint32_t count, Reason *reterr) {
        for (uint32_t at = 0, wanted; at < count; at += wanted) {
                uint64_t first, taken;
                int rc;

                for (wanted = 0; at + wanted < count && entry_host(entries[at + wanted]) == 0; wanted++)
                        ;
                if (wanted == 0) {
                        wanted = 1;
                        continue;
                }
                rc = writer_space_take(&writer->space, wanted, &first, &taken, reterr);
                if (rc < 0)
                        return rc;
                wanted = (uint32_t) taken;
                for (uint32_t i = 0; i < wanted; i++)
                        entries[at + i] = QCOW2_COPIED | (first + i) << WRITER_CLUSTER_BITS;
        }
        return 0;
}

/* With the lock. */
static int store_entries(Qcow2Writer *writer, const Part *part, const uint64_t *entries, Reason *reterr) {
        unsigned char *stored;
        int rc = writer_tables_make(writer->tables, part->table, &stored, reterr);

        for (uint32_t i = 0; rc == 0 && i < part->count; i++) {
                store_be64(stored + 8 * (part->entry + i), entries[i]);
                writer_space_use(&writer->space, entry_host(entries[i]) >> WRITER_CLUSTER_BITS);
        }
        return rc;
}

/* How many from `at` on follow each other in the file, or have all no place in it. */
static uint32_t run_length(const uint64_t *entries, uint32_t at, uint32_t count) {
        uint64_t step = entry_host(entries[at]) > 0 ? WRITER_CLUSTER : 0;
        uint32_t length = 1;

        while (at + length < count && entry_host(entries[at + length]) == entry_host(entries[at]) + length * step)
                length++;
        return length;
}

static int write_clusters(const Qcow2Writer *writer, const unsigned char *buffer, const uint64_t *entries, uint32_t count,
                          Reason *reterr) {
        for (uint32_t at = 0, run; at < count; at += run) {
                int rc;

                run = run_length(entries, at, count);
                rc = direct_write(&writer->file, buffer + (size_t) at * WRITER_CLUSTER, (size_t) run * WRITER_CLUSTER,
                                  entry_host(entries[at]));
                if (rc < 0)
                        return fail_errno(reterr, rc, "cannot write %s", writer->name);
        }
        return 0;
}

/* The tables tell of a cluster once it is written. */
static int write_part(Qcow2Writer *writer, const unsigned char *buffer, const Part *part, Reason *reterr) {
        uint64_t entries[BATCH];
        bool placed = false;
        int rc;

        writer_tables_lock(writer->tables);
        rc = load_entries(writer, part, entries, reterr);
        for (uint32_t i = 0; rc == 0 && i < part->count; i++)
                placed |= entry_host(entries[i]) == 0;
        if (rc == 0 && placed)
                rc = take_places(writer, entries, part->count, reterr);
        writer_tables_unlock(writer->tables);
        if (rc == 0)
                rc = write_clusters(writer, buffer, entries, part->count, reterr);
        if (rc < 0 || !placed)
                return rc;
        writer_tables_lock(writer->tables);
        rc = store_entries(writer, part, entries, reterr);
        writer_tables_unlock(writer->tables);
        return rc;
}

int qcow2_writer_write(Qcow2Writer *writer, const void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        const unsigned char *from = buffer;

        check_range(writer, length, offset);
        while (length > 0) {
                Part part = part_of(length, offset, BATCH);
                size_t bytes = (size_t) part.count * WRITER_CLUSTER;
                int rc = write_part(writer, from, &part, reterr);

                if (rc < 0)
                        return rc;
                from += bytes;
                offset += bytes;
                length -= bytes;
        }
        return 0;
}

/* The entry of a cluster of zeroes that has no place. */
static uint64_t zero_entry(const Qcow2Writer *writer) {
        return writer->plan.backing ? QCOW2_ZERO : 0;
}

static bool reads_as_zero(const Qcow2Writer *writer, uint64_t entry) {
        return entry == QCOW2_ZERO || (entry == 0 && !writer->plan.backing);
}

/* With the lock. What had a place gives it up: nothing is written there again. */
static int zero_part(Qcow2Writer *writer, const Part *part, Reason *reterr) {
        const unsigned char *found;
        unsigned char *stored;
        bool changes = false;
        int rc;

        rc = writer_tables_peek(writer->tables, part->table, &found, reterr);
        if (rc < 0)
                return rc;
        for (uint32_t i = 0; i < part->count && !changes; i++)
                changes = !reads_as_zero(writer, found ? load_be64(found + 8 * (part->entry + i)) : 0);
        if (!changes)
                return 0;
        rc = writer_tables_make(writer->tables, part->table, &stored, reterr);
        for (uint32_t i = 0; rc == 0 && i < part->count; i++) {
                unsigned char *entry = stored + 8 * (part->entry + i);

                if (entry_host(load_be64(entry)) > 0)
                        writer_space_drop(&writer->space, entry_host(load_be64(entry)) >> WRITER_CLUSTER_BITS);
                store_be64(entry, zero_entry(writer));
        }
        return rc;
}

int qcow2_writer_zero(Qcow2Writer *writer, uint64_t length, uint64_t offset, Reason *reterr) {
        check_range(writer, length, offset);
        while (length > 0) {
                Part part = part_of(length, offset, WRITER_ENTRIES);
                uint64_t bytes = (uint64_t) part.count * WRITER_CLUSTER;
                int rc;

                writer_tables_lock(writer->tables);
                rc = zero_part(writer, &part, reterr);
                writer_tables_unlock(writer->tables);
                if (rc < 0)
                        return rc;
                offset += bytes;
                length -= bytes;
        }
        return 0;
}

static int read_clusters(const Qcow2Writer *writer, unsigned char *buffer, const uint64_t *entries, uint32_t count,
                         Reason *reterr) {
        for (uint32_t at = 0, run; at < count; at += run) {
                unsigned char *to = buffer + (size_t) at * WRITER_CLUSTER;
                int rc = 0;

                run = run_length(entries, at, count);
                if (entry_host(entries[at]) > 0)
                        rc = direct_read(&writer->file, to, (size_t) run * WRITER_CLUSTER, entry_host(entries[at]));
                else
                        memset(to, 0, (size_t) run * WRITER_CLUSTER);
                if (rc < 0)
                        return fail_errno(reterr, rc, "cannot read %s", writer->name);
        }
        return 0;
}

int qcow2_writer_read(Qcow2Writer *writer, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        unsigned char *to = buffer;

        check_range(writer, length, offset);
        while (length > 0) {
                Part part = part_of(length, offset, BATCH);
                size_t bytes = (size_t) part.count * WRITER_CLUSTER;
                uint64_t entries[BATCH];
                int rc;

                writer_tables_lock(writer->tables);
                rc = load_entries(writer, &part, entries, reterr);
                writer_tables_unlock(writer->tables);
                for (uint32_t i = 0; rc == 0 && i < part.count; i++)
                        if (entries[i] == 0 && writer->plan.backing)
                                rc = fail(reterr, -EOPNOTSUPP, "%s has not all of it: its backing file does", writer->name);
                if (rc == 0)
                        rc = read_clusters(writer, to, entries, part.count, reterr);
                if (rc < 0)
                        return rc;
                to += bytes;
                offset += bytes;
                length -= bytes;
        }
        return 0;
}

/* With the lock. How many clusters of the part are zeroes, from its beginning on. */
static uint32_t count_zeroes(Qcow2Writer *writer, const Part *part) {
        const unsigned char *entries;
        uint32_t count = 0;

        if (writer_tables_peek(writer->tables, part->table, &entries, NULL) < 0)
                return 0;
        while (count < part->count && reads_as_zero(writer, entries ? load_be64(entries + 8 * (part->entry + count)) : 0))
                count++;
        return count;
}

uint64_t qcow2_writer_zeroes(Qcow2Writer *writer, uint64_t length, uint64_t offset) {
        uint64_t end = min_u64(round_up(offset + length, WRITER_CLUSTER), qcow2_writer_size(writer));
        uint64_t at = round_down(offset, WRITER_CLUSTER);

        writer_tables_lock(writer->tables);
        while (at < end) {
                Part part = part_of(end - at, at, WRITER_ENTRIES);
                uint32_t zeroes = count_zeroes(writer, &part);

                at += (uint64_t) zeroes * WRITER_CLUSTER;
                if (zeroes < part.count)
                        break;
        }
        writer_tables_unlock(writer->tables);
        return at > offset ? min_u64(at - offset, length) : 0;
}

int qcow2_writer_sync(Qcow2Writer *writer, Reason *reterr) {
        return writer_tables_flush(writer->tables, reterr);
}

int qcow2_writer_finish(Qcow2Writer *writer, Reason *reterr) {
        int rc;

        rc = writer_tables_flush(writer->tables, reterr);
        if (rc == 0)
                rc = writer_space_count(&writer->space, reterr);
        if (rc == 0)
                rc = writer_space_trim(&writer->space, reterr);
        /* The header says that all is in order: that has to be so by then, whatever is lost. */
        if (rc == 0 && fdatasync(writer->file.fd) < 0)
                rc = fail_errno(reterr, -errno, "cannot sync %s", writer->name);
        if (rc == 0)
                rc = write_header(writer, true, reterr);
        if (rc == 0 && fsync(writer->file.fd) < 0)
                rc = fail_errno(reterr, -errno, "cannot sync %s", writer->name);
        writer->open = rc < 0;
        return rc;
}
