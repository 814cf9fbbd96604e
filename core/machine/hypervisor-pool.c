#include <errno.h>
#include <string.h>

#include "machine/hypervisor-private.h"
#include "util/xml.h"

static void pool_freep(virStoragePoolPtr *pool) {
        if (*pool)
                virStoragePoolFree(*pool);
}

static int open_pool(Hypervisor *hypervisor, const char *pool, virStoragePoolPtr *ret, Reason *reterr) {
        CLEANUP(pool_freep) virStoragePoolPtr found = NULL;
        int rc = hypervisor_connect_again(hypervisor, reterr);

        if (rc < 0)
                return rc;
        found = virStoragePoolLookupByName(hypervisor->connection, pool);
        if (!found)
                return fail(reterr, -ENOENT, "%s has no storage pool %s (a directory is written with a slash in it)",
                            hypervisor->uri.shown, pool);
        if (virStoragePoolIsActive(found) == 0 && virStoragePoolCreate(found, 0) < 0)
                return fail(reterr, -EIO, "the storage pool %s cannot be started: %s", pool, libvirt_words());
        *ret = STEAL_PTR(found);
        return 0;
}

int hypervisor_pool_directory(Hypervisor *hypervisor, const char *pool, char **ret, Reason *reterr) {
        CLEANUP(pool_freep) virStoragePoolPtr found = NULL;
        CLEANUP(freep) char *text = NULL, *type = NULL, *path = NULL;
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        const xmlNode *root;
        int rc;

        rc = open_pool(hypervisor, pool, &found, reterr);
        if (rc < 0)
                return rc;
        text = virStoragePoolGetXMLDesc(found, 0);
        if (!text)
                return fail_libvirt(reterr, -EIO, "cannot look at the storage pool");
        rc = xml_parse(text, "pool", "the definition of the storage pool", &doc, reterr);
        if (rc < 0)
                return rc;
        root = xmlDocGetRootElement(doc);
        type = xml_attribute(root, "type");
        path = xml_content(xml_child(xml_child(root, "target"), "path"));
        if (!type || (strcmp(type, "dir") != 0 && strcmp(type, "netfs") != 0 && strcmp(type, "fs") != 0) || !path)
                return fail(reterr, -ENOTSUP, "the storage pool %s is no directory but of type %s", pool, type ?: "unknown");
        *ret = STEAL_PTR(path);
        return 0;
}

void hypervisor_refresh_pool(Hypervisor *hypervisor, const char *pool) {
        CLEANUP(pool_freep) virStoragePoolPtr found = NULL;

        if (open_pool(hypervisor, pool, &found, NULL) == 0)
                (void) virStoragePoolRefresh(found, 0);
}
