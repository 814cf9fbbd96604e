/* core/formats/vma/find.c - archives in a directory. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <uuid/uuid.h>

#include "formats/vma/peek.h"
#include "formats/vma/vma.h"
#include "util/io.h"
#include "util/text.h"

#define ENDING ".vma"
#define QEMU_SERVER_CONF "qemu-server.conf"
#define WORD_MAX 200

static bool ends_with(const char *text, size_t length, const char *end) {
        size_t end_length = strlen(end);

        return length > end_length && memcmp(text + length - end_length, end, end_length) == 0;
}

static bool has_ending(const char *name) {
        static const Packing *const packings[] = { &packing_zstd, &packing_gzip, &packing_lzop };
        size_t length = strlen(name);

        for (size_t i = 0; i < sizeof packings / sizeof *packings; i++)
                if (ends_with(name, length, packings[i]->ending)) {
                        length -= strlen(packings[i]->ending);
                        break;
                }
        return ends_with(name, length, ENDING);
}

/* Under whatever name. */
static bool has_magic(const FoundDirectory *directory, const char *path, const struct stat *st) {
        CLEANUP(close_fd) int fd = -1;
        char magic[sizeof VMA_MAGIC];

        if (st->st_size <= (off_t) VMA_HEADER_SIZE)
                return false;
        fd = open_beneath(layer_store_root(directory->store), path, O_RDONLY | O_NONBLOCK, 0);
        return fd >= 0 && pread_whole(fd, magic, sizeof magic, 0) == 0 && memcmp(magic, VMA_MAGIC, sizeof magic) == 0;
}

/* What the archive says of its VM. */
typedef struct Identity {
        char name[WORD_MAX];
        char uuid[UUID_STR_LEN];
} Identity;

/* The line's value where it has that key. */
static bool take_value(const char *line, size_t length, const char *key, char ret[static WORD_MAX]) {
        size_t key_length = strlen(key);

        if (length <= key_length + 1 || memcmp(line, key, key_length) != 0 || line[key_length] != ':')
                return false;
        line += key_length + 1;
        length -= key_length + 1;
        while (length > 0 && *line == ' ') {
                line++;
                length--;
        }
        while (length > 0 && (line[length - 1] == ' ' || line[length - 1] == '\r'))
                length--;
        if (length == 0 || length >= WORD_MAX || memchr(line, 0, length))
                return false;
        memcpy(ret, line, length);
        ret[length] = 0;
        return true;
}

/* "uuid=…" among the words of smbios1. */
static void take_uuid(const char *value, Identity *identity) {
        const char *found = strncmp(value, "uuid=", 5) == 0 ? value : strstr(value, ",uuid=");
        char text[UUID_STR_LEN];
        uuid_t uuid;

        if (!found)
                return;
        found = strchr(found, '=') + 1;
        snprintf(text, sizeof text, "%.*s", (int) strcspn(found, ","), found);
        if (uuid_parse(text, uuid) == 0)
                uuid_unparse_lower(uuid, identity->uuid);
}

/* The configuration up to the first section, which is that of a snapshot. */
static void read_configuration(const VmaConfig *config, Identity *identity) {
        const char *text = config->data, *end = text + config->length;

        for (const char *line = text; line < end && *line != '[';) {
                const char *newline = memchr(line, '\n', (size_t) (end - line));
                size_t length = (size_t) ((newline ?: end) - line);
                char value[WORD_MAX];

                if (take_value(line, length, "name", value))
                        memcpy(identity->name, value, sizeof value);
                else if (take_value(line, length, "smbios1", value))
                        take_uuid(value, identity);
                line += length + 1;
        }
}

/* vzdump-qemu-ID-TIME: the number, where the configuration has no name. */
static void read_file_name(const char *name, Identity *identity) {
        static const char begin[] = "vzdump-qemu-";
        size_t digits;

        if (strncmp(name, begin, sizeof begin - 1) != 0)
                return;
        name += sizeof begin - 1;
        digits = strspn(name, "0123456789");
        if (digits > 0 && digits < 20 && name[digits] == '-')
                snprintf(identity->name, sizeof identity->name, "%.*s", (int) digits, name);
}

static Identity identify(const VmaHeader *header, const char *name) {
        Identity identity = { "", "" };

        for (size_t i = 0; i < header->config_count; i++)
                if (strcmp(header->configs[i].name, QEMU_SERVER_CONF) == 0)
                        read_configuration(&header->configs[i], &identity);
        if (!*identity.name)
                read_file_name(name, &identity);
        return identity;
}

/* "drive-scsi0" is scsi0, "drive-tpmstate0-backup" tpmstate0. */
static void shorten(const char *name, char ret[static WORD_MAX + 1]) {
        size_t length;

        if (strncmp(name, "drive-", 6) == 0 && name[6] && name[6] != '.')
                name += 6;
        length = strlen(name);
        if (strncmp(name, "tpmstate", 8) == 0 && ends_with(name, length, "-backup"))
                length -= strlen("-backup");
        snprintf(ret, WORD_MAX + 1, "%.*s", (int) length, name);
}

