/* Registering VMs and forgetting them: how they come into being and go. */
#include <errno.h>
#include <string.h>

#include "repository/capture-lock.h"
#include "repository/foreign/foreign.h"
#include "repository/native.h"
#include "util/directory.h"
#include "util/file.h"

#define VM_PATH_MAX (sizeof "vms/" + VM_NAME_MAX)

/* Hidden, so that a crash in between shows nothing. Used under the repository's lock. */
#define NEW_PATH "vms/.new"
#define GONE_PATH "vms/.gone"

/* The number in the name of a file below serials/, or 0. */
static uint32_t parse_serial(const char *name) {
        char *end;
        unsigned long n;

        if (*name < '1' || *name > '9' || strlen(name) > 7)
                return 0;
        n = strtoul(name, &end, 10);
        return *end || n > SERIAL_MAX ? 0 : (uint32_t) n;
}

/* Takes a serial that no VM ever had. */
static int new_serial(Repository *repository, const char *name, uint32_t *ret, Reason *reterr) {
        CLEANUP(strings_free) Strings given = { 0 };
        uint32_t serial = 0;
        char path[32];
        int rc = list_directory(repository_fd(repository), "serials", &given, reterr);

        if (rc < 0)
                return rc;
        for (size_t i = 0; i < given.count; i++)
                if (parse_serial(given.items[i]) > serial)
                        serial = parse_serial(given.items[i]);
        do {
                if (serial >= SERIAL_MAX)
                        return fail(reterr, -EOVERFLOW, "the repository has had as many VMs as there can be");
                snprintf(path, sizeof path, "serials/%u", ++serial);
                rc = create_file(repository_fd(repository), path, name, strlen(name), reterr);
        } while (rc == -EEXIST);
        if (rc < 0)
                return rc;
        *ret = serial;
        return 0;
}

/* The last serial given to this name, 0 where there was none: what a damaged vm.json had. */
static int find_serial(Repository *repository, const char *name, uint32_t *ret, Reason *reterr) {
        CLEANUP(strings_free) Strings given = { 0 };
        uint32_t found = 0;
        int rc = list_directory(repository_fd(repository), "serials", &given, reterr);

        for (size_t i = 0; rc == 0 && i < given.count; i++) {
                CLEANUP(freep) char *text = NULL;
                uint32_t serial = parse_serial(given.items[i]);
                char path[32];
                size_t length;

                snprintf(path, sizeof path, "serials/%u", serial);
                if (serial > found && read_file(repository_fd(repository), path, VM_NAME_MAX, &text, &length, NULL) == 0 &&
                    strcmp(text, name) == 0)
                        found = serial;
        }
        if (rc < 0)
                return rc;
        *ret = found;
        return 0;
}

/* Whether another name is registered for the UUID. What another tool stored of a VM may be shown beside it. */
static int check_uuid_is_free(Repository *repository, const char *name, const char *uuid, Reason *reterr) {
        CLEANUP(strings_free) Strings names = { 0 };
        int rc = repository_list_vms(repository, &names, reterr);

        for (size_t i = 0; rc == 0 && i < names.count; i++) {
                CLEANUP(vm_freep) Vm *vm = NULL;

                rc = vm_open(repository, names.items[i], &vm, reterr);
                if (rc == -ENOENT)
                        rc = 0;
                else if (rc == 0 && vm_is_captured(vm) && strcmp(vm_uuid(vm), uuid) == 0 &&
                         strcmp(names.items[i], name) != 0)
                        return fail(reterr, -EEXIST, "the VM %s (%s) is registered as %s", name, uuid, names.items[i]);
        }
        return rc;
}

