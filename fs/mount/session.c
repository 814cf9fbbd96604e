#define FUSE_USE_VERSION 314
#include "mount/session.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "mount/direct-mapping.h"
#include "util/cleanup.h"
#include "util/text.h"

#define SAID_MAX 2048

static bool mounting; /* while there is one thread only */

/* libfuse's messages: beside those of fusermount3 while mounting, else into the log. */
static void __attribute__((format(printf, 2, 0))) take_message(enum fuse_log_level level, const char *format, va_list args) {
        char line[REASON_MAX];

        if (mounting) {
                vdprintf(STDERR_FILENO, format, args);
                return;
        }
        vsnprintf(line, sizeof line, format, args);
        line[strcspn(line, "\n")] = 0;
        if (*line)
                log_line((int) level, "%s", line);
}

/* Both are absolute, without dots and links. */
static bool is_at_or_above(const char *directory, const char *path) {
        size_t length = strlen(directory);

        if (strcmp(directory, "/") == 0)
                return true;
        return strncmp(directory, path, length) == 0 && (!path[length] || path[length] == '/');
}

int mountpoint_resolve(const char *path, const char *repository_path, char **ret, Reason *reterr) {
        CLEANUP(freep) char *resolved = realpath(path, NULL);
        struct stat st;

        if (!resolved || stat(resolved, &st) < 0) {
                int rc = -errno;

                if (rc == -ENOTCONN)
                        return fail(reterr, rc, "%s: a mount without a process is still there: "
                                                 "end it with 'fusermount3 -u %s'", path, path);
                return fail_errno(reterr, rc, "cannot mount on %s", path);
        }
        if (!S_ISDIR(st.st_mode))
                return fail_errno(reterr, -ENOTDIR, "cannot mount on %s", path);
        if (is_at_or_above(resolved, repository_path))
                return fail(reterr, -EINVAL, "cannot mount on %s: it would hide the repository %s", path, repository_path);
        *ret = STEAL_PTR(resolved);
        return 0;
}

/* Standard error goes into memory; the descriptor that brings it back. */
static int put_stderr_aside(int *ret_memory) {
        CLEANUP(close_fd) int memory = memfd_create("messages", MFD_CLOEXEC);
        CLEANUP(close_fd) int old = -1;

        if (memory < 0)
                return -errno;
        old = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        if (old < 0 || dup2(memory, STDERR_FILENO) < 0)
                return -errno;
        *ret_memory = STEAL_FD(memory);
        return STEAL_FD(old);
}

/* What was said, in one line without program names. */
static void collect(int memory, char said[static SAID_MAX]) {
        static const char *const prefixes[] = { "fusermount3: ", "fuse: ", "/usr/bin/fusermount3: " };
        char text[SAID_MAX];
        char *rest = text, *line;
        size_t used = 0;
        ssize_t length = pread(memory, text, sizeof text - 1, 0);

        text[length > 0 ? length : 0] = 0;
        said[0] = 0;
        while ((line = strsep(&rest, "\n"))) {
                for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
                        if (strncmp(line, prefixes[i], strlen(prefixes[i])) == 0)
                                line += strlen(prefixes[i]);
                if (*line && !strstr(said, line) && used < SAID_MAX)
                        used += (size_t) snprintf(said + used, SAID_MAX - used, "%s%s", used > 0 ? "; " : "", line);
        }
}

static int add_options(const Mount *mount, const MountOptions *options, struct fuse_args *args) {
        CLEANUP(freep) char *name = NULL;
        CLEANUP(freep) char *words = NULL;
        int bad;

        if (text_format(&name, "fsname=%s", options->fsname ?: repository_path(mount->tree.repository)) < 0)
                return -ENOMEM;
        bad = fuse_opt_add_opt(&words, "default_permissions,subtype=virtbackupfs");
        if (options->allow_other)
                bad |= fuse_opt_add_opt(&words, "allow_other");
        if (options->passed)
                bad |= fuse_opt_add_opt(&words, options->passed);
        bad |= fuse_opt_add_opt_escaped(&words, name);
        bad |= fuse_opt_add_arg(args, "virtbackupfs");
        bad |= fuse_opt_add_arg(args, "-o");
        bad |= fuse_opt_add_arg(args, words ?: "");
        return bad ? -ENOMEM : 0;
}

static struct fuse_session *try_to_mount(Mount *mount, struct fuse_args *args, const char *mountpoint) {
        struct fuse_session *session = fuse_session_new(args, &mount_operations, sizeof mount_operations, mount);

        if (!session)
                return NULL;
        if (fuse_session_mount(session, mountpoint) == 0) {
                if (direct_mapping_request(session) == 0)
                        return session;
                fuse_session_unmount(session);
        }
        fuse_session_destroy(session);
        return NULL;
}

int session_new(Mount *mount, const MountOptions *options, const char *mountpoint, struct fuse_session **ret,
                Reason *reterr) {
        CLEANUP(fuse_opt_free_args) struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
        CLEANUP(close_fd) int memory = -1;
        CLEANUP(close_fd) int old = -1;
        struct fuse_session *session;
        char said[SAID_MAX];

        if (access("/dev/fuse", F_OK) < 0)
                return fail(reterr, -ENODEV, "cannot mount on %s: there is no /dev/fuse: load the kernel's module fuse",
                            mountpoint);
        if (add_options(mount, options, &args) < 0)
                return fail_oom(reterr);
        old = put_stderr_aside(&memory);
        if (old < 0)
                return fail_errno(reterr, old, "cannot mount on %s", mountpoint);
        fuse_set_log_func(take_message);
        mounting = true;
        session = try_to_mount(mount, &args, mountpoint);
        mounting = false;
        dup2(old, STDERR_FILENO);
        if (session) {
                *ret = session;
                return 0;
        }
        collect(memory, said);
        return fail(reterr, -EIO, "cannot mount on %s: %s", mountpoint, *said ? said : "libfuse does not say why");
}

/* libfuse unmounts by path whatever is there now, unless its descriptor reports that the connection has been closed.
 * A pipe without a reader reports just that; taking the descriptor's place it also closes the connection. */
static void disown_mountpoint(struct fuse_session *session) {
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) < 0)
                return;
        close(ends[0]);
        dup3(ends[1], fuse_session_fd(session), O_CLOEXEC);
        close(ends[1]);
}

struct fuse_session *session_end(struct fuse_session *session, bool unmount) {
        if (!unmount)
                disown_mountpoint(session);
        fuse_session_unmount(session);
        fuse_session_destroy(session);
        return NULL;
}
