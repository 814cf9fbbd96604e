/* core/formats/virtnbdbackup/check.c - compares a file with the checksum that its writer noted of it. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <zlib.h>

#include "formats/virtnbdbackup/member.h"
#include "formats/virtnbdbackup/virtnbdbackup.h"
#include "util/bytes.h"
#include "util/file.h"
#include "util/text.h"

#define SIDECAR ".chksum"     /* of a stream: its Adler-32, in decimal */
#define SIDECAR_LENGTH_MAX 32 /* bytes */
#define AT_ONCE (1u << 20)    /* bytes */

typedef uLong Sum(uLong sum, const Bytef *bytes, z_size_t length);

static int sum_up(ByteStore *bytes, Sum *add, uLong sum, const LayerCheck *check, uint32_t *ret, Reason *reterr) {
        CLEANUP(freep) unsigned char *buffer = malloc(AT_ONCE);
        uint64_t size = byte_store_size(bytes);

        if (!buffer)
                return fail_oom(reterr);
        for (uint64_t at = 0; at < size;) {
                size_t length = (size_t) min_u64(size - at, AT_ONCE);
                int rc = byte_store_read(bytes, buffer, length, at, reterr);

                if (rc < 0)
                        return rc;
                sum = add(sum, buffer, length);
                at += length;
                if (check->progress && check->progress(check->context, at, size) < 0)
                        return fail(reterr, -ECANCELED, "interrupted");
        }
        *ret = (uint32_t) sum;
        return 0;
}

static int compare(ByteStore *bytes, Sum *add, uLong sum, uint32_t noted, const char *where, const LayerCheck *check,
                   Reason *reterr) {
        uint32_t found = 0;
        int rc = sum_up(bytes, add, sum, check, &found, reterr);

        if (rc == 0 && found != noted)
                return fail(reterr, -EBADMSG, "%s is damaged: its checksum is %" PRIu32 ", and %" PRIu32 " in %s",
                            byte_store_name(bytes), found, noted, where);
        return rc;
}

/* 1: there is none. */
static int read_sidecar(LayerStore *store, const char *path, uint32_t *ret, Reason *reterr) {
        CLEANUP(freep) char *text = NULL;
        size_t length;
        unsigned long long value;
        char *end;
        int rc = read_file(layer_store_root(store), path, SIDECAR_LENGTH_MAX, &text, &length, reterr);

        if (rc == -ENOENT)
                return 1;
        if (rc == -EFBIG)
                return fail(reterr, -EBADMSG, "%s is no checksum", path);
        if (rc < 0)
                return rc;
        errno = 0;
        value = strtoull(text, &end, 10);
        if (errno || end == text || strspn(end, " \r\n") != strlen(end) || value > UINT32_MAX || *text < '0' || *text > '9')
                return fail(reterr, -EBADMSG, "%s is no checksum", path);
        *ret = (uint32_t) value;
        return 0;
}

static int check_stream(LayerStore *store, const char *path, ByteStore *bytes, const LayerCheck *check, Reason *reterr) {
        CLEANUP(freep) char *sidecar = NULL;
        uint32_t noted = 0;
        int rc;

        if (text_format(&sidecar, "%s" SIDECAR, path) < 0)
                return fail_oom(reterr);
        rc = read_sidecar(store, sidecar, &noted, reterr);
        if (rc != 0)
                return rc < 0 ? rc : 0;
        return compare(bytes, adler32_z, 1, noted, sidecar, check, reterr);
}

int virtnbdbackup_check(LayerStore *store, const LayerLocation *location, const LayerCheck *check, Reason *reterr) {
        CLEANUP(byte_store_freep) ByteStore *bytes = NULL;
        uint32_t crc = 0;
        Member member;
        int rc = virtnbdbackup_open_bytes(store, location, &member, &bytes, &crc, reterr);

        if (rc < 0)
                return rc;
        return member.name ? compare(bytes, crc32_z, 0, crc, "the directory of the zip file", check, reterr)
                           : check_stream(store, location->path, bytes, check, reterr);
}