/* Whether the points that lie under the name are those of the UUID; *ret_any: there are some. */
static int check_points(Vm *vm, const char *uuid, bool *ret_any, Reason *reterr) {
        CLEANUP(strings_free) Strings points = { 0 };
        Reason reason = REASON_INIT;
        int rc = native_vm_ops.list_points(vm, &points, reterr);

        if (rc < 0)
                return rc;
        /* All are of one VM, as this is the only way to another: the newest good one tells. */
        for (size_t i = points.count; i > 0; i--) {
                CLEANUP(manifest_unrefp) Manifest *manifest = NULL;

                rc = manifest_read(vm, points.items[i - 1], &manifest, &reason);
                if (rc == -ENOMEM)
                        return fail_oom(reterr);
                if (rc < 0)
                        continue;
                if (strcasecmp(manifest->vm_uuid, uuid) != 0)
                        return fail(reterr, -EEXIST, "%s has points of another VM of that name (%s): "
                                    "add it under another name, or 'forget --points' these", vm_name(vm), manifest->vm_uuid);
                *ret_any = true;
                return 0;
        }
        if (points.count > 0 && (vm_damage(vm) || strcmp(vm_uuid(vm), uuid) != 0))
                return fail(reterr, -EEXIST, "%s has points that may be another VM's and cannot be read: %.*s", vm_name(vm),
                            REASON_MAX / 2, reason.text);
        *ret_any = points.count > 0;
        return 0;
}

/* The name has a directory: its VM was forgotten, or its vm.json is damaged. */
static int add_again(Vm *vm, Registration *wanted, Reason *reterr) {
        CLEANUP(close_fd) int lock_fd = -1;
        bool same = !vm_damage(vm) && strcmp(vm_uuid(vm), wanted->uuid) == 0;
        bool has_points = false;
        int rc;

        if (vm_source(vm) && same)
                return fail(reterr, -EEXIST, "it is registered already");
        if (vm_source(vm))
                return fail(reterr, -EEXIST, "another VM of that name is registered (%s)", vm_uuid(vm));
        rc = capture_lock_take(vm, &lock_fd, reterr);
        if (rc == 0)
                rc = check_points(vm, wanted->uuid, &has_points, reterr);
        if (rc < 0)
                return rc;
        if (has_points && wanted->source && foreign_claims(wanted->source))
                return fail(reterr, -EEXIST, "it has points of its own: add the directory under another name");

        if (same)
                wanted->serial = vm_serial(vm);
        else if (has_points) /* the same VM, but its vm.json is damaged */
                rc = find_serial(vm_repository(vm), vm_name(vm), &wanted->serial, reterr);
        else if (unlinkat(vm_fd(vm), "state.json", 0) < 0 && errno != ENOENT)
                rc = fail_errno(reterr, -errno, "cannot delete the state of the VM that had the name");
        if (rc == 0 && wanted->serial == 0)
                rc = new_serial(vm_repository(vm), vm_name(vm), &wanted->serial, reterr);
        return rc < 0 ? rc : registration_write(vm_fd(vm), REGISTRATION_FILE, vm_name(vm), wanted, reterr);
}

/* The directory appears whole or not at all. */
static int add_new(Repository *repository, const char *name, Registration *wanted, Reason *reterr) {
        int root = repository_fd(repository);
        char path[VM_PATH_MAX];
        int rc;

        rc = remove_tree(root, NEW_PATH, reterr);
        if (rc == 0)
                rc = new_serial(repository, name, &wanted->serial, reterr);
        if (rc == 0)
                rc = make_directory(root, NEW_PATH, reterr);
        if (rc == 0)
                rc = make_directory(root, NEW_PATH "/points", reterr);
        if (rc == 0)
                rc = make_directory(root, NEW_PATH "/data", reterr);
        if (rc == 0)
                rc = registration_write(root, NEW_PATH "/" REGISTRATION_FILE, name, wanted, reterr);
        if (rc < 0)
                return rc;
        snprintf(path, sizeof path, "vms/%s", name);
        if (renameat(root, NEW_PATH, root, path) < 0)
                return fail_errno(reterr, -errno, "cannot make %s", path);
        rc = sync_directory(root, "vms");
        return rc < 0 ? fail_errno(reterr, rc, "cannot sync vms") : 0;
}

static int add_locked(Repository *repository, const char *name, Registration *wanted, Reason *reterr) {
        CLEANUP(close_fd) int lock_fd = -1;
        CLEANUP(vm_freep) Vm *vm = NULL;
        int rc;

        rc = repository_lock(repository, &lock_fd, reterr);
        if (rc == 0 && !(wanted->source && foreign_claims(wanted->source)))
                rc = check_uuid_is_free(repository, name, wanted->uuid, reterr);
        if (rc < 0)
                return rc;
        rc = vm_open(repository, name, &vm, reterr);
        if (rc == -ENOENT)
                return add_new(repository, name, wanted, reterr);
        return rc < 0 ? rc : add_again(vm, wanted, reterr);
}

