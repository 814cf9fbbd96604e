#include "sources/qmp-disks.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sources/image-identity.h"
#include "util/text.h"
#include "util/uri.h"

#define NODES_MAX 65536
#define BITMAPS_MAX 65536  /* of a node: what an image can have */
#define CHAIN_MAX 1024     /* backing files */
#define NAME_LENGTH_MAX 64 /* of a disk */

static void node_clear(QmpNode *node) {
        for (size_t i = 0; i < node->bitmap_count; i++)
                free(node->bitmaps[i].name);
        free(node->bitmaps);
        free(node->name);
        free(node->driver);
        free(node->file);
}

void qmp_nodes_clear(QmpNodes *nodes) {
        for (size_t i = 0; i < nodes->count; i++)
                node_clear(&nodes->items[i]);
        free(nodes->items);
        *nodes = (QmpNodes) { 0 };
}

void qmp_disks_clear(QmpDisks *disks) {
        for (size_t i = 0; i < disks->count; i++) {
                QmpDisk *disk = &disks->items[i];

                free(disk->name);
                free(disk->node);
                free(disk->bitmap_node);
                free(disk->backing);
                strings_free(&disk->images);
        }
        free(disks->items);
        *disks = (QmpDisks) { 0 };
}

static int unexpected(const char *command, Reason *reterr) {
        return fail(reterr, -EPROTO, "%s: QEMU's answer is not of the form that is known", command);
}

static const char *text_of(const json_t *object, const char *key) {
        return json_string_value(json_object_get(object, key));
}

static bool is_true(const json_t *object, const char *key) {
        return json_is_true(json_object_get(object, key));
}

/* ---- nodes ---- */

static int parse_bitmaps(const json_t *answer, QmpNode *node, Reason *reterr) {
        size_t count = json_array_size(answer);

        if (count > BITMAPS_MAX)
                return unexpected("query-named-block-nodes", reterr);
        node->bitmaps = calloc(count + 1, sizeof *node->bitmaps);
        if (!node->bitmaps)
                return fail_oom(reterr);
        for (size_t i = 0; i < count; i++) {
                const json_t *from = json_array_get(answer, i);
                const char *name = text_of(from, "name");
                QmpBitmap *to = &node->bitmaps[node->bitmap_count];

                if (!name) /* QEMU's own */
                        continue;
                to->name = strdup(name);
                to->recording = is_true(from, "recording");
                to->inconsistent = is_true(from, "inconsistent");
                if (!to->name)
                        return fail_oom(reterr);
                node->bitmap_count++;
        }
        return 0;
}

static int parse_node(const json_t *from, QmpNode *node, Reason *reterr) {
        const char *name = text_of(from, "node-name"), *driver = text_of(from, "drv");

        if (!driver)
                return unexpected("query-named-block-nodes", reterr);
        node->name = strdup(name ?: "");
        node->driver = strdup(driver);
        node->file = strdup(text_of(from, "file") ?: "");
        node->read_only = is_true(from, "ro");
        if (!node->name || !node->driver || !node->file)
                return fail_oom(reterr);
        return parse_bitmaps(json_object_get(from, "dirty-bitmaps"), node, reterr);
}

int qmp_nodes_parse(const json_t *answer, QmpNodes *ret, Reason *reterr) {
        CLEANUP(qmp_nodes_clear) QmpNodes nodes = { 0 };
        size_t count = json_array_size(answer);

        if (!json_is_array(answer) || count > NODES_MAX)
                return unexpected("query-named-block-nodes", reterr);
        nodes.items = calloc(count + 1, sizeof *nodes.items);
        if (!nodes.items)
                return fail_oom(reterr);
        while (nodes.count < count) {
                const json_t *from = json_array_get(answer, nodes.count);
                int rc = parse_node(from, &nodes.items[nodes.count++], reterr);

                if (rc < 0)
                        return rc;
        }
        *ret = nodes;
        nodes = (QmpNodes) { 0 };
        return 0;
}

const QmpNode *qmp_nodes_find(const QmpNodes *nodes, const char *name) {
        for (size_t i = 0; i < nodes->count; i++)
                if (strcmp(nodes->items[i].name, name) == 0)
                        return &nodes->items[i];
        return NULL;
}

const QmpBitmap *qmp_node_bitmap(const QmpNode *node, const char *name) {
        for (size_t i = 0; i < node->bitmap_count; i++)
                if (strcmp(node->bitmaps[i].name, name) == 0)
                        return &node->bitmaps[i];
        return NULL;
}

