#include "repository/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <uuid/uuid.h>

#include "codec/checksum.h"
#include "repository/capture-lock.h"
#include "repository/document.h"
#include "repository/manifest.h"

#define VM_FILE "vm.json"
#define VM_KIND "virtbackupfs vm"
#define VM_VERSION 1
#define VM_PATH_MAX (sizeof "vms/" + VM_NAME_MAX)
#define POINT_SUFFIX ".json"

/* Where VMs come into being and go; hidden, so that a crash in between shows nothing. Used under the repository's lock. */
#define NEW_PATH "vms/.new"
#define GONE_PATH "vms/.gone"

struct Vm {
        Repository *repository;
        char name[VM_NAME_MAX + 1];
        char uuid[UUID_STR_LEN];
        char *source;
        char *damage;
        uint32_t serial;
        int fd;
};

static bool is_utf8(const char *text) {
        CLEANUP(json_decrefp) json_t *string = json_string(text);

        return string;
}

static bool name_is_valid(const char *name, size_t max) {
        size_t length = strnlen(name, max + 1);

        if (length == 0 || length > max || name[0] == '.' || name[0] == '-' || strchr(name, '/'))
                return false;
        for (const unsigned char *c = (const unsigned char *) name; *c; c++)
                if (*c < ' ' || *c == 0x7f)
                        return false;
        return is_utf8(name);
}

bool vm_name_is_valid(const char *name) {
        return name_is_valid(name, VM_NAME_MAX);
}

bool file_name_is_valid(const char *name) {
        return name_is_valid(name, 255);
}

bool vm_uuid_is_valid(const char *uuid) {
        uuid_t parsed;

        return uuid_parse(uuid, parsed) == 0;
}

uint32_t serial_stand_in(const char *name) {
        return (SERIAL_MAX + 1) | ((uint32_t) checksum(name, strlen(name)) & SERIAL_MAX);
}

/* Fills the VM in from what vm.json holds. */
static int load(Vm *vm, const json_t *object, Reason *reterr) {
        const char *name, *uuid, *source;
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
        if (strcmp(name, vm->name) != 0)
                return fail(reterr, -EBADMSG, "it is that of another VM, %s", name);
        if (uuid_parse(uuid, parsed) < 0)
                return fail(reterr, -EBADMSG, "\"uuid\" is no UUID");
        if (serial == 0 || serial > SERIAL_MAX)
                return fail(reterr, -EBADMSG, "\"serial\" is not from 1 to %u", SERIAL_MAX);
        if (source) {
                vm->source = strdup(source);
                if (!vm->source)
                        return fail_oom(reterr);
        }
        uuid_unparse_lower(parsed, vm->uuid);
        vm->serial = (uint32_t) serial;
        return 0;
}

int vm_open(Repository *repository, const char *name, Vm **ret, Reason *reterr) {
        CLEANUP(vm_freep) Vm *vm = calloc(1, sizeof *vm);
        CLEANUP(json_decrefp) json_t *object = NULL;
        char path[VM_PATH_MAX];
        Reason reason = REASON_INIT;
        int rc;

        if (!vm)
                return fail_oom(reterr);
        vm->repository = repository;
        vm->fd = -1;
        if (!vm_name_is_valid(name))
                return fail(reterr, -ENOENT, "there is no VM \"%s\"", name);
        snprintf(vm->name, sizeof vm->name, "%s", name);
        snprintf(path, sizeof path, "vms/%s", name);
        vm->fd = open_beneath(repository_fd(repository), path, O_RDONLY | O_DIRECTORY, 0);
        if (vm->fd == -ENOENT || vm->fd == -ENOTDIR || vm->fd == -ELOOP)
                return fail(reterr, -ENOENT, "there is no VM %s in the repository %s", name, repository_path(repository));
        if (vm->fd < 0)
                return fail_errno(reterr, vm->fd, "cannot open the VM %s", name);

        rc = sealed_json_read(vm->fd, VM_FILE, &object, &reason);
        if (rc == 0)
                rc = load(vm, object, &reason);
        if (rc == -ENOMEM)
                return fail_oom(reterr);
        if (rc < 0) {
                if (object)
                        fail_within(&reason, rc, VM_FILE);
                vm->damage = strdup(reason.text);
                if (!vm->damage)
                        return fail_oom(reterr);
                vm->serial = serial_stand_in(name);
        }
        *ret = STEAL_PTR(vm);
        return 0;
}

Vm *vm_free(Vm *vm) {
        if (!vm)
                return NULL;
        close_fd(&vm->fd);
        free(vm->source);
        free(vm->damage);
        free(vm);
        return NULL;
}

Repository *vm_repository(const Vm *vm) {
        return vm->repository;
}

const char *vm_name(const Vm *vm) {
        return vm->name;
}

const char *vm_uuid(const Vm *vm) {
        return vm->uuid;
}

const char *vm_source(const Vm *vm) {
        return vm->source;
}

