#include "formats/qcow2/bitmaps.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/bytes.h"
#include "util/cleanup.h"

#define ENTRY_LENGTH 24u
#define NAME_MAX_LENGTH 1023u
#define NAMED_MAX 16 /* more are counted */
#define FLAG_IN_USE 1u

/* The entry at *at of a directory, which is moved behind it, as words. */
static int describe_entry(ByteStore *image, uint64_t *at, uint64_t end, FILE *to, Reason *reterr) {
        unsigned char bytes[ENTRY_LENGTH];
        char name[NAME_MAX_LENGTH + 1];
        uint64_t length, name_at;
        uint32_t name_length;
        int rc;

        if (end - *at < ENTRY_LENGTH)
                return fail(reterr, -EBADMSG, "their directory ends within an entry");
        rc = byte_store_read(image, bytes, sizeof bytes, *at, reterr);
        if (rc < 0)
                return rc;
        name_length = load_be16(bytes + 18);
        name_at = *at + ENTRY_LENGTH + load_be32(bytes + 20);
        length = round_up(ENTRY_LENGTH + (uint64_t) load_be32(bytes + 20) + name_length, 8);
        if (name_length > NAME_MAX_LENGTH || length > end - *at)
                return fail(reterr, -EBADMSG, "their directory has an entry that is too long");
        rc = byte_store_read(image, name, name_length, name_at, reterr);
        if (rc < 0)
                return rc;
        name[name_length] = 0;
        fprintf(to, "%s%s", name, load_be32(bytes + 12) & FLAG_IN_USE ? " (not saved)" : "");
        *at += length;
        return 0;
}

static int describe(ByteStore *image, const Qcow2Header *header, FILE *to, Reason *reterr) {
        uint64_t at = header->bitmaps_offset, end = at + header->bitmaps_length;
        int rc = 0;

        for (uint32_t i = 0; rc >= 0 && i < header->bitmap_count && i < NAMED_MAX; i++) {
                if (i > 0)
                        fputs(", ", to);
                rc = describe_entry(image, &at, end, to, reterr);
        }
        if (header->bitmap_count > NAMED_MAX)
                fprintf(to, " and %u more", header->bitmap_count - NAMED_MAX);
        return rc;
}

int qcow2_bitmaps_describe(ByteStore *image, const Qcow2Header *header, char **ret, Reason *reterr) {
        CLEANUP(freep) char *text = NULL;
        size_t length;
        FILE *to;
        int rc;

        if (header->bitmap_count == 0 || header->bitmaps_stale) {
                *ret = NULL;
                return 0;
        }
        if (header->bitmaps_offset > byte_store_size(image) ||
            header->bitmaps_length > byte_store_size(image) - header->bitmaps_offset)
                return fail(reterr, -EBADMSG, "their directory lies past the file's end");
        to = open_memstream(&text, &length);
        if (!to)
                return fail_oom(reterr);
        rc = describe(image, header, to, reterr);
        if (fclose(to) != 0)
                return fail_oom(reterr);
        if (rc >= 0)
                *ret = STEAL_PTR(text);
        return rc;
}
