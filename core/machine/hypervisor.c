#include "machine/hypervisor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "libraries/libvirt-agent.h"
#include "libraries/libvirt-connect.h"
#include "sources/libvirt-uri.h"
#include "util/xml.h"

struct Hypervisor {
        LibvirtUri uri;
        virConnectPtr connection;
        bool has_kvm;
        uid_t uid;
        gid_t gid;
};

static void pool_freep(virStoragePoolPtr *pool) {
        if (*pool)
                virStoragePoolFree(*pool);
}

Hypervisor *hypervisor_free(Hypervisor *hypervisor) {
        if (hypervisor->connection)
                virConnectClose(hypervisor->connection);
        libvirt_uri_clear(&hypervisor->uri);
        free(hypervisor);
        return NULL;
}

static const char *default_uri(void) {
        const char *said = getenv("LIBVIRT_DEFAULT_URI");

        return said && *said ? said : geteuid() == 0 ? "qemu:///system" : "qemu:///session";
}

/* "+64055:+64055" */
static void take_owner(const char *label, Hypervisor *hypervisor) {
        unsigned uid, gid;

        if (sscanf(label, "+%u:+%u", &uid, &gid) != 2)
                return;
        hypervisor->uid = uid;
        hypervisor->gid = gid;
}

static void take_owners(const xmlNode *host, Hypervisor *hypervisor) {
        for (const xmlNode *model = xml_child(host, "secmodel"); model; model = xml_next(model)) {
                CLEANUP(freep) char *name = xml_content(xml_child(model, "model"));

                if (!name || strcmp(name, "dac") != 0)
                        continue;
                for (const xmlNode *label = xml_child(model, "baselabel"); label; label = xml_next(label)) {
                        CLEANUP(freep) char *text = xml_content(label);

                        if (text && xml_attribute_is(label, "type", "kvm"))
                                take_owner(text, hypervisor);
                }
        }
}

/* Some guest of the host's kind can run with KVM: others are rare enough to be libvirt's to refuse. */
static bool find_kvm(const xmlNode *root) {
        for (const xmlNode *guest = xml_child(root, "guest"); guest; guest = xml_next(guest))
                for (const xmlNode *arch = xml_child(guest, "arch"); arch; arch = xml_next(arch))
                        for (const xmlNode *domain = xml_child(arch, "domain"); domain; domain = xml_next(domain))
                                if (xml_attribute_is(domain, "type", "kvm"))
                                        return true;
        return false;
}

static int look_at_host(Hypervisor *hypervisor, Reason *reterr) {
        CLEANUP(freep) char *text = virConnectGetCapabilities(hypervisor->connection);
        CLEANUP(xml_free_docp) xmlDoc *doc = NULL;
        int rc;

        if (!text)
                return fail_libvirt(reterr, -EIO, "libvirt does not tell what it can do");
        rc = xml_parse(text, "capabilities", "what libvirt says that it can do", &doc, reterr);
        if (rc < 0)
                return rc;
        hypervisor->has_kvm = find_kvm(xmlDocGetRootElement(doc));
        hypervisor->uid = geteuid();
        hypervisor->gid = getegid();
        if (!hypervisor->uri.session)
                take_owners(xml_child(xmlDocGetRootElement(doc), "host"), hypervisor);
        return 0;
}

