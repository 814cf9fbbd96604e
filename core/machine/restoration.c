#include "machine/restoration.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/definition.h"
#include "machine/kept-files.h"
#include "machine/origin.h"
#include "machine/place.h"
#include "util/directory.h"
#include "util/text.h"

#define FORMAT_DEFAULT "qcow2"

typedef struct Restoration {
        const RestorationWish *wish;
        Origin origin;
        Hypervisor *hypervisor;
        const char *name, *format;
        char uuid[UUID_STR_LEN];
        char *directory;   /* absolute */
        int directory_fd;
        char *own_name;    /* "vm1.restore", in it */
        char *own_path;
        MachineDisk *disks; /* with their final paths */
        size_t placed;     /* so many of them have got there */
        KeptFiles kept;
        bool defined;
} Restoration;

static void restoration_clear(Restoration *restoration) {
        for (size_t i = 0; restoration->disks && i < restoration->origin.manifest->disk_count; i++)
                free((char *) restoration->disks[i].path);
        free(restoration->disks);
        kept_files_clear(&restoration->kept);
        origin_clear(&restoration->origin);
        if (restoration->hypervisor)
                restoration->hypervisor = hypervisor_free(restoration->hypervisor);
        free(restoration->directory);
        free(restoration->own_name);
        free(restoration->own_path);
        close_fd(&restoration->directory_fd);
}

static void warn(const Restoration *restoration, const char *line) {
        origin_say(restoration->wish->warn, restoration->wish->options.context, restoration->name, line);
}

/* ---- before anything is made ---- */

static int describe(Restoration *restoration, Reason *reterr) {
        const RestorationWish *wish = restoration->wish;
        uuid_t fresh;

        restoration->name = wish->name ?: restoration->origin.name;
        restoration->format = wish->options.format ?: FORMAT_DEFAULT;
        uuid_generate(fresh);
        uuid_unparse_lower(fresh, restoration->uuid);
        if (wish->keep_identity)
                memcpy(restoration->uuid, restoration->origin.uuid, UUID_STR_LEN);
        return origin_check_name(restoration->name, reterr);
}

static int plan_disks(Restoration *restoration, Reason *reterr) {
        const Manifest *manifest = restoration->origin.manifest;

        restoration->disks = calloc(manifest->disk_count + 1, sizeof *restoration->disks);
        if (!restoration->disks)
                return fail_oom(reterr);
        for (size_t i = 0; i < manifest->disk_count; i++) {
                char *path = NULL;
                struct stat st;

                if (text_format(&path, "%s/%s-%s.%s", restoration->directory, restoration->name, manifest->disks[i].name,
                                restoration->format) < 0)
                        return fail_oom(reterr);
                restoration->disks[i] = (MachineDisk) { .name = manifest->disks[i].name, .path = path,
                                                        .format = restoration->format };
                if (lstat(path, &st) == 0)
                        return fail(reterr, -EEXIST, "%s is there already: it is not overwritten", path);
        }
        return 0;
}

