#include "repository/registration.h"

#include <errno.h>
#include <string.h>

#include "repository/document.h"
#include "repository/vm.h"

#define VM_KIND "virtbackupfs vm"
#define VM_VERSION 1

static int load(const json_t *object, const char *vm, Registration *ret, Reason *reterr) {
        const char *name, *uuid, *source = NULL;
        uint64_t serial = 0;
        uuid_t parsed;
        int rc = document_check(object, VM_KIND, VM_VERSION, reterr);

        if (rc == 0)
                rc = json_take_string(object, "name", &name, reterr);
        if (rc == 0)
                rc = json_take_string(object, "uuid", &uuid, reterr);
        if (rc == 0)
                rc = json_take_size(object, "serial", &serial, reterr);
        if (rc == 0)
                rc = json_take_optional_string(object, "source", &source, reterr);
        if (rc < 0)
                return rc;
        if (strcmp(name, vm) != 0)
                return fail(reterr, -EBADMSG, "it is that of another VM, %s", name);
        if (uuid_parse(uuid, parsed) < 0)
                return fail(reterr, -EBADMSG, "\"uuid\" is no UUID");
        if (serial == 0 || serial > SERIAL_MAX)
                return fail(reterr, -EBADMSG, "\"serial\" is not from 1 to %u", SERIAL_MAX);
        if (source) {
                ret->source = strdup(source);
                if (!ret->source)
                        return fail_oom(reterr);
        }
        uuid_unparse_lower(parsed, ret->uuid);
        ret->serial = (uint32_t) serial;
        return 0;
}

int registration_read(int vm_fd, const char *vm, Registration *ret, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *object = NULL;
        int rc = sealed_json_read(vm_fd, REGISTRATION_FILE, &object, reterr);

        if (rc < 0)
                return rc;
        rc = load(object, vm, ret, reterr);
        return rc < 0 ? fail_within(reterr, rc, REGISTRATION_FILE) : 0;
}

int registration_write(int dir_fd, const char *path, const char *vm, const Registration *registration, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *object = document_new(VM_KIND, VM_VERSION);
        const char *source = registration->source;
        int bad = !object;

        bad |= json_object_set_new(object, "name", json_string(vm));
        bad |= json_object_set_new(object, "uuid", json_string(registration->uuid));
        bad |= json_object_set_new(object, "serial", json_integer(registration->serial));
        bad |= json_object_set_new(object, "source", source ? json_string(source) : json_null());
        if (bad)
                return fail_oom(reterr);
        return sealed_json_replace(dir_fd, path, object, reterr);
}

void registration_clear(Registration *registration) {
        free(registration->source);
        *registration = (Registration) { 0 };
}
