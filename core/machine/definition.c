#include "machine/definition.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "machine/definition-private.h"

#define WHAT "the definition that was kept of the VM"

void rewrite_note(Rewrite *rewrite, const char *format, ...) {
        Reason words;
        va_list args;
        char text[REASON_MAX];

        if (rewrite->rc < 0)
                return;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        fail(&words, 0, "%s", text);
        rewrite->rc = strings_add(&rewrite->notes, words.text);
}

bool rewrite_exists(const char *path) {
        return path && access(path, F_OK) == 0;
}

static const char *kept_path(const Rewrite *rewrite, const char *name) {
        for (size_t i = 0; i < rewrite->wish->file_count; i++)
                if (strcmp(rewrite->wish->files[i].name, name) == 0)
                        return rewrite->wish->files[i].path;
        return NULL;
}

/* ---- what the VM is ---- */

static void set_child(Rewrite *rewrite, xmlNode *parent, const char *name, const char *content) {
        xmlNode *node = xml_child(parent, name);

        if (node)
                xml_set_content(node, content, &rewrite->rc);
        else
                xml_add(parent, name, content, &rewrite->rc);
}

static void rewrite_identity(Rewrite *rewrite) {
        const DefinitionWish *wish = rewrite->wish;
        xmlNode *system = xml_child(xml_child(rewrite->root, "sysinfo"), "system");
        xmlNode *generation = xml_child(rewrite->root, "genid");

        xml_unset(rewrite->root, "id");
        set_child(rewrite, rewrite->root, "name", wish->name);
        if (!is_new(rewrite))
                return;
        set_child(rewrite, rewrite->root, "uuid", wish->uuid);
        if (generation)
                xml_set_content(generation, "", &rewrite->rc); /* libvirt makes one up */
        /* What the firmware tells must be the VM's. */
        for (xmlNode *entry = xml_child(system, "entry"); entry; entry = xml_next(entry))
                if (xml_attribute_is(entry, "name", "uuid"))
                        xml_set_content(entry, wish->uuid, &rewrite->rc);
}

/* libvirt makes labels anew with each start. */
static void drop_labels(Rewrite *rewrite) {
        xmlNode *next;

        for (xmlNode *node = xml_child(rewrite->root, "seclabel"); node; node = next) {
                next = xml_next(node);
                if (!xml_attribute_is(node, "type", "static") && !xml_attribute_is(node, "type", "none"))
                        xml_remove(node);
        }
}

/* What the processor is on this host is libvirt's to choose. */
static void rewrite_processor(Rewrite *rewrite) {
        static const char *const attributes[] = { "mode", "match", "check", "migratable" };
        static const char *const children[] = { "model", "vendor", "feature", "cache", "maxphysaddr" };
        xmlNode *cpu = xml_child(rewrite->root, "cpu"), *features = xml_child(rewrite->root, "features");

        if (!rewrite->wish->emulated || !xml_attribute_is(rewrite->root, "type", "kvm"))
                return;
        xml_set(rewrite->root, "type", "qemu", &rewrite->rc);
        for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
                xml_unset(cpu, attributes[i]);
        for (size_t i = 0; i < sizeof children / sizeof *children; i++)
                xml_remove_children(cpu, children[i]);
        xml_remove_children(features, "hyperv");
        xml_remove_children(features, "kvm");
        rewrite_note(rewrite, "this host has no KVM: the VM is emulated, which is slow");
}

/* Of this host's resources a test takes what it gets; arguments of QEMU's own may open anything. */
static void loosen(Rewrite *rewrite) {
        static const char *const shares[] = {
                "cputune", "numatune", "memtune", "blkiotune", "memoryBacking", "resource", "perf",
        };

        if (!rewrite->wish->isolated)
                return;
        for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
                xml_remove_children(rewrite->root, shares[i]);
        xml_unset(xml_child(rewrite->root, "vcpu"), "cpuset");
        if (xml_child(rewrite->root, "commandline"))
                rewrite_note(rewrite, "it is tested without the arguments that its definition has for QEMU itself");
        xml_remove_children(rewrite->root, "commandline");
}

