#include "repository/foreign/root.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "repository/foreign/walk.h"
#include "util/clock.h"
#include "util/text.h"
#include "util/timestamp.h"

#define REST_MS 1000     /* between two looks at least */
#define REST_FACTOR 10   /* and as many times what the last took */
#define SETTLED_SECONDS 2 /* a directory that changed later than so before it was read may change again in the same tick */

struct ForeignRoot {
        ForeignRoot *next; /* of the repository */
        Repository *repository;
        char *path;
        pthread_mutex_t lock; /* guards what follows, but for a walk: that is the looking thread's. Held over no I/O */
        pthread_cond_t looked;
        bool looking;
        int fd;
        LayerStore *layers;
        Walk walk;
        Collection *collection; /* NULL: nothing has been found yet */
        struct timespec changed;
        uint64_t rest_until; /* ms, of clock_now_ms() */
};

static ForeignRoot *root_free(ForeignRoot *root) {
        collection_unref(root->collection);
        walk_clear(&root->walk);
        layer_store_free(root->layers);
        close_fd(&root->fd);
        pthread_cond_destroy(&root->looked);
        pthread_mutex_destroy(&root->lock);
        free(root->path);
        free(root);
        return NULL;
}

static int root_new(Repository *repository, const char *path, ForeignRoot **ret) {
        ForeignRoot *root = calloc(1, sizeof *root);

        if (!root)
                return -ENOMEM;
        root->fd = -1;
        root->repository = repository;
        pthread_mutex_init(&root->lock, NULL);
        pthread_cond_init(&root->looked, NULL);
        root->path = strdup(path);
        if (!root->path) {
                root_free(root);
                return -ENOMEM;
        }
        *ret = root;
        return 0;
}

int foreign_root_get(Repository *repository, const char *path, ForeignRoot **ret, Reason *reterr) {
        ForeignRoot *root;
        int rc = 0;

        pthread_mutex_lock(&repository->lock);
        root = repository->foreign;
        while (root && strcmp(root->path, path) != 0)
                root = root->next;
        if (!root) {
                rc = root_new(repository, path, &root);
                if (rc == 0) {
                        root->next = repository->foreign;
                        repository->foreign = root;
                }
        }
        pthread_mutex_unlock(&repository->lock);
        if (rc < 0)
                return fail_oom(reterr);
        *ret = root;
        return 0;
}

ForeignRoot *foreign_roots_free(ForeignRoot *first) {
        while (first) {
                ForeignRoot *next = first->next;

                root_free(first);
                first = next;
        }
        return NULL;
}

const char *foreign_root_path(const ForeignRoot *root) {
        return root->path;
}

LayerStore *foreign_root_layers(ForeignRoot *root) {
        return root->layers;
}

/* Another directory has taken its place, as when a disk is mounted there again. Whoever has the old one open has the new
 * one then: files are known by more than their names. */
static int follow_root(ForeignRoot *root, int fd, bool *changed, Reason *reterr) {
        struct stat before, now;

        if (fstat(root->fd, &before) < 0 || fstat(fd, &now) < 0)
                return fail_errno(reterr, -errno, "cannot look at %s", root->path);
        if (before.st_dev == now.st_dev && before.st_ino == now.st_ino)
                return 0;
        *changed = true;
        return dup3(fd, root->fd, O_CLOEXEC) < 0 ? fail_errno(reterr, -errno, "cannot open %s", root->path) : 0;
}

