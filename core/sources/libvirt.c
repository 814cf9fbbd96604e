#include "sources/libvirt.h"

#include <errno.h>
#include <string.h>

#include "sources/libvirt-private.h"
#include "sources/nbd-reader.h"
#include "util/text.h"

static int libvirt_identify(Source *base, char **ret, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        char *uuid;
        int rc;

        rc = libvirt_find_domain(source, &domain, reterr);
        if (rc < 0)
                return rc;
        uuid = strdup(source->uuid);
        if (!uuid)
                return fail_oom(reterr);
        *ret = uuid;
        return 0;
}

static int copy_images(const Strings *from, Strings *to) {
        for (size_t i = 0; i < from->count; i++)
                if (strings_add(to, from->items[i]) < 0)
                        return -ENOMEM;
        return 0;
}

/* A name that is misspelt would leave out nothing, or everything. */
static void check_names(const LibvirtSource *source, const Strings *names, const char *what) {
        for (size_t i = 0; names && i < names->count; i++) {
                bool found = false;

                for (size_t d = 0; d < source->domain.disk_count; d++)
                        found |= strcmp(source->domain.disks[d].name, names->items[i]) == 0;
                if (!found)
                        source_warn(&source->source.owner, "it has no disk %s, which is to be %s", names->items[i], what);
        }
}

static int take_disks(LibvirtSource *source, SourceVm *vm, Reason *reterr) {
        const Domain *domain = &source->domain;

        free(source->captured);
        source->captured_count = 0;
        source->captured = calloc(domain->disk_count + 1, sizeof *source->captured);
        vm->disks = calloc(domain->disk_count + 1, sizeof *vm->disks);
        if (!source->captured || !vm->disks)
                return fail_oom(reterr);
        check_names(source, source->source.owner.include, "captured");
        check_names(source, source->source.owner.exclude, "left out");
        for (size_t i = 0; i < domain->disk_count; i++) {
                const DomainDisk *from = &domain->disks[i];
                SourceDisk *to = &vm->disks[vm->disk_count];

                if (!source_wants_disk(&source->source.owner, from->name))
                        continue;
                if (from->left_out) {
                        source_warn(&source->source.owner, "%s is left out: %s", from->name, from->left_out);
                        continue;
                }
                vm->disk_count++;
                to->name = strdup(from->name);
                to->tracks_changes = !from->why_not;
                to->why_not = from->why_not ? strdup(from->why_not) : NULL;
                if (!to->name || (from->why_not && !to->why_not) || copy_images(&from->images, &to->images) < 0)
                        return fail_oom(reterr);
                if (from->encrypted)
                        source_warn(&source->source.owner, "%s is encrypted by QEMU: its backup is stored decrypted",
                                    from->name);
                source->captured[source->captured_count++] = i;
        }
        if (vm->disk_count == 0)
                return fail(reterr, -ENODEV, "the VM %s has no disk that could be captured", source->name);
        return 0;
}

static int libvirt_inspect(Source *base, SourceVm *ret, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        CLEANUP(source_vm_clear) SourceVm vm = { 0 };
        CLEANUP(freep) char *text = NULL;
        Domain parsed;
        Reason state;
        bool off;
        int rc;

        rc = libvirt_find_domain(source, &domain, reterr);
        if (rc < 0)
                return rc;
        rc = libvirt_check_active(domain, &state);
        off = rc == -EHOSTDOWN;
        if (rc < 0 && (!off || (source->begun && !source->off)))
                return fail(reterr, rc, "%s", state.text);
        text = virDomainGetXMLDesc(domain, 0);
        if (!text)
                return fail_libvirt(reterr, -EIO, "cannot get the VM's definition");
        rc = domain_parse(text, source->uri.local, &parsed, reterr);
        if (rc < 0)
                return rc;
        domain_clear(&source->domain);
        source->domain = parsed;
        source->inspected_off = off;
        if (off)
                rc = libvirt_off_inspect(source, domain, reterr);
        if (rc < 0)
                return rc;
        vm.uuid = strdup(source->uuid);
        rc = take_disks(source, &vm, reterr);
        if (rc < 0)
                return rc;
        if (!vm.uuid || libvirt_take_files(source, STEAL_PTR(text), &vm) < 0)
                return fail_oom(reterr);
        *ret = vm;
        vm = (SourceVm) { 0 };
        return 0;
}

static int libvirt_open_reader(Source *base, size_t disk, const SourceView *view, SourceReader **ret, Reason *reterr) {
        const LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(freep) char *bitmap = NULL;
        const char *name;

        if (!source->begun || disk >= source->captured_count)
                return fail(reterr, -EINVAL, "there is no backup job to read from");
        if (source->off)
                return libvirt_off_open_reader(source, disk, view, ret, reterr);
        name = source->domain.disks[source->captured[disk]].name;
        if (view->incremental && text_format(&bitmap, "qemu:dirty-bitmap:%s", name) < 0)
                return fail_oom(reterr);
        return nbd_reader_open(&(NbdAddress) { .socket_path = source->server.socket, .host = source->server.host,
                                               .port = source->server.port, .tls = source->server.tls,
                                               .certificates = source->uri.nbd_certificates, .export_name = name,
                                               .bitmap = bitmap, .ignore_zero = !view->ask_zero },
                               source->source.owner.cancel, ret, reterr);
}

static int libvirt_watch(Source *base, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;

        int rc;

        if (!source->begun)
                return 0;
        if (source->off)
                return libvirt_off_watch(source, reterr);
        rc = job_place_watch(&source->place, reterr);
        return rc == 0 ? libvirt_watch_meanwhile(source, reterr) : rc;
}

static int libvirt_confirm(Source *base, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;

        return source->off ? libvirt_off_confirm(source, reterr) : 0;
}

static void libvirt_free(Source *base) {
        LibvirtSource *source = (LibvirtSource *) base;

        if (source->off)
                libvirt_off_end(source);
        libvirt_meanwhile_end(source);
        if (source->connection)
                virConnectClose(source->connection);
        libvirt_uri_clear(&source->uri);
        domain_clear(&source->domain);
        job_place_forget(&source->place);
        free(source->captured);
        free(source->checkpoint);
        free(source);
}

static void libvirt_freep(LibvirtSource **source) {
        if (*source)
                libvirt_free(&(*source)->source);
}

static int libvirt_open(const SourceOwner *owner, Source **ret, Reason *reterr) {
        CLEANUP(libvirt_freep) LibvirtSource *source = calloc(1, sizeof *source);
        int rc;

        if (!source)
                return fail_oom(reterr);
        source->source.owner = *owner;
        rc = libvirt_uri_parse(owner->source, &source->uri, reterr);
        if (rc < 0)
                return rc;
        source->name = source->uri.domain ?: owner->vm;
        rc = libvirt_connect(source, reterr);
        if (rc < 0)
                return rc;
        *ret = &STEAL_PTR(source)->source;
        return 0;
}

const SourceOps libvirt_source_ops = {
        .name = "libvirt",
        .claims = libvirt_uri_claims,
        .open = libvirt_open,
        .identify = libvirt_identify,
        .inspect = libvirt_inspect,
        .begin = libvirt_begin,
        .checkpoint = libvirt_checkpoint,
        .open_reader = libvirt_open_reader,
        .watch = libvirt_watch,
        .confirm = libvirt_confirm,
        .end = libvirt_end,
        .end_leftovers = libvirt_end_leftovers,
        .keep_checkpoints = libvirt_keep_checkpoints,
        .free = libvirt_free,
};
