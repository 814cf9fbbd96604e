#include "machine/definition-private.h"

#include <string.h>

static const MachineDisk *wanted_disk(const Rewrite *rewrite, const char *name) {
        for (size_t i = 0; i < rewrite->wish->disk_count; i++)
                if (strcmp(rewrite->wish->disks[i].name, name) == 0)
                        return &rewrite->wish->disks[i];
        return NULL;
}

/* All that says where the disk's data lie, and how to get at them. */
static void drop_image(xmlNode *node) {
        static const char *const children[] = { "source", "backingStore", "mirror", "auth", "encryption", "transient" };
        static const char *const attributes[] = { "rawio", "sgio" };

        for (size_t i = 0; i < sizeof children / sizeof *children; i++)
                xml_remove_children(node, children[i]);
        for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
                xml_unset(node, attributes[i]);
}

void disk_set_backing(xmlNode *disk, const char *path, int *rc) {
        xmlNode *backing, *child;

        xml_remove_children(disk, "backingStore");
        backing = xml_add(disk, "backingStore", NULL, rc);
        if (!path)
                return;
        xml_set(backing, "type", "file", rc);
        child = xml_add(backing, "format", NULL, rc);
        xml_set(child, "type", "raw", rc);
        child = xml_add(backing, "source", NULL, rc);
        xml_set(child, "file", path, rc);
        xml_add(backing, "backingStore", NULL, rc);
}

static void rewrite_driver(Rewrite *rewrite, xmlNode *node, const MachineDisk *disk) {
        xmlNode *driver = xml_child(node, "driver") ?: xml_add(node, "driver", NULL, &rewrite->rc);

        xml_set(driver, "name", "qemu", &rewrite->rc);
        xml_set(driver, "type", disk->format, &rewrite->rc);
        if (driver)
                xml_remove_children(driver, "metadata_cache");
        if (!rewrite->wish->isolated)
                return;
        xml_unset(driver, "io"); /* that may want a cache mode */
        xml_set(driver, "cache", "unsafe", &rewrite->rc); /* nothing of it is kept */
}

static void rewrite_disk(Rewrite *rewrite, xmlNode *node, const MachineDisk *disk) {
        xmlNode *source;

        drop_image(node);
        xml_set(node, "type", disk->block ? "block" : "file", &rewrite->rc);
        source = xml_add(node, "source", NULL, &rewrite->rc);
        xml_set(source, disk->block ? "dev" : "file", disk->path, &rewrite->rc);
        rewrite_driver(rewrite, node, disk);
        disk_set_backing(node, disk->backing, &rewrite->rc);
        if (xml_child(node, "shareable") && strcmp(disk->format, "raw") != 0) {
                xml_remove_children(node, "shareable");
                rewrite_note(rewrite, "disk %s cannot be shared with other VMs as it was: its image is %s", disk->name,
                             disk->format);
        }
}

/* A medium stays in its drive where this host has it. */
static void rewrite_drive(Rewrite *rewrite, xmlNode *node, const char *name) {
        CLEANUP(freep) char *path = xml_attribute(xml_child(node, "source"), "file");

        if (path && rewrite_exists(path)) {
                xml_remove_children(node, "backingStore");
                return;
        }
        if (xml_child(node, "source"))
                rewrite_note(rewrite, "drive %s is empty: this host does not have %s", name, path ?: "what was in it");
        drop_image(node);
        xml_set(node, "type", "file", &rewrite->rc);
}

void rewrite_disks(Rewrite *rewrite) {
        xmlNode *next;

        for (xmlNode *node = xml_child(rewrite->devices, "disk"); node; node = next) {
                CLEANUP(freep) char *name = xml_attribute(xml_child(node, "target"), "dev");
                const MachineDisk *disk = name ? wanted_disk(rewrite, name) : NULL;

                next = xml_next(node);
                if (disk)
                        rewrite_disk(rewrite, node, disk);
                else if (xml_attribute_is(node, "device", "cdrom") || xml_attribute_is(node, "device", "floppy"))
                        rewrite_drive(rewrite, node, name ?: "");
                else {
                        rewrite_note(rewrite, "disk %s is not in the point: the VM has none such", name ?: "without a name");
                        xml_remove(node);
                }
        }
}