int hypervisor_open(const char *uri, Hypervisor **ret, Reason *reterr) {
        CLEANUP(hypervisor_freep) Hypervisor *hypervisor = calloc(1, sizeof *hypervisor);
        int rc;

        if (!hypervisor)
                return fail_oom(reterr);
        rc = libvirt_uri_parse(uri ?: default_uri(), &hypervisor->uri, reterr);
        if (rc < 0)
                return rc;
        if (!hypervisor->uri.local)
                return fail(reterr, -EREMOTE, "%s is another machine: run this there", hypervisor->uri.shown);
        rc = libvirt_open_connection(hypervisor->uri.uri, hypervisor->uri.shown, &hypervisor->connection, reterr);
        if (rc == 0)
                rc = look_at_host(hypervisor, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(hypervisor);
        return 0;
}

const char *hypervisor_uri(const Hypervisor *hypervisor) {
        return hypervisor->uri.uri;
}

const char *hypervisor_shown(const Hypervisor *hypervisor) {
        return hypervisor->uri.shown;
}

bool hypervisor_is_session(const Hypervisor *hypervisor) {
        return hypervisor->uri.session;
}

bool hypervisor_has_kvm(const Hypervisor *hypervisor) {
        return hypervisor->has_kvm;
}

uid_t hypervisor_uid(const Hypervisor *hypervisor) {
        return hypervisor->uid;
}

gid_t hypervisor_gid(const Hypervisor *hypervisor) {
        return hypervisor->gid;
}

/* A libvirtd that was restarted meanwhile is connected to again. */
static int connect_again(Hypervisor *hypervisor, Reason *reterr) {
        if (hypervisor->connection && virConnectIsAlive(hypervisor->connection) > 0)
                return 0;
        if (hypervisor->connection)
                virConnectClose(STEAL_PTR(hypervisor->connection));
        return libvirt_open_connection(hypervisor->uri.uri, hypervisor->uri.shown, &hypervisor->connection, reterr);
}

/* ---- which VMs there are ---- */

/* -ENOENT where libvirt does not know it. */
static int find(Hypervisor *hypervisor, const char *uuid, virDomainPtr *ret, Reason *reterr) {
        int rc = connect_again(hypervisor, reterr);

        if (rc < 0)
                return rc;
        *ret = virDomainLookupByUUIDString(hypervisor->connection, uuid);
        return *ret ? 0 : fail_libvirt(reterr, -EIO, "cannot look up the VM");
}

static int check_name(Hypervisor *hypervisor, const char *name, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = virDomainLookupByName(hypervisor->connection, name);
        int rc;

        if (domain)
                return fail(reterr, -EEXIST, "there is a VM named %s at %s already: --name gives this one another", name,
                            hypervisor->uri.shown);
        rc = libvirt_code(-EIO);
        return rc == -ENOENT ? 0 : fail_libvirt(reterr, rc, "cannot look for a VM of that name");
}

int hypervisor_check_free(Hypervisor *hypervisor, const char *name, const char *uuid, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc;

        rc = connect_again(hypervisor, reterr);
        if (rc == 0)
                rc = check_name(hypervisor, name, reterr);
        if (rc < 0 || !uuid)
                return rc;
        rc = find(hypervisor, uuid, &domain, reterr);
        if (rc == 0)
                return fail(reterr, -EEXIST, "the VM %s at %s has this VM's UUID already: without --keep-identity it gets a "
                                             "new one", virDomainGetName(domain), hypervisor->uri.shown);
        return rc == -ENOENT ? 0 : rc;
}

/* ---- pools ---- */

static int open_pool(Hypervisor *hypervisor, const char *pool, virStoragePoolPtr *ret, Reason *reterr) {
        CLEANUP(pool_freep) virStoragePoolPtr found = NULL;
        int rc = connect_again(hypervisor, reterr);

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

/* ---- a VM's life ---- */

int hypervisor_definition(Hypervisor *hypervisor, const char *uuid, char **ret, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = find(hypervisor, uuid, &domain, reterr);

        if (rc < 0)
                return rc;
        *ret = virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE);
        return *ret ? 0 : fail_libvirt(reterr, -EIO, "cannot get the VM's definition");
}

int hypervisor_define(Hypervisor *hypervisor, const char *definition, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = connect_again(hypervisor, reterr);

        if (rc < 0)
                return rc;
        domain = virDomainDefineXML(hypervisor->connection, definition);
        return domain ? 0 : fail_libvirt(reterr, -EINVAL, "libvirt does not take the VM's definition");
}

int hypervisor_start(Hypervisor *hypervisor, const char *uuid, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = find(hypervisor, uuid, &domain, reterr);

        if (rc < 0)
                return rc;
        return virDomainCreate(domain) == 0 ? 0 : fail_libvirt(reterr, -EIO, "the VM does not start");
}

static int go_on(virDomainPtr domain, Reason *reterr) {
        return virDomainResume(domain) == 0 ? 0 : fail_libvirt(reterr, -EIO, "the VM does not go on");
}

int hypervisor_resume(Hypervisor *hypervisor, const char *uuid, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int state = VIR_DOMAIN_NOSTATE, reason;
        int rc = find(hypervisor, uuid, &domain, reterr);

        if (rc < 0)
                return rc;
        if (virDomainGetState(domain, &state, &reason, 0) == 0 && state == VIR_DOMAIN_RUNNING)
                return 0;
        return go_on(domain, reterr);
}

int hypervisor_settle(Hypervisor *hypervisor, const char *uuid, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int state = VIR_DOMAIN_NOSTATE, reason;
        int rc = find(hypervisor, uuid, &domain, reterr);

        if (rc < 0)
                return rc;
        if (virDomainGetState(domain, &state, &reason, 0) < 0)
                return fail_libvirt(reterr, -EIO, "cannot get the VM's state");
        if (state == VIR_DOMAIN_PAUSED)
                return fail(reterr, -EAGAIN, "the VM is paused");
        if (state != VIR_DOMAIN_RUNNING)
                return fail(reterr, -EHOSTDOWN, "the VM has ended");
        if (virDomainSuspend(domain) < 0)
                return fail_libvirt(reterr, -EIO, "the VM's disks cannot be brought to rest");
        return go_on(domain, reterr);
}

int hypervisor_run(Hypervisor *hypervisor, const char *definition, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = connect_again(hypervisor, reterr);

        if (rc < 0)
                return rc;
        domain = virDomainCreateXML(hypervisor->connection, definition, VIR_DOMAIN_START_AUTODESTROY);
        return domain ? 0 : fail_libvirt(reterr, -EIO, "the VM does not start");
}

int hypervisor_destroy(Hypervisor *hypervisor, const char *uuid, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = find(hypervisor, uuid, &domain, reterr);

        if (rc == -ENOENT)
                return 0;
        if (rc < 0)
                return rc;
        if (virDomainIsActive(domain) == 0 || virDomainDestroy(domain) == 0 || virDomainIsActive(domain) == 0)
                return 0;
        return libvirt_code(-EIO) == -ENOENT ? 0 : fail_libvirt(reterr, -EIO, "the VM cannot be ended");
}

int hypervisor_undefine(Hypervisor *hypervisor, const char *uuid, Reason *reterr) {
        const unsigned flags = VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
                               VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | VIR_DOMAIN_UNDEFINE_KEEP_NVRAM;
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = find(hypervisor, uuid, &domain, reterr);

        if (rc == -ENOENT)
                return 0;
        if (rc < 0)
                return rc;
        if (virDomainIsPersistent(domain) == 0 || virDomainUndefineFlags(domain, flags) == 0)
                return 0;
        return libvirt_code(-EIO) == -ENOENT ? 0 : fail_libvirt(reterr, -EIO, "the VM cannot be undefined");
}

int hypervisor_state(Hypervisor *hypervisor, const char *uuid, MachineState *ret, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int state = VIR_DOMAIN_NOSTATE, reason = 0;
        int rc = find(hypervisor, uuid, &domain, reterr);

        if (rc == -ENOENT) {
                *ret = MACHINE_GONE;
                return 0;
        }
        if (rc < 0)
                return rc;
        if (virDomainGetState(domain, &state, &reason, 0) < 0)
                return fail_libvirt(reterr, -EIO, "cannot get the VM's state");
        if (state == VIR_DOMAIN_SHUTOFF || state == VIR_DOMAIN_CRASHED)
                *ret = MACHINE_OFF;
        else if (state == VIR_DOMAIN_PAUSED && reason == VIR_DOMAIN_PAUSED_IOERROR)
                *ret = MACHINE_STOPPED;
        else
                *ret = MACHINE_RUNS;
        return 0;
}

/* ---- its disks ---- */

int hypervisor_pull(Hypervisor *hypervisor, const char *uuid, const char *disk, uint64_t rate, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = find(hypervisor, uuid, &domain, reterr);

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
        int rc = find(hypervisor, uuid, &domain, reterr);

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
        int rc = find(hypervisor, uuid, &domain, reterr);

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
        int rc = find(hypervisor, uuid, &domain, reterr);

        if (rc == 0)
                rc = read_definition(domain, VIR_DOMAIN_XML_INACTIVE, &doc, reterr);
        if (rc < 0 && rc != -ENOENT)
                return rc;
        *ret = rc == 0 && xml_attribute_is(xml_child(find_disk(doc, disk), "source"), "file", path);
        return 0;
}

int hypervisor_ask_agent(Hypervisor *hypervisor, const char *uuid, unsigned patience_ms, const atomic_bool *cancel,
                         Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = find(hypervisor, uuid, &domain, reterr);

        return rc < 0 ? rc : libvirt_ask_agent(domain, AGENT_PING, patience_ms, cancel, reterr);
}