/* The name that a device has as a disk: no two have the same. */
static void name_disk(const VmaHeader *header, unsigned device, char ret[static WORD_MAX + 1]) {
        char other[WORD_MAX + 1];

        shorten(header->devices[device].name, ret);
        for (unsigned i = 1; i < VMA_DEVICE_COUNT; i++) {
                if (i == device || !header->devices[i].name)
                        continue;
                shorten(header->devices[i].name, other);
                if (strcmp(other, ret) == 0) {
                        snprintf(ret, WORD_MAX + 1, "%s", header->devices[device].name);
                        return;
                }
        }
}

static int add_devices(FoundDirectory *directory, const FoundLayer *common, const VmaHeader *header, uint64_t length) {
        double total = 0;
        int rc = 0;

        for (unsigned i = 1; i < VMA_DEVICE_COUNT; i++)
                total += (double) header->devices[i].size;
        for (unsigned i = 1; i < VMA_DEVICE_COUNT && rc == 0; i++) {
                const VmaDevice *device = &header->devices[i];
                char disk[WORD_MAX + 1], member[32];
                FoundLayer layer = *common;

                if (!device->name)
                        continue;
                snprintf(member, sizeof member, VMA_MEMBER_DEVICE "%u", i);
                layer.location.member = member;
                if (device->ram) {
                        rc = found_add_kept(directory, &(FoundKept) { common->point, device->name, device->size,
                                                                      common->time, layer.location });
                        continue;
                }
                name_disk(header, i, disk);
                layer.disk = disk;
                layer.size = device->size;
                /* Each takes its share of what is not told apart without reading all of it. */
                layer.stored = (uint64_t) ((double) device->size / total * (double) length);
                rc = found_add_layer(directory, &layer);
        }
        return rc;
}

static int add_configs(FoundDirectory *directory, const FoundLayer *common, const VmaHeader *header) {
        int rc = 0;

        for (size_t i = 0; i < header->config_count && rc == 0; i++) {
                char member[32];
                FoundKept kept = {
                        .point = common->point,
                        .name = header->configs[i].name,
                        .length = header->configs[i].length,
                        .time = common->time,
                        .location = common->location,
                };

                snprintf(member, sizeof member, VMA_MEMBER_CONFIG "%zu", i);
                kept.location.member = member;
                rc = found_add_kept(directory, &kept);
        }
        return rc;
}

static int read_header(FoundDirectory *directory, const char *path, const Packing **ret_packing, VmaHeader **ret,
                       Reason *reterr) {
        CLEANUP(byte_store_freep) ByteStore *file = NULL;
        int rc = file_store_open(layer_store_root(directory->store), path, layer_store_files(directory->store), &file,
                                 reterr);

        return rc < 0 ? rc : vma_peek(file, ret_packing, ret, reterr);
}

static int add_archive(FoundDirectory *directory, FoundEntry *entry, const char *path) {
        CLEANUP(vma_header_freep) VmaHeader *header = NULL;
        CLEANUP(freep) char *note = NULL;
        const Packing *packing = NULL;
        Reason reason = REASON_INIT;
        FoundLayer common;
        Identity identity;
        int rc;

        rc = read_header(directory, path, &packing, &header, &reason);
        if (rc == -ENOMEM)
                return rc;
        if (rc < 0)
                return found_refuse(directory, entry, reason.text);
        if (packing && text_format(&note, "packed by %s: unpacked into the cache directory by who first reads it, unless %s",
                                   packing->name, "it is zstd's with many frames") < 0)
                return -ENOMEM;
        identity = identify(header, entry->name);
        common = (FoundLayer) {
                .vm = *identity.name ? identity.name : NULL,
                .vm_uuid = *identity.uuid ? identity.uuid : NULL,
                .point = path,
                .kind = FOUND_FULL,
                .time = header->time > 0 ? (struct timespec) { .tv_sec = header->time } : entry->st.st_mtim,
                .note = note,
                .location = { "vma", path, NULL, (uint64_t) entry->st.st_size, found_seal(&entry->st) },
        };
        entry->claimed = true;
        rc = add_devices(directory, &common, header, common.location.length);
        return rc < 0 ? rc : add_configs(directory, &common, header);
}

int vma_find(FoundDirectory *directory, Reason *reterr) {
        for (size_t i = 0; i < directory->entry_count; i++) {
                FoundEntry *entry = &directory->entries[i];
                CLEANUP(freep) char *path = NULL;

                if (entry->claimed || !S_ISREG(entry->st.st_mode))
                        continue;
                path = found_path(directory, entry->name);
                if (!path)
                        return fail_oom(reterr);
                if ((has_ending(entry->name) || has_magic(directory, path, &entry->st)) &&
                    add_archive(directory, entry, path) < 0)
                        return fail_oom(reterr);
        }
        return 0;
}
