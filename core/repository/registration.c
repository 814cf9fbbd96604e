#include "repository/registration.h"

#include <errno.h>
#include <string.h>

#include "repository/document.h"
#include "repository/vm.h"

#define VM_KIND "virtbackupfs vm"
#define VM_VERSION 1
#define DISKS_MAX 1024

/* Vm.json of before there were such lists has none. */
static int take_names(const json_t *object, const char *key, Strings *ret, Reason *reterr) {
        const json_t *list = json_object_get(object, key), *item;
        size_t i;

        if (list && (!json_is_array(list) || json_array_size(list) > DISKS_MAX))
                return fail(reterr, -EBADMSG, "\"%s\" is no list of at most %d disks", key, DISKS_MAX);
        json_array_foreach((json_t *) list, i, item) {
                if (!json_is_string(item))
                        return fail(reterr, -EBADMSG, "\"%s\" has what is no disk's name", key);
                if (strings_add(ret, json_string_value(item)) < 0)
                        return fail_oom(reterr);
        }
        return 0;
}

static json_t *dump_names(const Strings *names) {
        json_t *list = json_array();
        int bad = !list;

        for (size_t i = 0; i < names->count; i++)
                bad |= json_array_append_new(list, json_string(names->items[i]));
        if (bad)
                json_decref(list);
        return bad ? NULL : list;
}

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
        if (rc == 0)
                rc = take_names(object, "include", &ret->include, reterr);
        if (rc == 0)
                rc = take_names(object, "exclude", &ret->exclude, reterr);
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
        CLEANUP(registration_clear) Registration registration = { 0 };
        int rc = sealed_json_read(vm_fd, REGISTRATION_FILE, &object, reterr);

        if (rc < 0)
                return rc;
        rc = load(object, vm, &registration, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, REGISTRATION_FILE);
        *ret = registration;
        registration = (Registration) { 0 };
        return 0;
}

int registration_write(int dir_fd, const char *path, const char *vm, const Registration *registration, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *object = document_new(VM_KIND, VM_VERSION);
        const char *source = registration->source;
        int bad = !object;

        bad |= json_object_set_new(object, "name", json_string(vm));
        bad |= json_object_set_new(object, "uuid", json_string(registration->uuid));
        bad |= json_object_set_new(object, "serial", json_integer(registration->serial));
        bad |= json_object_set_new(object, "source", source ? json_string(source) : json_null());
        bad |= json_object_set_new(object, "include", dump_names(&registration->include));
        bad |= json_object_set_new(object, "exclude", dump_names(&registration->exclude));
        if (bad)
                return fail_oom(reterr);
        return sealed_json_replace(dir_fd, path, object, reterr);
}

void registration_clear(Registration *registration) {
        free(registration->source);
        strings_free(&registration->include);
        strings_free(&registration->exclude);
        *registration = (Registration) { 0 };
}
