#include "sources/job-xml.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/xml.h"

static int new_document(const char *root_name, xmlDoc **ret, xmlNode **ret_root, Reason *reterr) {
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        xmlNode *root;
        int rc = libxml2_load(reterr);

        if (rc < 0)
                return rc;
        doc = xmlNewDoc(BAD_CAST "1.0");
        root = doc ? xmlNewNode(NULL, BAD_CAST root_name) : NULL;
        if (!root)
                return fail_oom(reterr);
        xmlDocSetRootElement(doc, root);
        *ret = STEAL_PTR(doc);
        *ret_root = root;
        return 0;
}

static int finish_document(xmlDoc *doc, int rc, char **ret, Reason *reterr) {
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot write the XML of a backup job");
        return xml_dump(doc, ret, reterr);
}

static void add_backup_disk(xmlNode *disks, const JobDisk *disk, const char *base, int *rc) {
        xmlNode *node = xml_add(disks, "disk", NULL, rc), *child;

        xml_set(node, "name", disk->name, rc);
        xml_set(node, "backup", disk->backup ? "yes" : "no", rc);
        if (!disk->backup)
                return;
        xml_set(node, "type", "file", rc);
        xml_set(node, "backupmode", disk->incremental ? "incremental" : "full", rc);
        if (disk->incremental) {
                xml_set(node, "incremental", base, rc);
                xml_set(node, "exportbitmap", disk->name, rc);
        }
        xml_set(node, "exportname", disk->name, rc);
        child = xml_add(node, "driver", NULL, rc);
        xml_set(child, "type", "qcow2", rc);
        child = xml_add(node, "scratch", NULL, rc);
        xml_set(child, "file", disk->scratch, rc);
}

static void add_server(xmlNode *root, const JobServer *server, int *rc) {
        xmlNode *node = xml_add(root, "server", NULL, rc);
        char port[16];

        xml_set(node, "transport", server->socket ? "unix" : "tcp", rc);
        if (server->socket) {
                xml_set(node, "socket", server->socket, rc);
                return;
        }
        snprintf(port, sizeof port, "%u", server->port);
        xml_set(node, "name", server->host, rc);
        xml_set(node, "port", port, rc);
        if (server->tls)
                xml_set(node, "tls", "yes", rc);
}

int job_xml_backup(const JobDisk *disks, size_t count, const char *base, const JobServer *server, char **ret,
                   Reason *reterr) {
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        xmlNode *root = NULL, *node;
        int rc;

        rc = new_document("domainbackup", &doc, &root, reterr);
        if (rc < 0)
                return rc;
        xml_set(root, "mode", "pull", &rc);
        add_server(root, server, &rc);
        node = xml_add(root, "disks", NULL, &rc);
        for (size_t i = 0; i < count; i++)
                add_backup_disk(node, &disks[i], base, &rc);
        return finish_document(doc, rc, ret, reterr);
}

int job_xml_checkpoint(const JobDisk *disks, size_t count, const char *name, char **ret, Reason *reterr) {
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        xmlNode *root = NULL, *list;
        int rc;

        rc = new_document("domaincheckpoint", &doc, &root, reterr);
        if (rc < 0)
                return rc;
        xml_add(root, "name", name, &rc);
        xml_add(root, "description", "the state that virtbackupfs backs changes up from; deleted by it", &rc);
        list = xml_add(root, "disks", NULL, &rc);
        for (size_t i = 0; i < count; i++) {
                xmlNode *node = xml_add(list, "disk", NULL, &rc);

                xml_set(node, "name", disks[i].name, &rc);
                xml_set(node, "checkpoint", disks[i].checkpoint ? "bitmap" : "no", &rc);
        }
        return finish_document(doc, rc, ret, reterr);
}

static int add_path(const xmlNode *node, const char *attribute, Strings *paths) {
        CLEANUP(freep) char *path = xml_attribute(node, attribute);

        return path ? strings_add(paths, path) : 0;
}

int job_xml_paths(const char *backup, Strings *ret, Reason *reterr) {
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        CLEANUP(strings_free) Strings paths = { 0 };
        const xmlNode *root;
        int rc;

        rc = xml_parse(backup, "domainbackup", "the XML of the running job", &doc, reterr);
        if (rc < 0)
                return rc;
        root = xmlDocGetRootElement(doc);
        rc = add_path(xml_child(root, "server"), "socket", &paths);
        for (const xmlNode *disk = xml_child(xml_child(root, "disks"), "disk"); disk && rc == 0; disk = xml_next(disk))
                rc = add_path(xml_child(disk, "scratch"), "file", &paths);
        if (rc < 0)
                return fail_oom(reterr);
        *ret = paths;
        paths = (Strings) { 0 };
        return 0;
}

static bool contains(const Strings *strings, const char *text) {
        for (size_t i = 0; i < strings->count; i++)
                if (strcmp(strings->items[i], text) == 0)
                        return true;
        return false;
}

/* Takes out every disk that is not named. */
static void keep_disks(xmlNode *disks, const Strings *keep) {
        xmlNode *next;

        for (xmlNode *node = xml_child(disks, "disk"); node; node = next) {
                CLEANUP(freep) char *name = xml_attribute(node, "name");

                next = xml_next(node);
                if (!name || !contains(keep, name))
                        xml_remove(node);
        }
}

int job_xml_redefine(const char *definition, const char *name, const Strings *disks, char **ret, Reason *reterr) {
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        CLEANUP(freep) char *its_name = NULL;
        xmlNode *root = NULL;
        int rc;

        rc = xml_parse(definition, "domaincheckpoint", "the definition of the checkpoint", &doc, reterr);
        if (rc < 0)
                return rc;
        root = xmlDocGetRootElement(doc);
        its_name = xml_content(xml_child(root, "name"));
        if (!its_name || strcmp(its_name, name) != 0)
                return fail(reterr, -EBADMSG, "the definition of the checkpoint is not that of %s", name);
        xml_remove_children(root, "parent");
        keep_disks(xml_child(root, "disks"), disks);
        return xml_dump(doc, ret, reterr);
}

int job_xml_checkpoint_disks(const char *definition, Strings *ret, Reason *reterr) {
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        CLEANUP(strings_free) Strings disks = { 0 };
        int rc;

        rc = xml_parse(definition, "domaincheckpoint", "the definition of the checkpoint", &doc, reterr);
        if (rc < 0)
                return rc;
        for (xmlNode *node = xml_child(xml_child(xmlDocGetRootElement(doc), "disks"), "disk"); node; node = xml_next(node)) {
                CLEANUP(freep) char *name = xml_attribute(node, "name");

                if (!name || !xml_attribute_is(node, "checkpoint", "bitmap"))
                        continue;
                rc = strings_add(&disks, name);
                if (rc < 0)
                        return fail_oom(reterr);
        }
        *ret = disks;
        disks = (Strings) { 0 };
        return 0;
}
