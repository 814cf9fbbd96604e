#include "repository/foreign/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "formats/format.h"
#include "util/directory.h"
#include "util/io.h"
#include "util/parallel.h"

#define DEPTH_MAX 8
#define ENTRIES_MAX 250000 /* names below a root */
#define SEEN_MAX 65536     /* directories and refused files whose changes are noticed */
#define MANY 64            /* names in a directory */
#define THREADS 8

static int add_seen(Walk *walk, const char *path, const struct stat *st) {
        Seen *seen;

        if (walk->seen_count == SEEN_MAX)
                return 0;
        if ((walk->seen_count & (walk->seen_count - 1)) == 0) {
                size_t capacity = walk->seen_count ? walk->seen_count * 2 : 1;

                seen = reallocarray(walk->seen, capacity, sizeof *seen);
                if (!seen)
                        return -ENOMEM;
                walk->seen = seen;
        }
        seen = &walk->seen[walk->seen_count];
        seen->path = strdup(path);
        seen->identity = identity_of(st);
        if (!seen->path)
                return -ENOMEM;
        walk->seen_count++;
        return 0;
}

static void clear_entries(FoundDirectory *directory) {
        for (size_t i = 0; i < directory->entry_count; i++)
                free(directory->entries[i].name);
        free(directory->entries);
}

/* The attributes of what is in a directory. Of thousands of files, those that are not in memory are waited for at once. */
typedef struct Listing {
        int fd;
        FoundEntry *entries;
        bool *gone; /* since the names were read */
} Listing;

static void stat_one(void *context, size_t index) {
        const Listing *listing = context;
        FoundEntry *entry = &listing->entries[index];

        listing->gone[index] = fstatat(listing->fd, entry->name, &entry->st, AT_SYMLINK_NOFOLLOW) < 0;
}

/* What is neither a file nor a directory is refused at once. */
static int take_entry(FoundDirectory *directory, FoundEntry *entry) {
        if (S_ISREG(entry->st.st_mode) || S_ISDIR(entry->st.st_mode))
                return 1;
        return found_refuse(directory, entry, S_ISLNK(entry->st.st_mode) ? "a symbolic link, which is not followed"
                                                                         : "neither a file nor a directory");
}

/* Takes the names over. */
static int list(FoundDirectory *directory, int fd, Strings *names) {
        CLEANUP(freep) bool *gone = calloc(names->count + 1, sizeof *gone);
        FoundEntry *entries = calloc(names->count + 1, sizeof *entries);
        Listing listing = { fd, entries, gone };
        size_t kept = 0;
        int rc = 0;

        if (!gone || !entries) {
                free(entries);
                return -ENOMEM;
        }
        for (size_t i = 0; i < names->count; i++)
                entries[i].name = STEAL_PTR(names->items[i]);
        parallel_for(names->count, names->count >= MANY ? THREADS : 1, stat_one, &listing);
        for (size_t i = 0; i < names->count; i++) {
                int takes = rc < 0 || gone[i] ? 0 : take_entry(directory, &entries[i]);

                rc = takes < 0 ? takes : rc;
                if (takes > 0)
                        entries[kept++] = entries[i];
                else
                        free(entries[i].name);
        }
        directory->entries = entries;
        directory->entry_count = kept;
        return rc;
}

/* Whether a file system is a mount of this program: it would show what is below the root once more, and again in that. */
static bool is_mount_of_ours(dev_t device) {
        CLEANUP(close_file) FILE *f = fopen("/proc/self/mountinfo", "re");
        CLEANUP(freep) char *line = NULL;
        size_t room = 0;

        while (f && getline(&line, &room, f) > 0) {
                unsigned of_major, of_minor;

                /* "36 35 98:0 /root /mountpoint options - type source options" */
                if (sscanf(line, "%*u %*u %u:%u", &of_major, &of_minor) == 2 && makedev(of_major, of_minor) == device)
                        return strstr(line, " - fuse.virtbackupfs ");
        }
        return false;
}

static int look_into(Walk *walk, LayerStore *store, const char *path, unsigned depth, Reason *reterr);

