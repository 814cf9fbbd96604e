#include "repository/repository.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/stat.h>
#include <uuid/uuid.h>

#include "repository/document.h"
#include "repository/foreign/foreign.h"
#include "repository/foreign/root.h"
#include "repository/native.h"
#include "util/directory.h"
#include "util/io.h"
#include "util/strings.h"

/* A file system's own directory does not make it non-empty. */
static bool is_foreign(const char *name) {
        return strcmp(name, "serials") != 0 && strcmp(name, "vms") != 0 && strcmp(name, "lost+found") != 0;
}

/* Empty, or what an interrupted init left. */
static int check_empty(int fd, const char *path, Reason *reterr) {
        CLEANUP(strings_free) Strings names = { 0 };
        int rc = list_directory(fd, ".", &names, reterr);

        if (rc < 0)
                return fail_within(reterr, rc, "cannot make a repository at %s", path);
        for (size_t i = 0; i < names.count; i++)
                if (strcmp(names.items[i], REPOSITORY_FILE) == 0)
                        return fail(reterr, -EEXIST, "%s is a repository already", path);
        for (size_t i = 0; i < names.count; i++) {
                CLEANUP(strings_free) Strings below = { 0 };

                if (is_foreign(names.items[i]))
                        return fail(reterr, -ENOTEMPTY, "cannot make a repository at %s: the directory is not empty", path);
                if (strcmp(names.items[i], "lost+found") == 0)
                        continue;
                rc = list_directory(fd, names.items[i], &below, reterr);
                if (rc < 0 || below.count > 0)
                        return fail(reterr, -ENOTEMPTY, "cannot make a repository at %s: the directory is not empty", path);
        }
        return 0;
}

/* The directory, made where it is not there. */
static int make_root(const char *path, int *ret_fd, Reason *reterr) {
        CLEANUP(freep) char *copy = strdup(path);
        CLEANUP(close_fd) int parent_fd = -1;
        int fd;

        if (!copy)
                return fail_oom(reterr);
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
                return fail_errno(reterr, -errno, "cannot make the directory %s", path);
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return fail_errno(reterr, -errno, "cannot open the directory %s", path);
        parent_fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (parent_fd >= 0)
                (void) fsync(parent_fd);
        *ret_fd = fd;
        return 0;
}

int repository_init(const char *path, Reason *reterr) {
        static const char *const directories[] = { "serials", "vms" };
        CLEANUP(json_decrefp) json_t *object = NULL;
        CLEANUP(close_fd) int fd = -1;
        char text[UUID_STR_LEN];
        uuid_t uuid;
        int rc;

        rc = make_root(path, &fd, reterr);
        if (rc < 0)
                return rc;
        rc = check_empty(fd, path, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
                rc = make_directory(fd, directories[i], reterr);
                if (rc < 0 && rc != -EEXIST)
                        return fail_within(reterr, rc, "cannot make a repository at %s", path);
        }
        uuid_generate_random(uuid);
        uuid_unparse_lower(uuid, text);
        object = document_new(REPOSITORY_KIND, REPOSITORY_VERSION);
        if (!object || json_object_set_new(object, "uuid", json_string(text)) < 0)
                return fail_oom(reterr);
        rc = sealed_json_create(fd, REPOSITORY_FILE, object, reterr);
        if (rc == -EEXIST)
                return fail(reterr, rc, "%s is a repository already", path);
        return rc < 0 ? fail_within(reterr, rc, "cannot make a repository at %s", path) : 0;
}

int repository_open(const char *path, size_t cache_bytes, Repository **ret, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = calloc(1, sizeof *repository);
        int rc;

        if (!repository)
                return fail_oom(reterr);
        pthread_mutex_init(&repository->lock, NULL);
        repository->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (repository->fd < 0)
                return fail_errno(reterr, -errno, "cannot open the repository %s", path);
        repository->path = realpath(path, NULL);
        if (!repository->path)
                return fail_errno(reterr, -errno, "cannot open the repository %s", path);
        if (layer_store_new(repository->fd, cache_bytes, &repository->layers) < 0)
                return fail_oom(reterr);
        rc = native_repository_load(repository, path, reterr);
        if (rc == -ENOENT)
                rc = foreign_repository_load(repository, path, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(repository);
        return 0;
}

Repository *repository_free(Repository *repository) {
        if (!repository)
                return NULL;
        foreign_roots_free(repository->foreign);
        layer_store_free(repository->layers);
        pthread_mutex_destroy(&repository->lock);
        close_fd(&repository->fd);
        free(repository->path);
        free(repository);
        return NULL;
}

const char *repository_uuid(const Repository *repository) {
        return repository->uuid;
}

const char *repository_path(const Repository *repository) {
        return repository->path;
}

int repository_fd(const Repository *repository) {
        return repository->fd;
}

LayerStore *repository_layers(const Repository *repository) {
        return repository->layers;
}

bool repository_is_native(const Repository *repository) {
        return repository->ops == &native_repository_ops;
}

int repository_list_vms(Repository *repository, Strings *ret, Reason *reterr) {
        int rc = repository->ops->list_vms(repository, ret, reterr);

        if (rc == 0)
                strings_sort(ret);
        return rc;
}

int repository_identify_vm(Repository *repository, const char *name, Identity *ret) {
        return repository->ops->identify_vm(repository, name, ret);
}

int repository_vm_of_serial(Repository *repository, uint32_t serial, char **ret) {
        return repository->ops->vm_of_serial(repository, serial, ret);
}

int repository_changed(Repository *repository, struct timespec *ret) {
        return repository->ops->changed(repository, ret);
}

int repository_unrecognised(Repository *repository, json_t **ret, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *list = json_array();
        int rc = list ? repository->ops->unrecognised(repository, list, reterr) : fail_oom(reterr);

        if (rc == 0)
                *ret = STEAL_PTR(list);
        return rc;
}

int repository_lock(Repository *repository, int *ret_fd, Reason *reterr) {
        struct flock whole_file = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        CLEANUP(close_fd) int fd = -1;

        if (!repository_is_native(repository))
                return fail(reterr, -EROFS, "%s is no repository: what other tools have stored there is only read",
                            repository->path);
        fd = open_beneath(repository->fd, REPOSITORY_FILE, O_RDWR, 0);
        if (fd == -EACCES || fd == -EPERM || fd == -EROFS)
                return fail(reterr, -EROFS, "the repository %s cannot be written to: %s", repository->path,
                            strerrordesc_np(-fd));
        if (fd < 0)
                return fail_errno(reterr, fd, "cannot lock the repository %s", repository->path);
        while (fcntl(fd, F_OFD_SETLKW, &whole_file) < 0)
                if (errno != EINTR)
                        return fail_errno(reterr, -errno, "cannot lock the repository %s", repository->path);
        *ret_fd = STEAL_FD(fd);
        return 0;
}