/* ---- how it boots ---- */

static void rewrite_boot_file(Rewrite *rewrite, xmlNode *os, const char *name) {
        xmlNode *node = xml_child(os, name);
        CLEANUP(freep) char *old = xml_content(node);
        const char *path = kept_path(rewrite, name);

        if (!old || !*old)
                return;
        if (path)
                xml_set_content(node, path, &rewrite->rc);
        else if (!rewrite_exists(old))
                rewrite_note(rewrite, "its %s %s was not kept with the point, and is not on this host", name, old);
}

/* The host's own firmware gets its fixes with the host. */
static void rewrite_loader(Rewrite *rewrite, xmlNode *os) {
        xmlNode *loader = xml_child(os, "loader");
        CLEANUP(freep) char *old = xml_content(loader);
        const char *path = kept_path(rewrite, "loader");

        if (!old || !*old || rewrite_exists(old))
                return;
        if (path) {
                xml_set_content(loader, path, &rewrite->rc);
                xml_unset(os, "firmware");
                xml_remove_children(os, "firmware");
                return;
        }
        rewrite_note(rewrite, "its firmware %s was not kept with the point, and is not on this host", old);
        if (xml_attribute_is(os, "firmware", "efi") || xml_attribute_is(os, "firmware", "bios"))
                xml_remove(loader); /* libvirt chooses another */
}

static char *nvram_path(const xmlNode *nvram) {
        return xml_child(nvram, "source") ? xml_attribute(xml_child(nvram, "source"), "file") : xml_content(nvram);
}

static void rewrite_nvram(Rewrite *rewrite, xmlNode *os) {
        xmlNode *nvram = xml_child(os, "nvram");
        CLEANUP(freep) char *old = nvram_path(nvram);
        CLEANUP(freep) char *template = xml_attribute(nvram, "template");
        const char *path = kept_path(rewrite, "nvram");

        if (!nvram)
                return;
        if (!path && !is_new(rewrite) && rewrite_exists(old))
                return;
        xml_unset(nvram, "type");
        xml_set_content(nvram, path ?: "", &rewrite->rc);
        if (!path && old && *old)
                rewrite_note(rewrite, "its NVRAM was not kept with the point: it starts with a new one");
        if (path || !rewrite_exists(template)) {
                xml_unset(nvram, "template");
                xml_unset(nvram, "templateFormat");
        }
        if (!path && !rewrite_exists(template))
                xml_remove(nvram); /* libvirt has a template for the loader */
}

static void rewrite_varstore(Rewrite *rewrite, xmlNode *os) {
        xmlNode *varstore = xml_child(os, "varstore");
        CLEANUP(freep) char *old = xml_attribute(varstore, "path");
        const char *path = kept_path(rewrite, "varstore");

        if (!varstore)
                return;
        if (path)
                xml_set(varstore, "path", path, &rewrite->rc);
        else if (is_new(rewrite) || !rewrite_exists(old)) {
                xml_remove(varstore);
                rewrite_note(rewrite, "its firmware's variables were not kept with the point: it starts with new ones");
        }
}

static const char *const boot_files[] = { "kernel", "initrd", "dtb", "shim" };
#define BOOT_FILES (sizeof boot_files / sizeof *boot_files)

static void rewrite_boot(Rewrite *rewrite) {
        xmlNode *os = xml_child(rewrite->root, "os");

        for (size_t i = 0; i < BOOT_FILES; i++)
                rewrite_boot_file(rewrite, os, boot_files[i]);
        rewrite_loader(rewrite, os);
        rewrite_nvram(rewrite, os);
        rewrite_varstore(rewrite, os);
}

/* ---- the whole ---- */

