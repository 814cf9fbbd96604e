#include "sources/libvirt-private.h"

#include <errno.h>
#include <string.h>

int libvirt_connect(LibvirtSource *source, Reason *reterr) {
        if (source->connection && virConnectIsAlive(source->connection) > 0)
                return 0;
        if (source->connection)
                virConnectClose(STEAL_PTR(source->connection));
        return libvirt_open_connection(source->uri.uri, source->uri.shown, &source->connection, reterr);
}

int libvirt_find_domain(LibvirtSource *source, virDomainPtr *ret, Reason *reterr) {
        const char *expected = source->source.owner.vm_uuid;
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc;

        rc = libvirt_connect(source, reterr);
        if (rc < 0)
                return rc;
        domain = virDomainLookupByName(source->connection, source->name);
        if (!domain) {
                rc = libvirt_code(-EIO);
                if (rc == -ENOENT)
                        return fail(reterr, rc, "%s has no VM named %s", source->uri.shown, source->name);
                return fail(reterr, rc, "cannot look up the VM %s: %s", source->name, libvirt_words());
        }
        if (virDomainGetUUIDString(domain, source->uuid) < 0)
                return fail_libvirt(reterr, -EIO, "cannot get the VM's UUID");
        if (expected && strcasecmp(expected, source->uuid) != 0)
                return fail(reterr, -ESTALE, "the VM named %s is another one now: its UUID is %s, not %s", source->name,
                            source->uuid, expected);
        *ret = STEAL_PTR(domain);
        return 0;
}

bool libvirt_is_active(virDomainPtr domain) {
        return virDomainIsActive(domain) > 0;
}

static const char *state_name(virDomainPtr domain) {
        int state = VIR_DOMAIN_NOSTATE, reason;

        virDomainGetState(domain, &state, &reason, 0);
        return state == VIR_DOMAIN_CRASHED ? "crashed" : "shut off";
}

int libvirt_check_active(virDomainPtr domain, Reason *reterr) {
        if (libvirt_is_active(domain))
                return 0;
        if (libvirt_code(0) == -ENOTCONN)
                return fail_libvirt(reterr, -EIO, "cannot get the VM's state");
        return fail(reterr, -EHOSTDOWN, "%s is %s", virDomainGetName(domain), state_name(domain));
}