/* ---- disks ---- */

/* A node that passes through what is below it. */
static bool is_filter(const char *driver) {
        static const char *const filters[] = { "throttle", "copy-on-read", "compress", "preallocate", "copy-before-write",
                                               "backup-top", "blkdebug", "blklogwrites", "blkverify" };

        for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
                if (strcmp(driver, filters[i]) == 0)
                        return true;
        return false;
}

/* The text with all that a disk's name cannot have replaced: names become those of files. */
static void copy_name(const char *text, size_t length, char name[static NAME_LENGTH_MAX]) {
        size_t to = 0;

        for (size_t i = 0; i < length && to < NAME_LENGTH_MAX - 8; i++) /* there is room for a number behind it */
                if (isalnum((unsigned char) text[i]) || (to > 0 && strchr("_-.", text[i])))
                        name[to++] = text[i];
                else if (to > 0)
                        name[to++] = '_';
        name[to] = 0;
}

/* "/machine/peripheral/ID/virtio-backend" has the id that somebody gave the device; other paths have none. */
static void device_name(const json_t *block, const char *node, char name[static NAME_LENGTH_MAX]) {
        static const char given[] = "/machine/peripheral/";
        const char *device = text_of(block, "qdev") ?: "", *drive = text_of(block, "device") ?: "";

        name[0] = 0;
        if (strncmp(device, given, strlen(given)) == 0)
                copy_name(device + strlen(given), strcspn(device + strlen(given), "/"), name);
        else if (device[0] != '/')
                copy_name(device, strlen(device), name);
        if (!name[0])
                copy_name(drive, strlen(drive), name);
        if (!name[0] && node && node[0] != '#')
                copy_name(node, strlen(node), name);
        if (!name[0])
                snprintf(name, NAME_LENGTH_MAX, "disk");
}

static bool has_disk(const QmpDisks *disks, const char *name) {
        for (size_t i = 0; i < disks->count; i++)
                if (disks->items[i].name && strcmp(disks->items[i].name, name) == 0)
                        return true;
        return false;
}

static int name_disk(const QmpDisks *disks, const json_t *block, const char *node, QmpDisk *disk) {
        char name[NAME_LENGTH_MAX];
        size_t length;

        device_name(block, node, name);
        length = strlen(name);
        for (unsigned number = 2; has_disk(disks, name); number++)
                snprintf(name + length, sizeof name - length, "-%u", number);
        disk->name = strdup(name);
        return disk->name ? 0 : -ENOMEM;
}

/* Floppies and CD-ROMs can be removed, but so can a disk at USB. */
static const char *reason_to_leave_out(const json_t *block, const json_t *inserted) {
        const char *device = text_of(block, "qdev");
        bool read_only = is_true(inserted, "ro");

        if (!device)
                return "no device of the VM uses it";
        if (is_true(block, "removable") && (read_only || json_object_get(block, "tray_open")))
                return "it is a CD-ROM or a floppy";
        if (!inserted)
                return "it has no medium";
        if (read_only && strncmp(device, "/machine/system.flash", strlen("/machine/system.flash")) == 0)
                return "it is firmware that is only read";
        return NULL;
}

/* How an image is recognised: by its file, where it is one of this machine. */
static int add_image(const char *path, const char *directory, Strings *images) {
        CLEANUP(freep) char *identity = NULL, *shown = NULL, *whole = NULL;
        bool is_path = path[0] == '/' || !strchr(path, ':');

        if (strncmp(path, "/dev/fdset/", 11) == 0) /* nothing that would tell which */
                return 0;
        if (is_path && directory && (path[0] == '/' || directory[0])) {
                if (text_format(&whole, "%s%s%s", path[0] == '/' ? "" : directory, path[0] == '/' ? "" : "/", path) < 0)
                        return -ENOMEM;
                if (image_path_identity(whole, &identity) < 0)
                        return -ENOMEM;
        } else {
                if (uri_hide_passwords(path, &shown) < 0)
                        return -ENOMEM;
                (void) text_format(&identity, "%s:%s", is_path ? "file" : "other", shown);
        }
        return identity ? strings_add(images, identity) : -ENOMEM;
}

