#include "formats/vma/header.h"

#include <errno.h>
#include <inttypes.h>
#include <nettle/md5.h>
#include <string.h>

#include "util/bytes.h"

#define CLUSTERS_MAX (UINT64_C(1) << 32) /* of all devices together: 256 TiB */
#define NAME_LIMIT 201 /* bytes, NUL included */
#define TIME_MAX INT64_C(253402300799) /* the end of the year 9999 */

void vma_md5(unsigned char *bytes, size_t length, size_t md5_at, unsigned char ret[static 16]) {
        static const unsigned char zeroes[MD5_DIGEST_SIZE];
        struct md5_ctx context;

        md5_init(&context);
        md5_update(&context, md5_at, bytes);
        md5_update(&context, sizeof zeroes, zeroes);
        md5_update(&context, length - md5_at - sizeof zeroes, bytes + md5_at + sizeof zeroes);
        md5_digest(&context, MD5_DIGEST_SIZE, ret);
}

int vma_header_length(const void *bytes, uint32_t *ret, Reason *reterr) {
        const unsigned char *header = bytes;
        uint32_t version, size;

        if (memcmp(header, VMA_MAGIC, sizeof VMA_MAGIC) != 0)
                return fail(reterr, -EBADMSG, "it does not begin as a VMA archive does");
        version = load_be32(header + 4);
        if (version != VMA_VERSION)
                return fail(reterr, -ENOTSUP, "it is a VMA archive of version %" PRIu32 ": only version 1 is known",
                            version);
        size = load_be32(header + 56);
        if (size <= VMA_HEADER_SIZE || size > VMA_HEADER_MAX || size % 512 != 0)
                return fail(reterr, -EBADMSG, "its header is damaged: it cannot have %" PRIu32 " bytes", size);
        *ret = size;
        return 0;
}

/* The blobs: what lies where. */
typedef struct Blobs {
        const unsigned char *bytes; /* from the offset of the blobs on */
        size_t length;
        unsigned char *starts;      /* a bit for each byte: a blob begins here */
} Blobs;

static void free_starts(Blobs *blobs) {
        free(blobs->starts);
}

/* Whatever points to a blob has to point to the beginning of one. */
static int find_blobs(const unsigned char *header, uint32_t size, Blobs *ret, Reason *reterr) {
        uint32_t offset = load_be32(header + 48), length = load_be32(header + 52);
        size_t at = 1;

        if (offset < VMA_HEADER_SIZE || offset > size || length > size - offset)
                return fail(reterr, -EBADMSG, "its header is damaged: its names cannot be %" PRIu32 " bytes at %" PRIu32,
                            length, offset);
        ret->bytes = header + offset;
        ret->length = length;
        ret->starts = calloc(length / 8 + 1, 1);
        if (!ret->starts)
                return fail_oom(reterr);
        while (at + 2 <= length) {
                size_t blob = load_le16(ret->bytes + at);

                if (blob > length - at - 2)
                        break;
                ret->starts[at / 8] |= (unsigned char) (1u << at % 8);
                at += 2 + blob;
        }
        return 0;
}

static const unsigned char *get_blob(const Blobs *blobs, uint32_t at, size_t *ret_length) {
        if (at >= blobs->length || !(blobs->starts[at / 8] & (1u << at % 8)))
                return NULL;
        *ret_length = load_le16(blobs->bytes + at);
        return blobs->bytes + at + 2;
}

/* A name: what ends with its only NUL, and can be the name of a file. */
static const char *get_name(const Blobs *blobs, uint32_t at) {
        size_t length;
        const unsigned char *name = get_blob(blobs, at, &length);

        if (!name || length < 2 || length > NAME_LIMIT || memchr(name, 0, length) != name + length - 1 || *name == '.')
                return NULL;
        for (const unsigned char *c = name; *c; c++)
                if (*c < ' ' || *c == 0x7f || *c == '/')
                        return NULL;
        return (const char *) name;
}

