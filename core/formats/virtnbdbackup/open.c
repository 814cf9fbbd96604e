#include "formats/virtnbdbackup/archive.h"
#include "formats/virtnbdbackup/member.h"
#include "formats/virtnbdbackup/metadata.h"
#include "formats/virtnbdbackup/plain.h"
#include "formats/virtnbdbackup/stream.h"
#include "formats/virtnbdbackup/virtnbdbackup.h"

#include <errno.h>

/* The bytes of a member in place of those of the zip file. */
static int enter_archive(const char *name, ByteStore **bytes, uint32_t *ret_crc, Reason *reterr) {
        CLEANUP(archive_clear) Archive archive = { 0 };
        const ArchiveMember *found;
        int rc = archive_read(*bytes, &archive, reterr);

        if (rc < 0)
                return rc;
        found = archive_find(&archive, name);
        if (!found)
                return fail(reterr, -EIO, "%s has no member %s", byte_store_name(*bytes), name);
        *ret_crc = found->crc;
        return archive_open(STEAL_PTR(*bytes), found, bytes, reterr);
}

int virtnbdbackup_open_bytes(LayerStore *store, const LayerLocation *location, Member *ret_member, ByteStore **ret,
                             uint32_t *ret_crc, Reason *reterr) {
        CLEANUP(byte_store_freep) ByteStore *bytes = NULL;
        int rc = member_parse(location->member, ret_member);

        if (rc < 0)
                return fail(reterr, rc, "%s: \"%s\" is nothing that can be in it", location->path, location->member);
        rc = layer_store_open_file(store, location, &bytes, reterr);
        if (rc >= 0 && ret_member->name)
                rc = enter_archive(ret_member->name, &bytes, ret_crc, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(bytes);
        return 0;
}

int virtnbdbackup_open(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr) {
        CLEANUP(byte_store_freep) ByteStore *bytes = NULL;
        Window window = { 0 };
        uint32_t crc;
        Member member;
        int rc = virtnbdbackup_open_bytes(store, location, &member, &bytes, &crc, reterr);

        if (rc < 0)
                return rc;
        if (member.name) {
                rc = metadata_begins(bytes, &window, reterr);
                if (rc < 0)
                        return rc;
                if (rc == 0)
                        return plain_open(STEAL_PTR(bytes), ret, reterr);
        }
        return stream_open(store, location, STEAL_PTR(bytes), member.grown_from, ret, reterr);
}
