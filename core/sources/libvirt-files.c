#include "sources/libvirt-private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "sources/tpm-place.h"
#include "util/directory.h"
#include "util/file.h"

#define FILE_LIMIT (256u << 20) /* bytes: a manifest takes no longer ones */
#define TPM_FILES_MAX 16

static int add_file(SourceVm *vm, const char *name, char *content, size_t length) {
        SourceFile *grown = reallocarray(vm->files, vm->file_count + 1, sizeof *grown);

        if (!grown) {
                free(content);
                return -ENOMEM;
        }
        vm->files = grown;
        grown[vm->file_count] = (SourceFile) { .name = strdup(name), .content = content, .length = length };
        return grown[vm->file_count++].name ? 0 : -ENOMEM;
}

static bool has_file(const SourceVm *vm, const char *name) {
        for (size_t i = 0; i < vm->file_count; i++)
                if (strcmp(vm->files[i].name, name) == 0)
                        return true;
        return false;
}

/* The directory may be reached over symbolic links, the file may be none. */
static int read_absolute(const char *path, char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(freep) char *directory = strdup(path);
        CLEANUP(close_fd) int fd = -1;
        char *name = directory ? strrchr(directory, '/') : NULL;

        if (!name)
                return fail_oom(reterr);
        *name++ = 0;
        fd = open(*directory ? directory : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return fail_errno(reterr, -errno, "cannot open %s", directory);
        return read_file(fd, name, FILE_LIMIT, ret, ret_length, reterr);
}

/* What QEMU may write to must be no link, which it could have put there: followed are those that an administrator makes. */
static int read_named(const DomainFile *file, char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(freep) char *real = NULL;

        if (file->written)
                return read_absolute(file->path, ret, ret_length, reterr);
        real = realpath(file->path, NULL);
        if (!real)
                return fail_errno(reterr, -errno, "cannot open it");
        return read_absolute(real, ret, ret_length, reterr);
}

/* What is made when the VM is started for the first time is not missing before. */
static bool is_to_come(const LibvirtSource *source, int rc) {
        return rc == -ENOENT && source->inspected_off;
}

static int take_file(const LibvirtSource *source, const DomainFile *file, SourceVm *vm) {
        char *content;
        size_t length;
        Reason reason;
        int rc;

        if (!file->path)
                rc = fail(&reason, -ENOTSUP, "it is no file");
        else if (!source->uri.local)
                rc = fail(&reason, -EREMOTE, "it is on another machine");
        else
                rc = read_named(file, &content, &length, &reason);
        if (is_to_come(source, rc) && file->written)
                return 0;
        if (rc < 0) {
                source_warn(&source->source.owner, "the VM's %s%s%s is not kept with the backup: %s", file->name,
                            file->path ? " " : "", file->path ?: "", reason.text);
                return 0;
        }
        return add_file(vm, file->name, content, length);
}

static int open_tpm(const char *path, Strings *ret_names, int *ret, Reason *reterr) {
        CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        int rc;

        if (fd < 0)
                return fail_errno(reterr, -errno, "cannot open %s", path);
        rc = list_directory(fd, ".", ret_names, reterr);
        if (rc == 0 && ret_names->count == 0)
                rc = fail(reterr, -ENOENT, "there is nothing in %s", path);
        if (rc == 0)
                *ret = STEAL_FD(fd);
        return rc;
}

/* swtpm's own files: "tpm2-00.permall", or "tpm-00.permall" of a TPM 1.2. */
static bool is_tpm_state(const char *name) {
        return strncmp(name, "tpm", 3) == 0 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") == strlen(name);
}

static int take_tpm(const LibvirtSource *source, SourceVm *vm) {
        CLEANUP(freep) char *path = NULL;
        CLEANUP(strings_free) Strings names = { 0 };
        CLEANUP(close_fd) int fd = -1;
        size_t taken = 0;
        Reason reason;
        int rc;

        if (!source->domain.tpm)
                return 0;
        path = source->domain.tpm_path ? strdup(source->domain.tpm_path)
                                       : tpm_place(source->uri.session, source->uuid, source->domain.tpm);
        if (!path)
                return -ENOMEM;
        if (!source->uri.local)
                rc = fail(&reason, -EREMOTE, "it is on another machine");
        else
                rc = open_tpm(path, &names, &fd, &reason);
        for (size_t i = 0; rc == 0 && i < names.count; i++) {
                char *content;
                size_t length;

                if (!is_tpm_state(names.items[i]) || has_file(vm, names.items[i]) || taken == TPM_FILES_MAX)
                        continue;
                rc = read_file(fd, names.items[i], FILE_LIMIT, &content, &length, &reason);
                if (rc == 0 && add_file(vm, names.items[i], content, length) < 0)
                        return -ENOMEM;
                taken++;
        }
        if (rc < 0 && !is_to_come(source, rc))
                source_warn(&source->source.owner, "the state of the VM's TPM is not kept with the backup: %s", reason.text);
        return 0;
}

int libvirt_take_files(const LibvirtSource *source, char *definition, SourceVm *vm) {
        const Domain *domain = &source->domain;
        int rc;

        rc = add_file(vm, "domain.xml", definition, strlen(definition));
        for (size_t i = 0; rc == 0 && i < domain->file_count; i++)
                rc = take_file(source, &domain->files[i], vm);
        return rc == 0 ? take_tpm(source, vm) : rc;
}
