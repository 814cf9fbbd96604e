#include <errno.h>

#include "libraries/libvirt-agent.h"
#include "machine/hypervisor-private.h"

int hypervisor_definition(Hypervisor *hypervisor, const char *uuid, char **ret, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = hypervisor_find(hypervisor, uuid, &domain, reterr);

        if (rc < 0)
                return rc;
        *ret = virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE);
        return *ret ? 0 : fail_libvirt(reterr, -EIO, "cannot get the VM's definition");
}

int hypervisor_define(Hypervisor *hypervisor, const char *definition, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = hypervisor_connect_again(hypervisor, reterr);

        if (rc < 0)
                return rc;
        domain = virDomainDefineXML(hypervisor->connection, definition);
        return domain ? 0 : fail_libvirt(reterr, -EINVAL, "libvirt does not take the VM's definition");
}

int hypervisor_start(Hypervisor *hypervisor, const char *uuid, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = hypervisor_find(hypervisor, uuid, &domain, reterr);

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
        int rc = hypervisor_find(hypervisor, uuid, &domain, reterr);

        if (rc < 0)
                return rc;
        if (virDomainGetState(domain, &state, &reason, 0) == 0 && state == VIR_DOMAIN_RUNNING)
                return 0;
        return go_on(domain, reterr);
}

int hypervisor_settle(Hypervisor *hypervisor, const char *uuid, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int state = VIR_DOMAIN_NOSTATE, reason;
        int rc = hypervisor_find(hypervisor, uuid, &domain, reterr);

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
        int rc = hypervisor_connect_again(hypervisor, reterr);

        if (rc < 0)
                return rc;
        domain = virDomainCreateXML(hypervisor->connection, definition, VIR_DOMAIN_START_AUTODESTROY);
        return domain ? 0 : fail_libvirt(reterr, -EIO, "the VM does not start");
}

int hypervisor_destroy(Hypervisor *hypervisor, const char *uuid, Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = hypervisor_find(hypervisor, uuid, &domain, reterr);

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
        int rc = hypervisor_find(hypervisor, uuid, &domain, reterr);

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
        int rc = hypervisor_find(hypervisor, uuid, &domain, reterr);

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

int hypervisor_ask_agent(Hypervisor *hypervisor, const char *uuid, unsigned patience_ms, const atomic_bool *cancel,
                         Reason *reterr) {
        CLEANUP(libvirt_domain_freep) virDomainPtr domain = NULL;
        int rc = hypervisor_find(hypervisor, uuid, &domain, reterr);

        return rc < 0 ? rc : libvirt_ask_agent(domain, AGENT_PING, patience_ms, cancel, reterr);
}