const char *vm_damage(const Vm *vm) {
        return vm->damage;
}

uint32_t vm_serial(const Vm *vm) {
        return vm->serial;
}

int vm_fd(const Vm *vm) {
        return vm->fd;
}

static int compare_names(const void *a, const void *b) {
        return strcmp(*(char *const *) a, *(char *const *) b);
}

int vm_list_points(Vm *vm, Strings *ret, Reason *reterr) {
        CLEANUP(strings_free) Strings names = { 0 };
        size_t kept = 0;
        int rc = list_directory(vm->fd, "points", &names, reterr);

        if (rc < 0 && rc != -ENOENT)
                return fail_within(reterr, rc, "%s", vm->name);
        for (size_t i = 0; i < names.count; i++) {
                char *name = names.items[i];
                size_t length = strlen(name);
                bool is_point = length > strlen(POINT_SUFFIX) && strcmp(name + length - strlen(POINT_SUFFIX), POINT_SUFFIX) == 0;

                if (is_point)
                        name[length - strlen(POINT_SUFFIX)] = 0;
                if (is_point && point_name_is_valid(name))
                        names.items[kept++] = name;
                else
                        free(name);
        }
        names.count = kept;
        /* With the suffix they sorted otherwise: "…Z-02.json" before "…Z.json". */
        if (kept > 1)
                qsort(names.items, kept, sizeof *names.items, compare_names);
        *ret = names;
        names = (Strings) { 0 };
        return 0;
}

/* --- registering --- */

static int write_registration(int dir_fd, const char *path, const char *name, const char *uuid, uint32_t serial,
                              const char *source, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *object = document_new(VM_KIND, VM_VERSION);
        int bad = !object;

        bad |= json_object_set_new(object, "name", json_string(name));
        bad |= json_object_set_new(object, "uuid", json_string(uuid));
        bad |= json_object_set_new(object, "serial", json_integer(serial));
        bad |= json_object_set_new(object, "source", source ? json_string(source) : json_null());
        if (bad)
                return fail_oom(reterr);
        return sealed_json_replace(dir_fd, path, object, reterr);
}

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

/* Whether another name is registered for the UUID. */
static int check_uuid_is_free(Repository *repository, const char *name, const char *uuid, Reason *reterr) {
        CLEANUP(strings_free) Strings names = { 0 };
        int rc = repository_list_vms(repository, &names, reterr);

        for (size_t i = 0; rc == 0 && i < names.count; i++) {
                CLEANUP(vm_freep) Vm *vm = NULL;

                rc = vm_open(repository, names.items[i], &vm, reterr);
                if (rc == -ENOENT)
                        rc = 0;
                else if (rc == 0 && vm->source && strcmp(vm->uuid, uuid) == 0 && strcmp(names.items[i], name) != 0)
                        return fail(reterr, -EEXIST, "the VM %s (%s) is registered as %s", name, uuid, names.items[i]);
        }
        return rc;
}

/* Whether the points that lie under the name are those of the UUID; *ret_any: there are some. */
static int check_points(Vm *vm, const char *uuid, bool *ret_any, Reason *reterr) {
        CLEANUP(strings_free) Strings points = { 0 };
        Reason reason = REASON_INIT;
        int rc = vm_list_points(vm, &points, reterr);

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
                                    "add it under another name, or 'forget --points' these", vm->name, manifest->vm_uuid);
                *ret_any = true;
                return 0;
        }
        if (points.count > 0 && (vm->damage || strcmp(vm->uuid, uuid) != 0))
                return fail(reterr, -EEXIST, "%s has points that may be another VM's and cannot be read: %.*s", vm->name,
                            REASON_MAX / 2, reason.text);
        *ret_any = points.count > 0;
        return 0;
}

/* The name has a directory: its VM was forgotten, or its vm.json is damaged. */
static int add_again(Vm *vm, const char *uuid, const char *source, Reason *reterr) {
        CLEANUP(close_fd) int lock_fd = -1;
        uint32_t serial = vm->damage ? 0 : vm->serial;
        bool same = !vm->damage && strcmp(vm->uuid, uuid) == 0;
        bool has_points = false;
        int rc;

        if (vm->source && same)
                return fail(reterr, -EEXIST, "it is registered already");
        if (vm->source)
                return fail(reterr, -EEXIST, "another VM of that name is registered (%s)", vm->uuid);
        rc = capture_lock_take(vm, &lock_fd, reterr);
        if (rc < 0)
                return rc;
        rc = check_points(vm, uuid, &has_points, reterr);
        if (rc < 0)
                return rc;
        if (!has_points && !same)
                serial = 0; /* another VM takes the name */
        else if (vm->damage)
                rc = find_serial(vm->repository, vm->name, &serial, reterr);
        if (rc == 0 && serial == 0)
                rc = new_serial(vm->repository, vm->name, &serial, reterr);
        if (rc == 0 && !has_points && !same && unlinkat(vm->fd, "state.json", 0) < 0 && errno != ENOENT)
                rc = fail_errno(reterr, -errno, "%s: cannot delete state.json", vm->name);
        if (rc < 0)
                return rc;
        return write_registration(vm->fd, VM_FILE, vm->name, uuid, serial, source, reterr);
}