int definition_make(const char *text, const DefinitionWish *wish, char **ret, Strings *ret_notes, Reason *reterr) {
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        Rewrite rewrite = { .wish = wish };
        int rc;

        rc = xml_parse(text, "domain", WHAT, &doc, reterr);
        if (rc < 0)
                return rc;
        rewrite.root = xmlDocGetRootElement(doc);
        rewrite.devices = xml_child(rewrite.root, "devices");
        if (!rewrite.devices)
                return fail(reterr, -EBADMSG, WHAT " has no devices");
        rewrite_identity(&rewrite);
        drop_labels(&rewrite);
        rewrite_processor(&rewrite);
        loosen(&rewrite);
        rewrite_boot(&rewrite);
        rewrite_disks(&rewrite);
        rewrite_devices(&rewrite);
        rc = rewrite.rc;
        if (rc < 0)
                fail_errno(reterr, rc, "cannot write the definition of the VM %s", wish->name);
        else
                rc = xml_dump(doc, ret, reterr);
        if (rc < 0) {
                strings_free(&rewrite.notes);
                return rc;
        }
        *ret_notes = rewrite.notes;
        return 0;
}

int definition_set_backing(const char *text, const char *disk, const char *backing, char **ret, Reason *reterr) {
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        xmlNode *node;
        int rc;

        rc = xml_parse(text, "domain", "the VM's definition", &doc, reterr);
        if (rc < 0)
                return rc;
        node = xml_child(xml_child(xmlDocGetRootElement(doc), "devices"), "disk");
        while (node && !xml_attribute_is(xml_child(node, "target"), "dev", disk))
                node = xml_next(node);
        if (!node)
                return fail(reterr, -ENOENT, "the VM has no disk %s any more", disk);
        disk_set_backing(node, backing, &rc);
        return rc < 0 ? fail_errno(reterr, rc, "cannot write the VM's definition") : xml_dump(doc, ret, reterr);
}

int definition_identity(const char *text, char **ret_name, char ret_uuid[static UUID_STR_LEN], Reason *reterr) {
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        CLEANUP(freep) char *name = NULL, *uuid = NULL;
        uuid_t parsed;
        int rc;

        rc = xml_parse(text, "domain", WHAT, &doc, reterr);
        if (rc < 0)
                return rc;
        name = xml_content(xml_child(xmlDocGetRootElement(doc), "name"));
        uuid = xml_content(xml_child(xmlDocGetRootElement(doc), "uuid"));
        if (!name || !*name)
                return fail(reterr, -EBADMSG, WHAT " has no name");
        if (!uuid || uuid_parse(uuid, parsed) < 0)
                return fail(reterr, -EBADMSG, WHAT " has no UUID");
        uuid_unparse_lower(parsed, ret_uuid);
        *ret_name = STEAL_PTR(name);
        return 0;
}

static int add_wanted(const xmlNode *os, const char *name, Strings *list) {
        const xmlNode *node = xml_child(os, name);
        CLEANUP(freep) char *content = xml_content(node);

        if (!node || ((!content || !*content) && !xml_child(node, "source") && strcmp(name, "varstore") != 0))
                return 0;
        if (strcmp(name, "loader") == 0 && rewrite_exists(content))
                return 0;
        return strings_add(list, name);
}

int definition_files(const char *text, Strings *ret, Reason *reterr) {
        static const char *const others[] = { "loader", "nvram", "varstore" };
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        CLEANUP(strings_free) Strings list = { 0 };
        const xmlNode *os;
        int rc;

        rc = xml_parse(text, "domain", WHAT, &doc, reterr);
        if (rc < 0)
                return rc;
        os = xml_child(xmlDocGetRootElement(doc), "os");
        for (size_t i = 0; i < BOOT_FILES && rc == 0; i++)
                rc = add_wanted(os, boot_files[i], &list);
        for (size_t i = 0; i < sizeof others / sizeof *others && rc == 0; i++)
                rc = add_wanted(os, others[i], &list);
        if (rc < 0)
                return fail_oom(reterr);
        *ret = list;
        list = (Strings) { 0 };
        return 0;
}
