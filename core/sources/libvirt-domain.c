#include "sources/libvirt-domain.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "sources/image-identity.h"
#include "util/text.h"
#include "util/xml.h"

#define DISKS_MAX 1024
#define NAME_LENGTH_MAX 64
#define AGENT_CHANNEL "org.qemu.guest_agent.0"

static void disk_clear(DomainDisk *disk) {
        free(disk->name);
        free(disk->left_out);
        free(disk->why_not);
        free(disk->path);
        free(disk->format);
        strings_free(&disk->images);
        *disk = (DomainDisk) { 0 };
}

void domain_clear(Domain *domain) {
        for (size_t i = 0; i < domain->disk_count; i++)
                disk_clear(&domain->disks[i]);
        free(domain->disks);
        for (size_t i = 0; i < domain->file_count; i++)
                free(domain->files[i].path);
        free(domain->tpm_path);
        *domain = (Domain) { 0 };
}

/* Names become file names in the repository, and those of exports and scratch files. */
static bool is_disk_name(const char *name) {
        size_t length = strlen(name);

        if (length == 0 || length > NAME_LENGTH_MAX || !isalnum((unsigned char) name[0]))
                return false;
        for (size_t i = 0; i < length; i++)
                if (!isalnum((unsigned char) name[i]) && !strchr("_-.", name[i]))
                        return false;
        return true;
}

/* Why a disk cannot be read by a backup job at all. */
static const char *reason_to_leave_out(const xmlNode *node, const xmlNode *source) {
        CLEANUP(freep) char *device = xml_attribute(node, "device");
        CLEANUP(freep) char *type = xml_attribute(node, "type");

        if (device && strcmp(device, "cdrom") == 0)
                return "it is a CD-ROM";
        if (device && strcmp(device, "floppy") == 0)
                return "it is a floppy";
        if (device && strcmp(device, "lun") == 0)
                return "its SCSI commands go past QEMU (device='lun')";
        if (device && strcmp(device, "disk") != 0)
                return "it is of a kind that is not known here";
        if (type && (strcmp(type, "vhostuser") == 0 || strcmp(type, "vhostvdpa") == 0))
                return "its data go past QEMU (vhost)";
        if (type && strcmp(type, "dir") == 0)
                return "it is a directory shown as a disk";
        if (!source)
                return "it has no image";
        return NULL;
}

