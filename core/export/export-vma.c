#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <uuid/uuid.h>

#include "export/export.h"
#include "export/output.h"
#include "export/vma-devices.h"
#include "export/vma-pipeline.h"
#include "formats/vma/writer.h"
#include "util/bytes.h"

#define CONFIG "qemu-server.conf"
#define DEFINITION "domain.xml"

typedef struct VmaExport {
        Vm *vm;
        Manifest *manifest;
        const ExportOptions *options;
        VmaHeaderDescription *header;
        char (*names)[VMA_DEVICE_NAME_MAX]; /* of the devices of disks */
        VmaSource sources[VMA_WRITE_DEVICES_MAX];
        size_t source_count;
        char *texts[VMA_CONFIG_COUNT]; /* of configuration files, as in the header */
        char *definition;
} VmaExport;

static void vma_export_clear(VmaExport *export) {
        for (size_t i = 0; i < export->source_count; i++) {
                chain_unref(export->sources[i].chain);
                layer_unref(export->sources[i].layer);
        }
        for (size_t i = 0; i < VMA_CONFIG_COUNT; i++)
                free(export->texts[i]);
        free(export->definition);
        free(export->names);
        free(export->header);
        manifest_unref(export->manifest);
}

static void tell(const VmaExport *export, const char *name, const char *why) {
        char line[REASON_MAX];

        snprintf(line, sizeof line, "%s/%s: %s is left out of the archive: %s", vm_name(export->vm),
                 export->manifest->name, name, why);
        if (export->options->tell)
                export->options->tell(export->options->context, line);
}

/* A device: after its disk or file has been opened. Sizes of disks are whole sectors, as the tool cannot make others. */
static int add_device(VmaExport *export, const char *name, VmaSource source, Reason *reterr) {
        VmaHeaderDescription *header = export->header;

        if (header->device_count == VMA_WRITE_DEVICES_MAX || source.size == 0) {
                chain_unref(source.chain);
                layer_unref(source.layer);
                return source.size == 0 ? fail(reterr, -EINVAL, "%s is empty: a VMA archive has no such disks", source.name)
                                        : fail(reterr, -E2BIG, "a VMA archive has no room for so many disks");
        }
        export->sources[export->source_count++] = source;
        header->devices[header->device_count].name = name;
        header->devices[header->device_count++].size = source.chain ? round_up(source.size, 512) : source.size;
        return 0;
}

static int add_disks(VmaExport *export, Reason *reterr) {
        for (size_t i = 0; i < export->manifest->disk_count; i++) {
                const ManifestDisk *disk = &export->manifest->disks[i];
                VmaSource source = { .name = disk->name };
                int rc = chain_open(export->vm, export->manifest->name, disk->name, &source.chain, reterr);

                if (rc < 0)
                        return rc;
                if (chain_damage(source.chain)) {
                        rc = fail(reterr, -EIO, "%s/%s/%s cannot be read: %s", vm_name(export->vm), export->manifest->name,
                                  disk->name, chain_damage(source.chain));
                        chain_unref(source.chain);
                        return rc;
                }
                source.size = chain_size(source.chain);
                rc = add_device(export, export->names[i], source, reterr);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

/* RAM, which may be of any length. */
static int add_ram(VmaExport *export, const ManifestFile *file, Reason *reterr) {
        VmaSource source = { .name = file->name };
        int rc = manifest_open_file(export->vm, export->manifest, file, &source.layer, reterr);

        if (rc < 0)
                return rc;
        source.size = layer_disk_size(source.layer);
        return add_device(export, VMA_VMSTATE, source, reterr);
}

/* Takes the text over. */
static int add_config(VmaExport *export, const char *name, char *text, size_t length) {
        VmaHeaderDescription *header = export->header;

        if (header->config_count == VMA_CONFIG_COUNT || length > VMA_BLOB_MAX ||
            vma_header_room(header) + vma_config_room(name, length) > VMA_WRITE_HEADER_MAX) {
                free(text);
                tell(export, name, "it is longer than there is room for");
                return 0;
        }
        export->texts[header->config_count] = text;
        header->configs[header->config_count].name = name;
        header->configs[header->config_count].data = text;
        header->configs[header->config_count++].length = length;
        return 0;
}

static int add_file(VmaExport *export, const ManifestFile *file, Reason *reterr) {
        size_t length;
        char *text;
        int rc;

        if (strcmp(file->name, VMA_VMSTATE) == 0)
                return add_ram(export, file, reterr);
        if (file->length > VMA_BLOB_MAX) {
                tell(export, file->name, "it is longer than 65535 bytes");
                return 0;
        }
        rc = manifest_read_file(export->vm, export->manifest, file->name, &text, &length, reterr);
        return rc < 0 ? rc : add_config(export, file->name, text, length);
}

static int add_made_config(VmaExport *export, Reason *reterr) {
        char *text;
        int rc;

        if (manifest_find_file(export->manifest, CONFIG))
                return 0;
        rc = vma_devices_config(export->manifest, export->definition,
                                (const char(*)[VMA_DEVICE_NAME_MAX]) export->names, &text, reterr);
        return rc < 0 ? rc : add_config(export, CONFIG, text, strlen(text));
}

/* The configuration first: without it, Proxmox restores nothing. */
static int describe(VmaExport *export, Reason *reterr) {
        const Manifest *manifest = export->manifest;
        size_t length;
        int rc = 0;

        export->header = calloc(1, sizeof *export->header);
        if (!export->header)
                return fail_oom(reterr);
        uuid_generate(export->header->uuid);
        export->header->time = manifest->time.tv_sec;
        if (manifest_find_file(manifest, DEFINITION))
                rc = manifest_read_file(export->vm, manifest, DEFINITION, &export->definition, &length, reterr);
        if (rc == 0)
                rc = vma_devices_name(manifest, export->definition, &export->names, reterr);
        if (rc == 0)
                rc = add_disks(export, reterr);
        if (rc == 0)
                rc = add_made_config(export, reterr);
        for (size_t i = 0; rc == 0 && i < manifest->file_count; i++)
                rc = add_file(export, &manifest->files[i], reterr);
        if (rc == 0 && export->source_count == 0)
                rc = fail(reterr, -EINVAL, "%s/%s has no disks: a VMA archive has to have one", vm_name(export->vm),
                          manifest->name);
        return rc;
}

int export_vma(Vm *vm, const char *point, const char *target, const ExportOptions *options, Reason *reterr) {
        CLEANUP(vma_export_clear) VmaExport export = { .vm = vm, .options = options };
        CLEANUP(freep) void *header = NULL;
        Output output;
        size_t length;
        int rc;

        rc = manifest_read(vm, point, &export.manifest, reterr);
        if (rc == 0)
                rc = describe(&export, reterr);
        if (rc == 0)
                rc = vma_header_make(export.header, &header, &length, reterr);
        if (rc == 0)
                rc = output_open(target, options->replace, options->cancel, &output, reterr);
        if (rc < 0)
                return rc;
        rc = output_write(&output, header, length, reterr);
        if (rc == 0)
                rc = vma_pipeline_run(export.sources, export.source_count, export.header->uuid, &output, options, reterr);
        if (rc == 0)
                rc = output_finish(&output, reterr);
        output_clear(&output);
        return rc;
}
