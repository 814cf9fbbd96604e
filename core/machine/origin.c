#include "machine/origin.h"

#include <errno.h>
#include <string.h>

#include "machine/definition.h"
#include "repository/point.h"
#include "sources/libvirt-uri.h"

#define DEFINITION_FILE "domain.xml"

void origin_clear(Origin *origin) {
        manifest_unref(origin->manifest);
        free(origin->definition);
        free(origin->name);
        *origin = (Origin) { 0 };
}

int origin_read(Vm *vm, const char *point, Origin *ret, Reason *reterr) {
        CLEANUP(origin_clear) Origin origin = { .vm = vm };
        size_t length;
        int rc;

        rc = point_check(vm, point, reterr);
        if (rc == 0)
                rc = manifest_read(vm, point, &origin.manifest, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "%s/%s", vm_name(vm), point);
        if (!manifest_find_file(origin.manifest, DEFINITION_FILE))
                return fail(reterr, -ENODATA, "%s/%s has no definition of the VM: restore its disks, and make a VM for them",
                            vm_name(vm), point);
        rc = manifest_read_file(vm, origin.manifest, DEFINITION_FILE, &origin.definition, &length, reterr);
        if (rc == 0)
                rc = definition_identity(origin.definition, &origin.name, origin.uuid, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "%s/%s", vm_name(vm), point);
        *ret = origin;
        origin = (Origin) { 0 };
        return 0;
}

int origin_open_hypervisor(const Origin *origin, const char *uri, Hypervisor **ret, Reason *reterr) {
        CLEANUP(libvirt_uri_clear) LibvirtUri source = { 0 };
        const char *registered = vm_source(origin->vm);

        if (!uri && registered && libvirt_uri_claims(registered) && libvirt_uri_parse(registered, &source, NULL) == 0 &&
            source.local)
                uri = source.uri;
        return hypervisor_open(uri, ret, reterr);
}

int origin_check_name(const char *name, Reason *reterr) {
        if (vm_name_is_valid(name))
                return 0;
        return fail(reterr, -EINVAL, "\"%s\" cannot be a VM's name here, as files are named after it: " VM_NAME_RULE, name);
}

void origin_say(void (*say)(void *context, const char *line), void *context, const char *name, const char *line) {
        Reason words;

        fail(&words, 0, "%s: %s", name, line);
        say(context, words.text);
}