/* Identities of an image and its backing files: <source> and <backingStore> nested in each other. */
static int collect_images(const xmlNode *node, bool local, Strings *images) {
        for (; node; node = xml_child(node, "backingStore")) {
                CLEANUP(freep) char *type = xml_attribute(node, "type");
                CLEANUP(freep) char *identity = NULL;
                int rc;

                if (!xml_child(node, "source"))
                        return 0;
                rc = image_identity(type ?: "file", xml_child(node, "source"), local, &identity);
                if (rc < 0)
                        return rc;
                rc = strings_add(images, identity);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static char *reason_without_bitmap(const xmlNode *node, const xmlNode *source, bool local) {
        CLEANUP(freep) char *format = xml_attribute(xml_child(node, "driver"), "type");
        CLEANUP(freep) char *path = xml_attribute(source, "file") ?: xml_attribute(source, "dev");
        char *text;

        if (!format || strcmp(format, "qcow2") != 0)
                return text_format(&text, "%s image cannot carry a bitmap", format ?: "raw") < 0 ? NULL : text;
        if (xml_child(node, "readonly"))
                return strdup("a disk that is read-only cannot carry a bitmap");
        if (local && path && image_is_old_qcow2(path))
                return strdup("qcow2 image of version 2 cannot carry a bitmap: qemu-img amend -o compat=1.1 helps");
        return NULL;
}

static char *image_path(const xmlNode *node, const xmlNode *source) {
        CLEANUP(freep) char *type = xml_attribute(node, "type"), *path = NULL;

        if (!type || strcmp(type, "file") == 0)
                path = xml_attribute(source, "file");
        else if (strcmp(type, "block") == 0)
                path = xml_attribute(source, "dev");
        return path && path[0] == '/' ? STEAL_PTR(path) : NULL;
}

static int parse_disk(const xmlNode *node, bool local, DomainDisk *disk, Reason *reterr) {
        const xmlNode *source = xml_child(node, "source");
        const char *left_out = reason_to_leave_out(node, source);

        disk->name = xml_attribute(xml_child(node, "target"), "dev");
        if (!disk->name || !is_disk_name(disk->name))
                return fail(reterr, -EBADMSG, "the domain XML has a disk with a name that cannot be: \"%.64s\"",
                            disk->name ?: "");
        if (left_out) {
                disk->left_out = strdup(left_out);
                return disk->left_out ? 0 : fail_oom(reterr);
        }
        disk->why_not = reason_without_bitmap(node, source, local);
        disk->format = xml_attribute(xml_child(node, "driver"), "type") ?: strdup("raw");
        if (!disk->format)
                return fail_oom(reterr);
        disk->path = image_path(node, source);
        disk->sliced = xml_child(source, "slices");
        disk->encrypted = xml_child(node, "encryption") || xml_child(source, "encryption");
        if (collect_images(node, local, &disk->images) < 0)
                return fail_oom(reterr);
        return 0;
}

static int parse_disks(const xmlNode *devices, bool local, Domain *domain, Reason *reterr) {
        for (const xmlNode *node = xml_child(devices, "disk"); node; node = xml_next(node)) {
                DomainDisk *grown;
                int rc;

                if (domain->disk_count == DISKS_MAX)
                        return fail(reterr, -E2BIG, "the domain XML has more than %d disks", DISKS_MAX);
                grown = reallocarray(domain->disks, domain->disk_count + 1, sizeof *grown);
                if (!grown)
                        return fail_oom(reterr);
                domain->disks = grown;
                grown[domain->disk_count] = (DomainDisk) { 0 };
                rc = parse_disk(node, local, &grown[domain->disk_count++], reterr);
                if (rc < 0)
                        return rc;
                for (size_t i = 0; i + 1 < domain->disk_count; i++)
                        if (strcmp(grown[i].name, grown[domain->disk_count - 1].name) == 0)
                                return fail(reterr, -EBADMSG, "the domain XML has two disks named %s", grown[i].name);
        }
        return 0;
}

/* path is the domain's from here on. */
static void add_file(Domain *domain, const char *name, char *path, bool written) {
        if (path && path[0] != '/')
                free(STEAL_PTR(path));
        domain->files[domain->file_count++] = (DomainFile) { .name = name, .path = path, .written = written };
}

static void take_files(const xmlNode *os, Domain *domain) {
        const char *const plain[] = { "kernel", "initrd", "dtb", "shim", "loader" };
        const xmlNode *nvram = xml_child(os, "nvram"), *varstore = xml_child(os, "varstore");
        CLEANUP(freep) char *content = NULL;

        for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
                char *path = xml_content(xml_child(os, plain[i]));

                if (path && *path)
                        add_file(domain, plain[i], path, false);
                else
                        free(path);
        }
        /* Where libvirt chooses it when the VM is started, it is named without a path until then. */
        content = xml_content(nvram);
        if (xml_child(nvram, "source"))
                add_file(domain, "nvram", xml_attribute(xml_child(nvram, "source"), "file"), true);
        else if (content && *content)
                add_file(domain, "nvram", STEAL_PTR(content), true);
        free(STEAL_PTR(content));
        content = xml_attribute(varstore, "path");
        if (content)
                add_file(domain, "varstore", STEAL_PTR(content), true);
}

static void take_tpm(const xmlNode *devices, Domain *domain) {
        const xmlNode *backend = xml_child(xml_child(devices, "tpm"), "backend");
        const xmlNode *source = xml_child(backend, "source");

        if (!xml_attribute_is(backend, "type", "emulator"))
                return;
        domain->tpm = xml_attribute_is(backend, "version", "1.2") ? "tpm1.2" : "tpm2";
        if (xml_attribute_is(source, "type", "dir"))
                domain->tpm_path = xml_attribute(source, "path");
        if (domain->tpm_path && domain->tpm_path[0] != '/')
                free(STEAL_PTR(domain->tpm_path));
}

static DomainAgent find_agent(const xmlNode *devices) {
        for (const xmlNode *node = xml_child(devices, "channel"); node; node = xml_next(node)) {
                const xmlNode *target = xml_child(node, "target");

                if (xml_attribute_is(target, "type", "virtio") && xml_attribute_is(target, "name", AGENT_CHANNEL))
                        return xml_attribute_is(target, "state", "connected") ? AGENT_THERE : AGENT_AWAY;
        }
        return AGENT_NONE;
}

int domain_parse(const char *text, bool local, Domain *ret, Reason *reterr) {
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        CLEANUP(domain_clear) Domain domain = { 0 };
        const xmlNode *root;
        int rc;

        rc = xml_parse(text, "domain", "the domain XML", &doc, reterr);
        if (rc < 0)
                return rc;
        root = xmlDocGetRootElement(doc);
        rc = parse_disks(xml_child(root, "devices"), local, &domain, reterr);
        if (rc < 0)
                return rc;
        domain.agent = find_agent(xml_child(root, "devices"));
        take_files(xml_child(root, "os"), &domain);
        take_tpm(xml_child(root, "devices"), &domain);
        *ret = domain;
        domain = (Domain) { 0 };
        return 0;
}