static int plan(Restoration *restoration, Reason *reterr) {
        int rc = place_resolve(restoration->hypervisor, restoration->wish->place, &restoration->directory, reterr);

        if (rc < 0)
                return rc;
        if (text_format(&restoration->own_name, "%s.restore", restoration->name) < 0 ||
            text_format(&restoration->own_path, "%s/%s", restoration->directory, restoration->own_name) < 0)
                return fail_oom(reterr);
        restoration->directory_fd = open(restoration->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (restoration->directory_fd < 0)
                return fail_errno(reterr, -errno, "directory %s", restoration->directory);
        return plan_disks(restoration, reterr);
}

static int prepare(Restoration *restoration, Reason *reterr) {
        const RestorationWish *wish = restoration->wish;
        int rc;

        rc = origin_read(wish->vm, wish->point, &restoration->origin, reterr);
        if (rc == 0)
                rc = origin_open_hypervisor(&restoration->origin, wish->uri, &restoration->hypervisor, reterr);
        if (rc == 0)
                rc = describe(restoration, reterr);
        if (rc == 0)
                rc = hypervisor_check_free(restoration->hypervisor, restoration->name,
                                           wish->keep_identity ? restoration->uuid : NULL, reterr);
        return rc == 0 ? plan(restoration, reterr) : rc;
}

/* ---- disks ---- */

static int restore_disks(Restoration *restoration, uint64_t *ret_skipped, Reason *reterr) {
        RestoreOptions options = restoration->wish->options;
        struct stat st;

        options.format = restoration->format;
        if (fstatat(restoration->directory_fd, restoration->own_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
                if (mkdirat(restoration->directory_fd, restoration->own_name, 0700) < 0)
                        return fail_errno(reterr, -errno, "cannot make %s", restoration->own_path);
        } else if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
                return fail(reterr, -EEXIST, "%s is in the way", restoration->own_path);
        return restore_point(restoration->wish->vm, restoration->origin.manifest->name, restoration->own_path, &options,
                             ret_skipped, reterr);
}

/* Where the file system cannot refuse to replace, the name was free a moment ago. */
static int move(const char *from, const char *to) {
        if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
                return 0;
        if (errno != EINVAL && errno != ENOSYS)
                return -errno;
        if (access(to, F_OK) == 0)
                return -EEXIST;
        return rename(from, to) < 0 ? -errno : 0;
}

static int place_disks(Restoration *restoration, Reason *reterr) {
        const Manifest *manifest = restoration->origin.manifest;
        int rc;

        for (; restoration->placed < manifest->disk_count; restoration->placed++) {
                const MachineDisk *disk = &restoration->disks[restoration->placed];
                CLEANUP(freep) char *restored = NULL;

                if (text_format(&restored, "%s/%s.%s", restoration->own_path, disk->name, restoration->format) < 0)
                        return fail_oom(reterr);
                if (chmod(restored, 0600) < 0)
                        return fail_errno(reterr, -errno, "cannot close %s to others", restored);
                rc = move(restored, disk->path);
                if (rc < 0)
                        return fail_errno(reterr, rc, "cannot name the restored disk %s", disk->path);
        }
        rc = sync_directory(restoration->directory_fd, ".");
        return rc < 0 ? fail_errno(reterr, rc, "cannot sync %s", restoration->directory) : 0;
}

/* ---- the VM ---- */

static int write_kept(Restoration *restoration, Reason *reterr) {
        CLEANUP(freep) char *said = NULL;
        const KeptWish wish = {
                .vm = restoration->origin.vm, .manifest = restoration->origin.manifest,
                .definition = restoration->origin.definition, .directory = restoration->directory,
                .name = restoration->name, .uuid = restoration->uuid, .hypervisor = restoration->hypervisor,
        };
        int rc = kept_files_write(&wish, &restoration->kept, &said, reterr);

        if (rc == 0 && said)
                warn(restoration, said);
        return rc;
}

static int define(Restoration *restoration, Reason *reterr) {
        CLEANUP(freep) char *definition = NULL;
        CLEANUP(strings_free) Strings notes = { 0 };
        const DefinitionWish wish = {
                .name = restoration->name,
                .uuid = restoration->wish->keep_identity ? NULL : restoration->uuid,
                .disks = restoration->disks,
                .disk_count = restoration->origin.manifest->disk_count,
                .files = restoration->kept.files,
                .file_count = restoration->kept.count,
                .emulated = !hypervisor_has_kvm(restoration->hypervisor),
        };
        int rc = definition_make(restoration->origin.definition, &wish, &definition, &notes, reterr);

        for (size_t i = 0; rc == 0 && i < notes.count; i++)
                warn(restoration, notes.items[i]);
        if (rc == 0)
                rc = hypervisor_define(restoration->hypervisor, definition, reterr);
        restoration->defined = rc == 0;
        return rc;
}

static int build(Restoration *restoration, uint64_t *ret_skipped, Reason *reterr) {
        int rc;

        rc = restore_disks(restoration, ret_skipped, reterr);
        if (rc == 0)
                rc = place_disks(restoration, reterr);
        if (rc == 0)
                rc = write_kept(restoration, reterr);
        if (rc == 0)
                rc = define(restoration, reterr);
        if (rc == 0 && restoration->wish->start)
                rc = hypervisor_start(restoration->hypervisor, restoration->uuid, reterr);
        return rc;
}

/* What was restored of the disks is worth keeping where somebody only interrupted it. */
static void take_away(Restoration *restoration, int cause) {
        Reason reason;

        if (cause == -ECANCELED && restoration->placed == 0)
                return;
        if (restoration->defined && hypervisor_undefine(restoration->hypervisor, restoration->uuid, &reason) < 0) {
                warn(restoration, reason.text);
                return;
        }
        kept_files_remove(&restoration->kept.made);
        for (size_t i = 0; i < restoration->placed; i++)
                (void) unlink(restoration->disks[i].path);
        if (remove_tree(restoration->directory_fd, restoration->own_name, &reason) < 0)
                warn(restoration, reason.text);
}

int restoration_run(const RestorationWish *wish, char **ret_name, uint64_t *ret_skipped, Reason *reterr) {
        CLEANUP(restoration_clear) Restoration restoration = { .wish = wish, .directory_fd = -1 };
        Reason reason;
        int rc;

        rc = prepare(&restoration, reterr);
        if (rc < 0)
                return rc;
        rc = build(&restoration, ret_skipped, reterr);
        if (rc < 0) {
                take_away(&restoration, rc);
                return rc;
        }
        if (remove_tree(restoration.directory_fd, restoration.own_name, &reason) < 0)
                warn(&restoration, reason.text);
        if (wish->place && !strchr(wish->place, '/'))
                hypervisor_refresh_pool(restoration.hypervisor, wish->place);
        *ret_name = strdup(restoration.name);
        return *ret_name ? 0 : fail_oom(reterr);
}