static int open_root(ForeignRoot *root, bool *changed, Reason *reterr) {
        CLEANUP(close_fd) int fd = open(root->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int rc = 0;

        if (fd < 0)
                return fail_errno(reterr, -errno, "cannot open %s", root->path);
        if (root->fd < 0)
                root->fd = STEAL_FD(fd);
        else
                rc = follow_root(root, fd, changed, reterr);
        if (rc < 0)
                return rc;
        if (!root->layers && layer_store_new_beside(root->fd, root->repository->layers, &root->layers) < 0)
                return fail_oom(reterr);
        return 0;
}

/* A directory that was written to just before it was read shows the same time when it is written to just after. */
static void distrust_the_newest(Walk *walk, struct timespec began) {
        for (size_t i = 0; i < walk->seen_count; i++)
                if (walk->seen[i].identity.modified.tv_sec + SETTLED_SECONDS >= began.tv_sec)
                        walk->seen[i].identity.inode = 0;
}

static const char *name_of_root(const ForeignRoot *root) {
        const char *slash = strrchr(root->path, '/');

        return slash && slash[1] ? slash + 1 : "root";
}

/* Looks through all of it. By the looking thread, without the lock. */
static int look_through(ForeignRoot *root, const Collection *previous, Walk *ret_walk, Collection **ret, Reason *reterr) {
        CLEANUP(walk_clear) Walk walk = { 0 };
        struct timespec began = timestamp_now();
        int rc;

        rc = walk_root(root->layers, &walk, reterr);
        if (rc < 0)
                return rc;
        if (collection_new(&walk.findings, name_of_root(root), previous, ret) < 0)
                return fail_oom(reterr);
        distrust_the_newest(&walk, began);
        *ret_walk = walk;
        walk = (Walk) { 0 };
        return 0;
}

/* One look, by the one thread that may. *ret: NULL where nothing has changed. */
static int look(ForeignRoot *root, bool now, Collection *previous, Walk *ret_walk, Collection **ret, Reason *reterr) {
        int rc;

        *ret = NULL;
        rc = open_root(root, &now, reterr);
        if (rc < 0 || (previous && !now && !walk_has_changed(&root->walk, root->fd)))
                return rc;
        return look_through(root, previous, ret_walk, ret, reterr);
}

/* Takes over what was found, with the lock held. */
static void take(ForeignRoot *root, Walk *walk, Collection *collection) {
        walk_clear(&root->walk);
        root->walk = *walk;
        collection_unref(root->collection);
        root->collection = collection;
        root->changed = timestamp_now();
}

int foreign_root_look(ForeignRoot *root, bool now, Collection **ret, Reason *reterr) {
        Collection *found = NULL, *previous;
        Walk walk = { 0 };
        uint64_t began;
        int rc = 0;

        pthread_mutex_lock(&root->lock);
        while (root->looking && !root->collection)
                pthread_cond_wait(&root->looked, &root->lock);
        if (!root->looking && (!root->collection || clock_now_ms() >= root->rest_until)) {
                root->looking = true;
                previous = root->collection;
                pthread_mutex_unlock(&root->lock);
                began = clock_now_ms();
                rc = look(root, now, previous, &walk, &found, reterr);
                pthread_mutex_lock(&root->lock);
                if (found)
                        take(root, &walk, found);
                root->rest_until = clock_now_ms() + REST_MS + REST_FACTOR * (clock_now_ms() - began);
                root->looking = false;
                pthread_cond_broadcast(&root->looked);
        }
        if (root->collection) {
                *ret = collection_ref(root->collection);
                rc = 0;
        }
        pthread_mutex_unlock(&root->lock);
        return rc;
}

struct timespec foreign_root_changed(ForeignRoot *root) {
        struct timespec changed;

        pthread_mutex_lock(&root->lock);
        changed = root->changed;
        pthread_mutex_unlock(&root->lock);
        return changed;
}

int foreign_root_refusals(ForeignRoot *root, bool absolute, json_t *list, Reason *reterr) {
        const Findings *findings = &root->walk.findings;
        int bad = 0;

        pthread_mutex_lock(&root->lock);
        for (size_t i = 0; !bad && i < findings->refusal_count; i++) {
                CLEANUP(freep) char *path = NULL;

                (void) text_format(&path, "%s%s%s", absolute ? root->path : "", absolute ? "/" : "",
                                   findings->refusals[i].path);
                bad = !path || json_array_append_new(list, json_pack("{s:o, s:o}", "path", json_text(path), "reason",
                                                                     json_text(findings->refusals[i].words))) < 0;
        }
        pthread_mutex_unlock(&root->lock);
        return bad ? fail_oom(reterr) : 0;
}

int foreign_unrecognised(Repository *repository, json_t *list, Reason *reterr) {
        ForeignRoot *root;
        int rc = 0;

        pthread_mutex_lock(&repository->lock);
        root = repository->foreign; /* what has been put before it meanwhile is not seen; none goes */
        pthread_mutex_unlock(&repository->lock);
        for (; rc == 0 && root; root = root->next)
                rc = foreign_root_refusals(root, true, list, reterr);
        return rc;
}
