#include "sources/libvirt-private.h"

#include <errno.h>
#include <string.h>

static virDomainCheckpointPtr redefine(virDomainPtr domain, const char *definition, const char *name, const Strings *disks) {
        CLEANUP(freep) char *text = NULL;

        virResetLastError();
        if (disks->count == 0 || job_xml_redefine(definition, name, disks, &text, NULL) < 0)
                return NULL;
        return virDomainCheckpointCreateXML(domain, text, VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE |
                                                                  VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE);
}

/* The disks of a checkpoint that the VM has (still). */
static int present_disks(const Domain *domain, const char *definition, Strings *ret, Reason *reterr) {
        CLEANUP(strings_free) Strings all = { 0 }, present = { 0 };
        int rc;

        rc = job_xml_checkpoint_disks(definition, &all, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < all.count; i++)
                for (size_t d = 0; d < domain->disk_count; d++)
                        if (strcmp(all.items[i], domain->disks[d].name) == 0 && strings_add(&present, all.items[i]) < 0)
                                return fail_oom(reterr);
        *ret = present;
        present = (Strings) { 0 };
        return 0;
}

int libvirt_ensure_base(const LibvirtSource *source, virDomainPtr domain, const SourceJob *job, const JobDisk *disks,
                        Reason *reterr) {
        CLEANUP(libvirt_checkpoint_freep) virDomainCheckpointPtr checkpoint = NULL;
        CLEANUP(strings_free) Strings present = { 0 }, wanted = { 0 };
        int rc;

        checkpoint = virDomainCheckpointLookupByName(domain, job->base, 0);
        if (checkpoint)
                return 0;
        rc = libvirt_code(-EIO);
        if (rc != -ESTALE)
                return fail_libvirt(reterr, rc, "cannot look up the checkpoint of the last backup");
        if (!job->base_definition)
                return fail(reterr, -ESTALE, "the checkpoint %s is gone", job->base);
        if (present_disks(&source->domain, job->base_definition, &present, reterr) < 0)
                return -ESTALE;
        checkpoint = redefine(domain, job->base_definition, job->base, &present);
        if (checkpoint)
                return 0;
        /* A disk whose bitmap is gone for a reason of its own is no matter where it gets a full layer anyway. */
        for (size_t i = 0; i < source->domain.disk_count; i++)
                if (disks[i].incremental && strings_add(&wanted, disks[i].name) < 0)
                        return fail_oom(reterr);
        checkpoint = redefine(domain, job->base_definition, job->base, &wanted);
        if (checkpoint)
                return 0;
        rc = libvirt_code(-ESTALE);
        return fail(reterr, rc, "the checkpoint %s is gone, and cannot be defined again: %s", job->base, libvirt_words());
}

/* Which disks of a checkpoint still have its bitmap: libvirt is asked for each alone. */
static void disks_with_bitmap(virDomainPtr domain, const char *definition, const char *name, Strings *ret) {
        CLEANUP(strings_free) Strings all = { 0 };

        if (job_xml_checkpoint_disks(definition, &all, NULL) < 0)
                return;
        for (size_t i = 0; i < all.count; i++) {
                const Strings one = { .items = &all.items[i], .count = 1 };
                CLEANUP(libvirt_checkpoint_freep) virDomainCheckpointPtr found = redefine(domain, definition, name, &one);

                if (found)
                        strings_add(ret, all.items[i]);
        }
}

int libvirt_delete_checkpoint(virDomainPtr domain, virDomainCheckpointPtr checkpoint, Reason *reterr) {
        CLEANUP(freep) char *definition = NULL;
        CLEANUP(strings_free) Strings disks = { 0 };
        const char *name = virDomainCheckpointGetName(checkpoint);
        Reason first;
        int rc;

        if (virDomainCheckpointDelete(checkpoint, 0) == 0)
                return 0;
        rc = libvirt_code(-EIO);
        fail(&first, rc, "cannot delete the checkpoint %s: %s", name, libvirt_words());
        if (rc == -ENOTCONN || rc == -EBUSY || rc == -EACCES)
                return fail(reterr, rc, "%s", first.text);
        definition = virDomainCheckpointGetXMLDesc(checkpoint, VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN);
        if (!definition)
                return fail(reterr, rc, "%s", first.text);
        disks_with_bitmap(domain, definition, name, &disks);
        if (disks.count == 0) {
                rc = virDomainCheckpointDelete(checkpoint, VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY) < 0 ? rc : 0;
        } else {
                CLEANUP(libvirt_checkpoint_freep) virDomainCheckpointPtr again = redefine(domain, definition, name, &disks);

                rc = again && virDomainCheckpointDelete(again, 0) == 0 ? 0 : rc;
        }
        return rc < 0 ? fail(reterr, rc, "%s", first.text) : 0;
}

static bool is_kept(const char *name, const char *const *keep, size_t count) {
        for (size_t i = 0; i < count; i++)
                if (strcmp(name, keep[i]) == 0)
                        return true;
        return false;
}

/* Deletes what is ours and not kept; the first failure is told, the others are tried all the same. */
static int delete_unkept(virDomainPtr domain, const char *prefix, virDomainCheckpointPtr *list, int listed,
                         const char *const *keep, size_t count, Reason *reterr) {
        int result = 0;

        for (int i = 0; i < listed; i++) {
                const char *name = virDomainCheckpointGetName(list[i]);
                int rc;

                if (strncmp(name, prefix, strlen(prefix)) != 0 || is_kept(name, keep, count))
                        continue;
                if (!libvirt_is_active(domain))
                        return fail(reterr, -EAGAIN, "the checkpoint %s stays until the VM runs again: libvirt deletes none "
                                                     "of a VM that is off", name);
                rc = libvirt_delete_checkpoint(domain, list[i], result == 0 ? reterr : NULL);
                result = result < 0 ? result : rc;
        }
        return result;
}

int libvirt_keep_checkpoints(Source *base, const char *const *keep, size_t count, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        virDomainCheckpointPtr *list = NULL;
        char prefix[JOB_TAG_MAX];
        int rc, listed;

        rc = libvirt_find_domain(source, &domain, reterr);
        if (rc < 0)
                return rc;
        listed = virDomainListAllCheckpoints(domain, &list, 0);
        if (listed < 0)
                return fail_libvirt(reterr, -EIO, "cannot list the VM's checkpoints");
        job_repository_prefix(source->source.owner.repository, prefix);
        rc = delete_unkept(domain, prefix, list, listed, keep, count, reterr);
        for (int i = 0; i < listed; i++)
                virDomainCheckpointFree(list[i]);
        free(list);
        return rc;
}

int libvirt_checkpoint(Source *base, char **ret_name, char **ret_definition, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(libvirt_checkpoint_freep) virDomainCheckpointPtr checkpoint = NULL;
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        char *text, *name;
        int rc;

        *ret_name = *ret_definition = NULL;
        if (source->off)
                return libvirt_off_checkpoint(source, ret_name, ret_definition, reterr);
        if (!source->checkpoint)
                return 0;
        rc = libvirt_find_domain(source, &domain, reterr);
        if (rc < 0)
                return rc;
        checkpoint = virDomainCheckpointLookupByName(domain, source->checkpoint, 0);
        text = checkpoint ? virDomainCheckpointGetXMLDesc(checkpoint, VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN) : NULL;
        if (!text)
                return fail_libvirt(reterr, -EIO, "cannot get the definition of the new checkpoint");
        name = strdup(source->checkpoint);
        if (!name) {
                free(text);
                return fail_oom(reterr);
        }
        *ret_name = name;
        *ret_definition = text;
        return 0;
}