static int copy_names(const char *name, const Strings *from, Strings *to, Reason *reterr) {
        for (size_t i = 0; i < from->count; i++) {
                if (!vm_name_is_valid(from->items[i]))
                        return fail(reterr, -EINVAL, "cannot add %s: \"%s\" cannot be a disk's name", name, from->items[i]);
                if (strings_add(to, from->items[i]) < 0)
                        return fail_oom(reterr);
        }
        return 0;
}

int vm_add(Repository *repository, const char *name, const char *uuid, const char *source, const VmDisks *disks,
           Reason *reterr) {
        CLEANUP(registration_clear) Registration wanted = { .source = source ? strdup(source) : NULL };
        CLEANUP(json_decrefp) json_t *as_json = json_string(source ?: "");
        uuid_t parsed;
        int rc = 0;

        if (source && !wanted.source)
                return fail_oom(reterr);
        if (!vm_name_is_valid(name))
                return fail(reterr, -EINVAL, "\"%s\" cannot be a VM's name: " VM_NAME_RULE, name);
        if (uuid_parse(uuid, parsed) < 0)
                return fail(reterr, -EINVAL, "cannot add %s: \"%s\" is no UUID", name, uuid);
        if (source && (!*source || !as_json))
                return fail(reterr, -EINVAL, "cannot add %s: its source is empty or no UTF-8", name);
        uuid_unparse_lower(parsed, wanted.uuid);
        if (disks)
                rc = copy_names(name, &disks->include, &wanted.include, reterr);
        if (disks && rc == 0)
                rc = copy_names(name, &disks->exclude, &wanted.exclude, reterr);
        if (rc < 0)
                return rc;
        rc = add_locked(repository, name, &wanted, reterr);
        return rc < 0 ? fail_within(reterr, rc, "cannot add %s", name) : 0;
}

/* One rename takes the VM away; who has it open sees its points go newest first, so that each one seen is whole. */
static int remove_all(Vm *vm, Reason *reterr) {
        CLEANUP(strings_free) Strings points = { 0 };
        CLEANUP(close_fd) int lock_fd = -1;
        int root = repository_fd(vm_repository(vm));
        char path[VM_PATH_MAX];
        int rc;

        rc = repository_lock(vm_repository(vm), &lock_fd, reterr);
        if (rc == 0)
                rc = remove_tree(root, GONE_PATH, reterr);
        if (rc < 0)
                return rc;
        snprintf(path, sizeof path, "vms/%s", vm_name(vm));
        if (renameat(root, path, root, GONE_PATH) < 0)
                return fail_errno(reterr, -errno, "cannot delete %s", path);
        rc = sync_directory(root, "vms");
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot sync vms");

        rc = native_vm_ops.list_points(vm, &points, reterr);
        for (size_t i = points.count; rc == 0 && i > 0; i--) {
                char point[sizeof "points/" + POINT_NAME_MAX + sizeof ".json"];

                snprintf(point, sizeof point, "points/%s.json", points.items[i - 1]);
                if (unlinkat(vm_fd(vm), point, 0) < 0 && errno != ENOENT)
                        rc = fail_errno(reterr, -errno, "cannot delete %s/%s", vm_name(vm), points.items[i - 1]);
        }
        return rc < 0 ? rc : remove_tree(root, GONE_PATH, reterr);
}

static int end_registration(Vm *vm, Reason *reterr) {
        Registration ended = { .serial = vm_serial(vm) };

        if (vm_damage(vm))
                return fail(reterr, -EBADMSG, "%s: add it again first, or forget it with its points", vm_damage(vm));
        memcpy(ended.uuid, vm_uuid(vm), sizeof ended.uuid);
        return registration_write(vm_fd(vm), REGISTRATION_FILE, vm_name(vm), &ended, reterr);
}

int vm_forget(Vm *vm, bool points, Reason *reterr) {
        int rc = points || vm->root ? remove_all(vm, reterr) : end_registration(vm, reterr);

        return rc < 0 ? fail_within(reterr, rc, "cannot forget %s", vm_name(vm)) : 0;
}
