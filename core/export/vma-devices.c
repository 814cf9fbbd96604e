#include "export/vma-devices.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "util/bytes.h"
#include "util/xml.h"

/* Where disks can be plugged in, and how many at most; the last one takes what the others cannot. */
static const struct {
        const char *bus, *prefix; /* libvirt's bus, and what names of such disks begin with */
        unsigned limit;
} buses[] = {
        { "virtio", "vd", 16 },
        { "sata", NULL, 6 },
        { "ide", "hd", 4 },
        { "scsi", "sd", 31 },
};
#define BUS_COUNT (sizeof buses / sizeof *buses)
#define BUS_SCSI (BUS_COUNT - 1)
#define MEMORY_DEFAULT 1024 /* MiB, where nothing is known */

/* "scsi0", "efidisk0": named by Proxmox. */
static bool is_proxmox_name(const char *name) {
        static const char *const words[] = { "scsi", "virtio", "sata", "ide", "efidisk", "tpmstate" };

        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
                size_t length = strlen(words[i]), digits;

                if (strncmp(name, words[i], length) != 0)
                        continue;
                digits = strspn(name + length, "0123456789");
                if (digits > 0 && digits <= 2 && !name[length + digits])
                        return true;
        }
        return false;
}

static xmlNode *find_disk(const xmlNode *root, const char *name) {
        for (xmlNode *disk = xml_child(xml_child(root, "devices"), "disk"); disk; disk = xml_next(disk))
                if (xml_attribute_is(xml_child(disk, "target"), "dev", name))
                        return disk;
        return NULL;
}

static size_t find_bus(const xmlNode *root, const char *disk) {
        xmlNode *target = root ? xml_child(find_disk(root, disk), "target") : NULL;

        for (size_t i = 0; i < BUS_COUNT; i++)
                if (target ? xml_attribute_is(target, "bus", buses[i].bus)
                           : buses[i].prefix && strncmp(disk, buses[i].prefix, 2) == 0)
                        return i;
        return BUS_SCSI;
}

static bool is_taken(char (*names)[VMA_DEVICE_NAME_MAX], size_t count, const char *name) {
        for (size_t i = 0; i < count; i++)
                if (strcmp(names[i], name) == 0)
                        return true;
        return false;
}

static int plug_in(char (*names)[VMA_DEVICE_NAME_MAX], size_t count, size_t index, size_t bus, Reason *reterr) {
        for (;; bus = BUS_SCSI) {
                for (unsigned number = 0; number < buses[bus].limit; number++) {
                        char name[VMA_DEVICE_NAME_MAX];

                        snprintf(name, sizeof name, "drive-%s%u", buses[bus].bus, number);
                        if (!is_taken(names, count, name)) {
                                memcpy(names[index], name, sizeof name);
                                return 0;
                        }
                }
                if (bus == BUS_SCSI)
                        return fail(reterr, -E2BIG, "Proxmox cannot plug in so many disks");
        }
}

static int parse_domain(const char *text, xmlDoc **ret, Reason *reterr) {
        *ret = NULL;
        return text ? xml_parse(text, "domain", "domain.xml", ret, reterr) : 0;
}

int vma_devices_name(const Manifest *manifest, const char *domain, char (**ret)[VMA_DEVICE_NAME_MAX], Reason *reterr) {
        CLEANUP(freep) char(*names)[VMA_DEVICE_NAME_MAX] = calloc(manifest->disk_count + 1, sizeof *names);
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        const xmlNode *root;
        int rc;

        if (!names)
                return fail_oom(reterr);
        rc = parse_domain(domain, &doc, reterr);
        if (rc < 0)
                return rc;
        root = doc ? xmlDocGetRootElement(doc) : NULL;
        /* Those that have their place keep it. */
        for (size_t i = 0; i < manifest->disk_count; i++) {
                const char *name = manifest->disks[i].name;

                if (is_proxmox_name(name))
                        snprintf(names[i], sizeof names[i], "drive-%s%s", name,
                                 strncmp(name, "tpmstate", 8) == 0 ? "-backup" : "");
        }
        for (size_t i = 0; i < manifest->disk_count && rc == 0; i++)
                if (!*names[i])
                        rc = plug_in(names, manifest->disk_count, i, find_bus(root, manifest->disks[i].name), reterr);
        if (rc == 0)
                *ret = STEAL_PTR(names);
        return rc;
}