/* The directory appears whole or not at all. */
static int add_new(Repository *repository, const char *name, const char *uuid, const char *source, Reason *reterr) {
        int root = repository_fd(repository);
        char path[VM_PATH_MAX];
        uint32_t serial;
        int rc;

        rc = remove_tree(root, NEW_PATH, reterr);
        if (rc == 0)
                rc = new_serial(repository, name, &serial, reterr);
        if (rc == 0)
                rc = make_directory(root, NEW_PATH, reterr);
        if (rc == 0)
                rc = make_directory(root, NEW_PATH "/points", reterr);
        if (rc == 0)
                rc = make_directory(root, NEW_PATH "/data", reterr);
        if (rc == 0)
                rc = write_registration(root, NEW_PATH "/" VM_FILE, name, uuid, serial, source, reterr);
        if (rc < 0)
                return rc;
        snprintf(path, sizeof path, "vms/%s", name);
        if (renameat(root, NEW_PATH, root, path) < 0)
                return fail_errno(reterr, -errno, "cannot make %s", path);
        rc = sync_directory(root, "vms");
        return rc < 0 ? fail_errno(reterr, rc, "cannot sync vms") : 0;
}

static int add_locked(Repository *repository, const char *name, const char *uuid, const char *source, Reason *reterr) {
        CLEANUP(close_fd) int lock_fd = -1;
        CLEANUP(vm_freep) Vm *vm = NULL;
        int rc;

        rc = repository_lock(repository, &lock_fd, reterr);
        if (rc == 0)
                rc = check_uuid_is_free(repository, name, uuid, reterr);
        if (rc < 0)
                return rc;
        rc = vm_open(repository, name, &vm, reterr);
        if (rc == -ENOENT)
                return add_new(repository, name, uuid, source, reterr);
        return rc < 0 ? rc : add_again(vm, uuid, source, reterr);
}

int vm_add(Repository *repository, const char *name, const char *uuid, const char *source, Reason *reterr) {
        char text[UUID_STR_LEN];
        uuid_t parsed;
        int rc;

        if (!vm_name_is_valid(name))
                return fail(reterr, -EINVAL, "\"%s\" cannot be a VM's name", name);
        if (uuid_parse(uuid, parsed) < 0)
                return fail(reterr, -EINVAL, "cannot add %s: \"%s\" is no UUID", name, uuid);
        if (!*source || !is_utf8(source))
                return fail(reterr, -EINVAL, "cannot add %s: its source is no text", name);
        uuid_unparse_lower(parsed, text);
        rc = add_locked(repository, name, text, source, reterr);
        return rc < 0 ? fail_within(reterr, rc, "cannot add %s", name) : 0;
}

/* One rename takes the VM away; who has it open sees its points go newest first, so that each one seen is whole. */
static int remove_all(Vm *vm, Reason *reterr) {
        CLEANUP(strings_free) Strings points = { 0 };
        CLEANUP(close_fd) int lock_fd = -1;
        int root = repository_fd(vm->repository);
        char path[VM_PATH_MAX];
        int rc;

        rc = repository_lock(vm->repository, &lock_fd, reterr);
        if (rc == 0)
                rc = remove_tree(root, GONE_PATH, reterr);
        if (rc < 0)
                return rc;
        snprintf(path, sizeof path, "vms/%s", vm->name);
        if (renameat(root, path, root, GONE_PATH) < 0)
                return fail_errno(reterr, -errno, "cannot delete %s", path);
        rc = sync_directory(root, "vms");
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot sync vms");

        rc = vm_list_points(vm, &points, reterr);
        for (size_t i = points.count; rc == 0 && i > 0; i--) {
                char point[sizeof "points/" + POINT_NAME_MAX + sizeof POINT_SUFFIX];

                snprintf(point, sizeof point, "points/%s" POINT_SUFFIX, points.items[i - 1]);
                if (unlinkat(vm->fd, point, 0) < 0 && errno != ENOENT)
                        rc = fail_errno(reterr, -errno, "cannot delete %s/%s", vm->name, points.items[i - 1]);
        }
        return rc < 0 ? rc : remove_tree(root, GONE_PATH, reterr);
}

int vm_forget(Vm *vm, bool points, Reason *reterr) {
        int rc;

        if (points)
                rc = remove_all(vm, reterr);
        else if (vm->damage)
                rc = fail(reterr, -EBADMSG, "%s: add it again first, or forget it with its points", vm->damage);
        else
                rc = write_registration(vm->fd, VM_FILE, vm->name, vm->uuid, vm->serial, NULL, reterr);
        return rc < 0 ? fail_within(reterr, rc, "cannot forget %s", vm->name) : 0;
}
