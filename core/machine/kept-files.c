#include "machine/kept-files.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sources/tpm-place.h"
#include "util/file.h"
#include "util/text.h"

void kept_files_clear(KeptFiles *files) {
        for (size_t i = 0; i < files->count; i++) {
                free((char *) files->files[i].name);
                free((char *) files->files[i].path);
        }
        free(files->files);
        strings_free(&files->made);
        *files = (KeptFiles) { 0 };
}

void kept_files_remove(const Strings *made) {
        for (size_t i = made->count; i > 0; i--)
                if (unlink(made->items[i - 1]) < 0 && (errno == EISDIR || errno == EPERM))
                        rmdir(made->items[i - 1]);
}

static int create_at(const char *path, const char *content, size_t length, Reason *reterr) {
        CLEANUP(freep) char *directory = strdup(path);
        CLEANUP(close_fd) int fd = -1;
        char *name = directory ? strrchr(directory, '/') : NULL;

        if (!name)
                return fail_oom(reterr);
        *name++ = 0;
        fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return fail_errno(reterr, -errno, "cannot open %s", directory);
        return create_file(fd, name, content, length, reterr);
}

/* Writes a kept file under the path, which must be free. */
static int write_kept(const KeptWish *wish, const char *name, const char *path, KeptFiles *files, Reason *reterr) {
        CLEANUP(freep) char *content = NULL;
        size_t length;
        int rc;

        rc = manifest_read_file(wish->vm, wish->manifest, name, &content, &length, reterr);
        if (rc < 0)
                return rc;
        rc = create_at(path, content, length, reterr);
        if (rc == -EEXIST)
                return fail(reterr, rc, "%s is there already: it is not overwritten", path);
        if (rc < 0)
                return rc;
        rc = strings_add(&files->made, path);
        return rc < 0 ? fail_oom(reterr) : 0;
}

static int add_file(KeptFiles *files, const char *name, const char *path) {
        MachineFile *grown = reallocarray(files->files, files->count + 1, sizeof *grown);

        if (!grown)
                return -ENOMEM;
        files->files = grown;
        grown[files->count] = (MachineFile) { strdup(name), strdup(path) };
        files->count++;
        return grown[files->count - 1].name && grown[files->count - 1].path ? 0 : -ENOMEM;
}

static int place_boot_file(const KeptWish *wish, const char *name, KeptFiles *files, Reason *reterr) {
        CLEANUP(freep) char *path = NULL;
        int rc;

        if (!manifest_find_file(wish->manifest, name))
                return 0;
        if (text_format(&path, "%s/%s-%s", wish->directory, wish->name, name) < 0)
                return fail_oom(reterr);
        rc = write_kept(wish, name, path, files, reterr);
        if (rc < 0)
                return rc;
        /* libvirt gives QEMU all of them but this one. */
        if (strcmp(name, "loader") == 0 && chmod(path, 0644) < 0)
                return fail_errno(reterr, -errno, "cannot open %s to QEMU", path);
        rc = add_file(files, name, path);
        return rc < 0 ? fail_oom(reterr) : 0;
}

/* ---- the state of a TPM ---- */

/* "tpm2-00.permall", "tpm-00.permall": the directory that it lies in. NULL: it is another file. */
static const char *tpm_version(const char *name) {
        if (strncmp(name, "tpm2-", 5) == 0)
                return "tpm2";
        return strncmp(name, "tpm-", 4) == 0 ? "tpm1.2" : NULL;
}

/* swtpm of the system's instance is a user of its own; which, its packages tell. */
static int give_to_swtpm(const KeptWish *wish, const char *path) {
        const struct passwd *user;

        if (hypervisor_is_session(wish->hypervisor))
                return 0;
        user = getpwnam("swtpm") ?: getpwnam("tss");
        return user && chown(path, user->pw_uid, user->pw_gid) < 0 ? -errno : 0;
}

/* With the directories above it, as far as they are missing. */
static int make_directories(const KeptWish *wish, const char *path, mode_t mode, KeptFiles *files) {
        CLEANUP(freep) char *above = strdup(path);
        char *slash = above ? strrchr(above, '/') : NULL;
        int rc;

        if (!above)
                return -ENOMEM;
        if (mkdir(path, mode) < 0) {
                if (errno == EEXIST)
                        return 0;
                if (errno != ENOENT || !slash || slash == above)
                        return -errno;
                *slash = 0;
                rc = make_directories(wish, above, 0711, files);
                if (rc < 0)
                        return rc;
                if (mkdir(path, mode) < 0)
                        return -errno;
        }
        return strings_add(&files->made, path);
}

static int place_tpm_file(const KeptWish *wish, const char *name, KeptFiles *files, Reason *reterr) {
        CLEANUP(freep) char *directory = tpm_place(hypervisor_is_session(wish->hypervisor), wish->uuid, tpm_version(name));
        CLEANUP(freep) char *path = NULL;
        int rc;

        if (!directory || text_format(&path, "%s/%s", directory, name) < 0)
                return fail_oom(reterr);
        rc = make_directories(wish, directory, 0700, files);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot make %s", directory);
        rc = write_kept(wish, name, path, files, reterr);
        if (rc < 0)
                return rc;
        rc = give_to_swtpm(wish, directory);
        if (rc == 0)
                rc = give_to_swtpm(wish, path);
        return rc < 0 ? fail_errno(reterr, rc, "cannot give %s to swtpm", path) : 0;
}

/* A VM without the memory of its TPM is better than none. */
static int place_tpm(const KeptWish *wish, KeptFiles *files, char **ret_note) {
        for (size_t i = 0; i < wish->manifest->file_count; i++) {
                const char *name = wish->manifest->files[i].name;
                Reason reason;

                if (tpm_version(name) && place_tpm_file(wish, name, files, &reason) < 0)
                        return text_format(ret_note, "its TPM starts without what it knew: %s", reason.text);
        }
        return 0;
}

int kept_files_write(const KeptWish *wish, KeptFiles *files, char **ret_note, Reason *reterr) {
        CLEANUP(strings_free) Strings wanted = { 0 };
        int rc;

        *ret_note = NULL;
        rc = definition_files(wish->definition, &wanted, reterr);
        for (size_t i = 0; rc == 0 && i < wanted.count; i++)
                rc = place_boot_file(wish, wanted.items[i], files, reterr);
        if (rc < 0)
                return rc;
        return place_tpm(wish, files, ret_note) < 0 ? fail_oom(reterr) : 0;
}