/* Goes down the chain of images as QEMU tells it, filters among them. */
static int take_images(const json_t *image, const char *directory, QmpDisk *disk, const json_t **ret_top) {
        const json_t *top = NULL;

        for (size_t depth = 0; image && depth < CHAIN_MAX; depth++, image = json_object_get(image, "backing-image")) {
                const char *path = text_of(image, "filename"), *format = text_of(image, "format");
                int rc;

                if (!path || !format || is_filter(format))
                        continue;
                if (top && !disk->backing && uri_hide_passwords(path, &disk->backing) < 0)
                        return -ENOMEM;
                top = top ?: image;
                rc = add_image(path, directory, &disk->images);
                if (rc < 0)
                        return rc;
        }
        *ret_top = top;
        return 0;
}

/* The node of the image, where the disk's own one is a filter: it cannot be asked for what is below it. NULL: not clear. */
static const QmpNode *find_format_node(const QmpNodes *nodes, const json_t *image) {
        const char *path = text_of(image, "filename"), *format = text_of(image, "format");
        const QmpNode *found = NULL;

        for (size_t i = 0; i < nodes->count; i++)
                if (strcmp(nodes->items[i].driver, format) == 0 && strcmp(nodes->items[i].file, path) == 0) {
                        if (found)
                                return NULL;
                        found = &nodes->items[i];
                }
        return found;
}

static bool keeps_bitmaps(const json_t *image, const QmpNode *node) {
        const json_t *specific = json_object_get(json_object_get(image, "format-specific"), "data");
        const char *compat = text_of(specific, "compat");

        return strcmp(node->driver, "qcow2") == 0 && !node->read_only && compat && strcmp(compat, "0.10") != 0;
}

static int choose_bitmap_node(const QmpNodes *nodes, const json_t *image, QmpDisk *disk) {
        const QmpNode *node = qmp_nodes_find(nodes, disk->node), *below;

        if (node && image && is_filter(node->driver)) {
                below = find_format_node(nodes, image);
                if (below && keeps_bitmaps(image, below))
                        node = below;
        }
        disk->persistent = node && image && keeps_bitmaps(image, node);
        disk->bitmap_node = strdup(node ? node->name : disk->node);
        return disk->bitmap_node ? 0 : -ENOMEM;
}

static int parse_disk(const json_t *block, const QmpNodes *nodes, const char *directory, const QmpDisks *before,
                      QmpDisk *disk, Reason *reterr) {
        const json_t *inserted = json_object_get(block, "inserted"), *image = json_object_get(inserted, "image");
        const json_t *size = json_object_get(image, "virtual-size"), *top = NULL;
        const char *node = text_of(inserted, "node-name");

        if (!json_is_object(block) || (inserted && !json_is_object(inserted)))
                return unexpected("query-block", reterr);
        if (name_disk(before, block, node, disk) < 0)
                return fail_oom(reterr);
        disk->left_out = reason_to_leave_out(block, inserted);
        if (disk->left_out)
                return 0;
        if (!node || !*node || !json_is_integer(size) || json_integer_value(size) < 0)
                return unexpected("query-block", reterr);
        disk->size = (uint64_t) json_integer_value(size);
        disk->encrypted = is_true(inserted, "encrypted");
        disk->node = strdup(node);
        if (!disk->node || take_images(image, directory, disk, &top) < 0 || choose_bitmap_node(nodes, top, disk) < 0)
                return fail_oom(reterr);
        return 0;
}

int qmp_disks_parse(const json_t *answer, const QmpNodes *nodes, const char *directory, QmpDisks *ret, Reason *reterr) {
        CLEANUP(qmp_disks_clear) QmpDisks disks = { 0 };
        size_t count = json_array_size(answer);

        if (!json_is_array(answer))
                return unexpected("query-block", reterr);
        if (count > QMP_DISKS_MAX)
                return fail(reterr, -E2BIG, "the VM has more than %d disks", QMP_DISKS_MAX);
        disks.items = calloc(count + 1, sizeof *disks.items);
        if (!disks.items)
                return fail_oom(reterr);
        for (size_t i = 0; i < count; i++) {
                QmpDisk disk = { 0 };
                int rc = parse_disk(json_array_get(answer, i), nodes, directory, &disks, &disk, reterr);

                disks.items[disks.count++] = disk; /* to be freed in any case */
                if (rc < 0)
                        return rc;
        }
        *ret = disks;
        disks = (QmpDisks) { 0 };
        return 0;
}