/* What no format has claimed: directories are looked into, files refused. */
static int go_on(Walk *walk, FoundDirectory *directory, unsigned depth, dev_t device, Reason *reterr) {
        int rc = 0;

        for (size_t i = 0; rc >= 0 && i < directory->entry_count; i++) {
                FoundEntry *entry = &directory->entries[i];
                CLEANUP(freep) char *path = NULL;

                if (entry->claimed || strcmp(entry->name, "lost+found") == 0)
                        continue;
                path = found_path(directory, entry->name);
                if (!path)
                        return -ENOMEM;
                if (!S_ISDIR(entry->st.st_mode)) {
                        rc = add_seen(walk, path, &entry->st);
                        if (rc >= 0)
                                rc = found_refuse(directory, entry, "no format that this version knows");
                        continue;
                }
                if (depth == DEPTH_MAX) {
                        rc = found_refuse(directory, entry, "too deep below the rest to be looked into");
                        continue;
                }
                if (entry->st.st_dev != device && is_mount_of_ours(entry->st.st_dev)) {
                        rc = found_refuse(directory, entry, "a mount of virtbackupfs");
                        continue;
                }
                rc = look_into(walk, directory->store, path, depth + 1, reterr);
        }
        return rc;
}

/* Refused files may become good ones without the directory changing: while they are copied, say. */
static int see_refusals(Walk *walk, FoundDirectory *directory, size_t first) {
        int rc = 0;

        for (size_t i = first; rc == 0 && i < directory->findings->refusal_count; i++) {
                const char *path = directory->findings->refusals[i].path;
                const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
                const FoundEntry *entry = found_entry(directory, name);

                if (entry && S_ISREG(entry->st.st_mode))
                        rc = add_seen(walk, path, &entry->st);
        }
        return rc;
}

/* A refusal of the directory itself. */
static int refuse_itself(Walk *walk, const char *path, const char *words) {
        FoundDirectory parent = { .path = "", .findings = &walk->findings };
        FoundEntry entry = { .name = (char *) path };

        return found_refuse(&parent, &entry, words);
}

static int ask_formats(Walk *walk, LayerStore *store, const char *path, int fd, Strings *names, unsigned depth,
                       dev_t device, Reason *reterr) {
        CLEANUP(clear_entries) FoundDirectory directory = { .store = store, .path = path, .findings = &walk->findings };
        size_t first = walk->findings.refusal_count;
        int rc = list(&directory, fd, names);

        for (size_t i = 0; rc >= 0 && formats[i]; i++)
                if (formats[i]->find)
                        rc = formats[i]->find(&directory, reterr);
        if (rc >= 0)
                rc = see_refusals(walk, &directory, first);
        return rc < 0 ? rc : go_on(walk, &directory, depth, device, reterr);
}

static bool is_repository_of_ours(const Strings *names) {
        for (size_t i = 0; i < names->count; i++)
                if (strcmp(names->items[i], "repository.json") == 0)
                        return true;
        return false;
}

static int look_into(Walk *walk, LayerStore *store, const char *path, unsigned depth, Reason *reterr) {
        CLEANUP(strings_free) Strings names = { 0 };
        CLEANUP(close_fd) int fd = -1;
        const char *at = *path ? path : ".";
        Reason reason = REASON_INIT;
        struct stat st;
        int rc;

        fd = open_beneath(layer_store_root(store), at, O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0)
                return fd == -ENOENT ? 0 : refuse_itself(walk, at, strerrordesc_np(-fd) ?: "it cannot be opened");
        /* Before it is read: what comes meanwhile is a change. */
        if (fstat(fd, &st) < 0 || add_seen(walk, at, &st) < 0)
                return -ENOMEM;
        rc = list_directory(fd, ".", &names, &reason);
        if (rc == -ENOMEM)
                return rc;
        if (rc < 0)
                return refuse_itself(walk, at, reason.text);
        if (is_repository_of_ours(&names))
                return refuse_itself(walk, at, "a repository of virtbackupfs: mount it by itself");
        if (names.count > ENTRIES_MAX - walk->entry_count)
                return refuse_itself(walk, at, "too many files and directories below the root to be looked at");
        walk->entry_count += names.count;
        return ask_formats(walk, store, path, fd, &names, depth, st.st_dev, reterr);
}

int walk_root(LayerStore *store, Walk *ret, Reason *reterr) {
        CLEANUP(walk_clear) Walk walk = { 0 };
        int rc = look_into(&walk, store, "", 0, reterr);

        if (rc == -ENOMEM)
                return fail_oom(reterr);
        if (rc < 0)
                return rc;
        *ret = walk;
        walk = (Walk) { 0 };
        return 0;
}

void walk_clear(Walk *walk) {
        findings_clear(&walk->findings);
        for (size_t i = 0; i < walk->seen_count; i++)
                free(walk->seen[i].path);
        free(walk->seen);
        *walk = (Walk) { 0 };
}

bool walk_has_changed(const Walk *walk, int root_fd) {
        for (size_t i = 0; i < walk->seen_count; i++) {
                Identity now;

                if (identity_of_file(root_fd, walk->seen[i].path, &now) < 0 ||
                    !identity_is_same(&now, &walk->seen[i].identity))
                        return true;
        }
        return false;
}