static int load_devices(VmaHeader *header, const Blobs *blobs, Reason *reterr) {
        uint64_t clusters = 0;

        for (unsigned i = 1; i < VMA_DEVICE_COUNT; i++) {
                const unsigned char *info = header->bytes + VMA_DEVICES + i * VMA_DEVICE_SIZE;
                uint32_t name_at = load_be32(info);
                VmaDevice *device = &header->devices[i];
                const char *name;

                device->size = load_be64(info + 8);
                if (device->size == 0)
                        continue;
                name = get_name(blobs, name_at);
                if (!name)
                        return fail(reterr, -EBADMSG, "its header is damaged: device %u has no name that can be used", i);
                device->clusters = divide_up(device->size, VMA_CLUSTER_SIZE);
                if (device->clusters > CLUSTERS_MAX - clusters)
                        return fail(reterr, -EBADMSG, "its header is damaged: device %u (%s) cannot have %" PRIu64 " bytes",
                                    i, name, device->size);
                for (unsigned other = 1; other < i; other++)
                        if (header->devices[other].name && strcmp(header->devices[other].name, name) == 0)
                                return fail(reterr, -EBADMSG, "its header is damaged: two devices are named %s", name);
                device->ram = strcmp(name, VMA_VMSTATE) == 0;
                device->name = name;
                clusters += device->clusters;
        }
        return clusters > 0 ? 0 : fail(reterr, -EBADMSG, "it has no devices");
}

static int load_configs(VmaHeader *header, const Blobs *blobs, Reason *reterr) {
        for (unsigned i = 0; i < VMA_CONFIG_COUNT; i++) {
                uint32_t name_at = load_be32(header->bytes + VMA_CONFIG_NAMES + i * 4);
                uint32_t data_at = load_be32(header->bytes + VMA_CONFIG_DATA + i * 4);
                VmaConfig *config = &header->configs[header->config_count];

                if (name_at == 0 || data_at == 0)
                        continue;
                config->name = get_name(blobs, name_at);
                config->data = get_blob(blobs, data_at, &config->length);
                if (!config->name || !config->data)
                        return fail(reterr, -EBADMSG, "its header is damaged: configuration file %u has no name that can "
                                                      "be used, or no content", i);
                for (unsigned other = 0; other < header->config_count; other++)
                        if (strcmp(header->configs[other].name, config->name) == 0)
                                return fail(reterr, -EBADMSG, "its header is damaged: two configuration files are named %s",
                                            config->name);
                header->config_count++;
        }
        return 0;
}

int vma_header_load(void *bytes, VmaHeader **ret, Reason *reterr) {
        CLEANUP(freep) VmaHeader *header = calloc(1, sizeof *header);
        CLEANUP(free_starts) Blobs blobs = { 0 };
        unsigned char md5[16];
        int rc;

        if (!header)
                return fail_oom(reterr);
        header->bytes = bytes;
        rc = vma_header_length(bytes, &header->size, reterr);
        if (rc < 0)
                return rc;
        vma_md5(bytes, header->size, VMA_HEADER_MD5_AT, md5);
        if (memcmp(md5, header->bytes + VMA_HEADER_MD5_AT, sizeof md5) != 0)
                return fail(reterr, -EBADMSG, "its header is damaged: the MD5 does not fit");
        memcpy(header->uuid, header->bytes + 8, sizeof header->uuid);
        if (load_be64(header->bytes + 24) > (uint64_t) TIME_MAX)
                return fail(reterr, -EBADMSG, "its header is damaged: its time is past the year 9999");
        header->time = (int64_t) load_be64(header->bytes + 24);
        rc = find_blobs(header->bytes, header->size, &blobs, reterr);
        if (rc == 0)
                rc = load_devices(header, &blobs, reterr);
        if (rc == 0)
                rc = load_configs(header, &blobs, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(header);
        return 0;
}

VmaHeader *vma_header_free(VmaHeader *header) {
        if (header)
                free(header->bytes);
        free(header);
        return NULL;
}
