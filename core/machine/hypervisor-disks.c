#include <errno.h>

#include "machine/hypervisor-private.h"
#include "util/xml.h"

int hypervisor_pull(Hypervisor *hypervisor, const char *uuid, const char *disk, uint64_t rate, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = hypervisor_find(hypervisor, uuid, &domain, reterr);

        if (rc < 0)
                return rc;
        if (virDomainBlockPull(domain, disk, (unsigned long) rate, VIR_DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES) < 0)
                return fail(reterr, libvirt_code(-EIO), "%s cannot be streamed: %s", disk, libvirt_words());
        return 0;
}

int hypervisor_pull_progress(Hypervisor *hypervisor, const char *uuid, const char *disk, uint64_t *ret_done,
                             uint64_t *ret_total, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        virDomainBlockJobInfo info;
        int rc = hypervisor_find(hypervisor, uuid, &domain, reterr);

        if (rc < 0)
                return rc;
        rc = virDomainGetBlockJobInfo(domain, disk, &info, 0);
        if (rc < 0)
                return fail(reterr, libvirt_code(-EIO), "%s: cannot see how far it is: %s", disk, libvirt_words());
        if (rc == 0)
                return 0;
        *ret_done = info.cur;
        *ret_total = info.end;
        return 1;
}

static const xmlNode *find_disk(xmlDoc *doc, const char *disk) {
        const xmlNode *devices = xml_child(xmlDocGetRootElement(doc), "devices");

        for (const xmlNode *node = xml_child(devices, "disk"); node; node = xml_next(node))
                if (xml_attribute_is(xml_child(node, "target"), "dev", disk))
                        return node;
        return NULL;
}

static int read_definition(virDomainPtr domain, unsigned flags, xmlDoc **ret, Reason *reterr) {
        CLEANUP(freep) char *text = virDomainGetXMLDesc(domain, flags);

        if (!text)
                return fail_libvirt(reterr, -EIO, "cannot get the VM's definition");
        return xml_parse(text, "domain", "the VM's definition", ret, reterr);
}

static int look_for_backing(virDomainPtr domain, unsigned flags, const char *disk, bool *ret, Reason *reterr) {
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        int rc = read_definition(domain, flags, &doc, reterr);

        if (rc == 0)
                *ret = *ret || xml_child(xml_child(find_disk(doc, disk), "backingStore"), "source");
        return rc;
}

int hypervisor_disk_has_backing(Hypervisor *hypervisor, const char *uuid, const char *disk, bool *ret, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        bool has = false;
        int rc = hypervisor_find(hypervisor, uuid, &domain, reterr);

        if (rc == 0)
                rc = look_for_backing(domain, 0, disk, &has, reterr);
        if (rc == 0)
                rc = look_for_backing(domain, VIR_DOMAIN_XML_INACTIVE, disk, &has, reterr);
        if (rc == 0)
                *ret = has;
        return rc;
}

int hypervisor_has_image(Hypervisor *hypervisor, const char *uuid, const char *disk, const char *path, bool *ret,
                         Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        int rc = hypervisor_find(hypervisor, uuid, &domain, reterr);

        if (rc == 0)
                rc = read_definition(domain, VIR_DOMAIN_XML_INACTIVE, &doc, reterr);
        if (rc < 0 && rc != -ENOENT)
                return rc;
        *ret = rc == 0 && xml_attribute_is(xml_child(find_disk(doc, disk), "source"), "file", path);
        return 0;
}
