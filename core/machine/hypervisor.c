#include "machine/hypervisor-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/xml.h"

Hypervisor *hypervisor_free(Hypervisor *hypervisor) {
        if (!hypervisor)
                return NULL;
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

int hypervisor_connect_again(Hypervisor *hypervisor, Reason *reterr) {
        if (hypervisor->connection && virConnectIsAlive(hypervisor->connection) > 0)
                return 0;
        if (hypervisor->connection)
                virConnectClose(STEAL_PTR(hypervisor->connection));
        return libvirt_open_connection(hypervisor->uri.uri, hypervisor->uri.shown, &hypervisor->connection, reterr);
}

int hypervisor_find(Hypervisor *hypervisor, const char *uuid, virDomainPtr *ret, Reason *reterr) {
        int rc = hypervisor_connect_again(hypervisor, reterr);

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

        rc = hypervisor_connect_again(hypervisor, reterr);
        if (rc == 0)
                rc = check_name(hypervisor, name, reterr);
        if (rc < 0 || !uuid)
                return rc;
        rc = hypervisor_find(hypervisor, uuid, &domain, reterr);
        if (rc == 0)
                return fail(reterr, -EEXIST, "the VM %s at %s has this VM's UUID already: without --keep-identity it gets a "
                                             "new one", virDomainGetName(domain), hypervisor->uri.shown);
        return rc == -ENOENT ? 0 : rc;
}
