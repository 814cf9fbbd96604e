#define FUSE_USE_VERSION 314
#include "mount/daemon.h"

#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "log.h"
#include "mount/announcer.h"
#include "mount/lifetime.h"
#include "mount/operations.h"
#include "mount/session.h"

/* What uses the session, and has to end before it. */
static void mount_quiet(Mount *mount) {
        open_files_close_all(&mount->files);
        if (mount->prefetcher)
                mount->prefetcher = prefetcher_free(mount->prefetcher);
        if (mount->triggers)
                mount->triggers = triggers_free(mount->triggers);
}

static void mount_clear(Mount *mount) {
        mount_quiet(mount);
        completeness_free(mount->tree.completeness);
        if (mount->tree.catalogue)
                catalogue_free(mount->tree.catalogue);
        if (mount->tree.repository)
                repository_free(mount->tree.repository);
        holding_end(&mount->holding);
        pthread_mutex_destroy(&mount->files.lock);
}

static int mount_init(Mount *mount, const char *path, const MountOptions *options, int stop_fd, Reason *reterr) {
        int rc;

        mount->tree.options = options;
        rc = repository_open(path, options->cache_bytes, &mount->tree.repository, reterr);
        if (rc < 0)
                return rc;
        layer_store_set_listener(repository_layers(mount->tree.repository), announcer());
        rc = layer_store_set_disk(repository_layers(mount->tree.repository), options->cache_dir, options->cache_dir_bytes);
        if (rc == 0)
                rc = catalogue_new(mount->tree.repository, &mount->tree.catalogue);
        if (rc == 0)
                rc = completeness_new(&mount->tree.completeness);
        if (rc >= 0)
                rc = prefetcher_new(&mount->prefetcher);
        if (rc >= 0)
                rc = triggers_new(mount->tree.repository, stop_fd, &mount->triggers);
        return rc < 0 ? fail_errno(reterr, rc, "cannot mount") : 0;
}

/* Long chains and many readers have many files open. */
static void raise_file_limit(void) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
                limit.rlim_cur = limit.rlim_max;
                (void) setrlimit(RLIMIT_NOFILE, &limit);
        }
}

static int loop(struct fuse_session *session, const MountOptions *options) {
        struct fuse_loop_config *config = fuse_loop_cfg_create();
        int rc;

        if (!config)
                return -ENOMEM;
        fuse_loop_cfg_set_clone_fd(config, 0); /* measured: no gain */
        fuse_loop_cfg_set_max_threads(config, options->max_threads);
        rc = fuse_session_loop_mt(session, config);
        fuse_loop_cfg_destroy(config);
        return rc > 0 ? -rc : rc;
}

/* Mounted: answers until the end. */
static int serve(struct fuse_session *session, Lifetime *lifetime, const MountOptions *options, Reason *reterr) {
        int rc;

        signal(SIGCHLD, SIG_IGN); /* captures end by themselves */
        lifetime->session = session;
        lifetime->loop = pthread_self();
        rc = lifetime_begin(lifetime, reterr);
        if (rc < 0)
                return rc;
        rc = loop(session, options);
        lifetime_end(lifetime);
        if (!lifetime->answered) {
                *reterr = lifetime->reason;
                return -EIO;
        }
        if (rc < 0)
                log_line(LOG_ERR, "the kernel's requests cannot be read: %s", strerrordesc_np(-rc));
        return 0;
}

int daemon_run(const char *repository_path, const char *mountpoint, const MountOptions *options, int ready_fd,
               Reason *reterr) {
        CLEANUP(mount_clear) Mount mount = { .files = OPEN_FILES_INIT, .holding = HOLDING_INIT };
        CLEANUP(lifetime_clear) Lifetime lifetime = {
                .mountpoint = mountpoint, .open_files = &mount.files.count, .hold = options->hold, .ready_fd = ready_fd,
                .signals = -1, .stop = -1, .loop_ended = -1, .reason = REASON_INIT,
        };
        struct fuse_session *session;
        int rc;

        /* Blocks are allocated by one thread and freed by another: with an arena for each it was twice the cache's size. */
        mallopt(M_ARENA_MAX, 2);
        raise_file_limit();
        signal(SIGCHLD, SIG_DFL); /* libfuse waits for fusermount3 */
        rc = lifetime_init(&lifetime, ready_fd < 0, reterr);
        if (rc < 0)
                return rc;
        rc = mount_init(&mount, repository_path, options, lifetime.stop, reterr);
        if (rc < 0)
                return rc;
        rc = session_new(&mount, options, mountpoint, &session, reterr);
        if (rc < 0)
                return rc;
        mount.session = session;
        rc = serve(session, &lifetime, options, reterr);
        mount_quiet(&mount);
        session_end(session, !lifetime.lost);
        return rc;
}