/* KiB that a definition says, in whatever unit; 0: it does not. */
static uint64_t memory_kib(const xmlNode *root) {
        static const struct {
                const char *unit;
                uint64_t bytes;
        } units[] = { { "b", 1 },         { "bytes", 1 },    { "KB", 1000 },    { "MB", 1000000 },  { "GB", 1000000000 },
                      { "k", 1u << 10 },  { "KiB", 1u << 10 }, { "M", 1u << 20 }, { "MiB", 1u << 20 }, { "G", 1u << 30 },
                      { "GiB", 1u << 30 } };
        xmlNode *memory = xml_child(root, "memory");
        CLEANUP(freep) char *text = xml_content(memory), *unit = xml_attribute(memory, "unit");
        uint64_t bytes = 1u << 10;
        unsigned long long value;

        if (!text || sscanf(text, " %llu", &value) != 1)
                return 0;
        for (size_t i = 0; unit && i < sizeof units / sizeof *units; i++)
                if (strcmp(unit, units[i].unit) == 0)
                        bytes = units[i].bytes;
        return value <= UINT64_MAX / bytes ? value * bytes >> 10 : 0;
}

/* Proxmox wants names that DNS could have: other characters become "-". */
static void put_name(FILE *out, const char *name) {
        size_t length = strlen(name);

        fputs("name: ", out);
        for (size_t i = 0; i < length; i++) {
                bool inner = i > 0 && i + 1 < length;

                if (isalnum((unsigned char) name[i]) || (inner && strchr("-.", name[i])))
                        fputc(name[i], out);
                else
                        fputc(inner ? '-' : 'x', out);
        }
        fputc('\n', out);
}

static bool has_efi(const xmlNode *root) {
        const xmlNode *os = xml_child(root, "os");

        return xml_attribute_is(os, "firmware", "efi") || xml_attribute_is(xml_child(os, "loader"), "type", "pflash");
}

/* What is no plain word of the definition would be another line of the configuration. */
static bool is_word(const char *text) {
        return text && *text && strspn(text, "0123456789abcdefABCDEF:-") == strlen(text);
}

static void put_networks(FILE *out, const xmlNode *root) {
        unsigned number = 0;

        xmlNode *card = xml_child(xml_child(root, "devices"), "interface");

        for (; card && number < 32; card = xml_next(card)) {
                CLEANUP(freep) char *mac = xml_attribute(xml_child(card, "mac"), "address");
                bool e1000 = xml_attribute_is(xml_child(card, "model"), "type", "e1000") ||
                             xml_attribute_is(xml_child(card, "model"), "type", "e1000e");

                fprintf(out, "net%u: %s%s%s,bridge=vmbr0\n", number++, e1000 ? "e1000" : "virtio", is_word(mac) ? "=" : "",
                        is_word(mac) ? mac : "");
        }
}

static void put_definition(FILE *out, const xmlNode *root) {
        CLEANUP(freep) char *uuid = xml_content(xml_child(root, "uuid")), *processors = xml_content(xml_child(root, "vcpu"));
        uint64_t memory = root ? memory_kib(root) / 1024 : 0;
        unsigned cores = 0;

        if (processors && sscanf(processors, " %9u", &cores) != 1)
                cores = 0;
        fprintf(out, "memory: %" PRIu64 "\nsockets: 1\ncores: %u\n", memory ? memory : MEMORY_DEFAULT, cores ? cores : 1);
        if (root && has_efi(root))
                fputs("bios: ovmf\n", out);
        if (is_word(uuid))
                fprintf(out, "smbios1: uuid=%s\n", uuid);
        if (root)
                put_networks(out, root);
}

/* Where a disk was is a volume that Proxmox makes when it restores: the name here is only there to be replaced. */
static void put_disks(FILE *out, const Manifest *manifest, const char (*names)[VMA_DEVICE_NAME_MAX]) {
        for (size_t i = 0; i < manifest->disk_count; i++) {
                const char *place = names[i] + strlen("drive-");
                int length = (int) (strncmp(place, "tpmstate", 8) == 0 ? strcspn(place, "-") : strlen(place));

                fprintf(out, "%.*s: local:vm-disk-%zu,size=%" PRIu64 "K\n", length, place, i,
                        divide_up(manifest->disks[i].size, 1024));
                fprintf(out, "#qmdump#map:%.*s:%s::raw:\n", length, place, names[i]);
        }
}

int vma_devices_config(const Manifest *manifest, const char *domain, const char (*names)[VMA_DEVICE_NAME_MAX], char **ret,
                       Reason *reterr) {
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        CLEANUP(freep) char *text = NULL;
        size_t length;
        FILE *out;
        int rc;

        rc = parse_domain(domain, &doc, reterr);
        if (rc < 0)
                return rc;
        out = open_memstream(&text, &length);
        if (!out)
                return fail_oom(reterr);
        put_name(out, manifest->vm);
        fputs("ostype: other\nscsihw: virtio-scsi-pci\n", out);
        put_definition(out, doc ? xmlDocGetRootElement(doc) : NULL);
        put_disks(out, manifest, names);
        rc = ferror(out) ? -ENOMEM : 0;
        if (fclose(out) != 0 || rc < 0 || !text)
                return fail_oom(reterr);
        *ret = STEAL_PTR(text);
        return 0;
}
