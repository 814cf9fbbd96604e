#include "sources/job-place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/directory.h"
#include "util/text.h"

#define DOMAINS_DIRECTORY "/var/lib/libvirt/qemu"
#define SHARED_DIRECTORY "/var/tmp"
#define RESERVE_MAX (UINT64_C(256) << 20)
#define SAMPLE_MS 200
#define TIGHT_PART 5 /* less than a fifth of what was free */
#define AHEAD_MS 500 /* how long the growth seen lately must still fit */

static void hex_digits(const char *uuid, size_t count, char *text) {
        for (; *uuid && count > 0; uuid++)
                if (*uuid != '-') {
                        *text++ = *uuid;
                        count--;
                }
        *text = 0;
}

void job_repository_prefix(const char *repository, char prefix[static JOB_TAG_MAX]) {
        char digits[13];

        hex_digits(repository, 12, digits);
        snprintf(prefix, JOB_TAG_MAX, "virtbackupfs-%s-", digits);
}

void job_tag(const char *repository, const char *vm_uuid, char tag[static JOB_TAG_MAX]) {
        char digits[9];
        size_t length;

        job_repository_prefix(repository, tag);
        hex_digits(vm_uuid, 8, digits);
        length = strlen(tag);
        snprintf(tag + length, JOB_TAG_MAX - length, "%s", digits);
}

bool job_is_ours(const char *path, const char *tag) {
        const char *found = strstr(path, tag);

        return found && found > path && found[-1] == '/';
}

static int add_made(JobPlace *place, char *path) {
        for (size_t i = 0; i < sizeof place->made / sizeof *place->made; i++)
                if (!place->made[i]) {
                        place->made[i] = path;
                        return 0;
                }
        return -E2BIG;
}

/* Makes PARENT/TAG.XXXXXX with this mode, whatever the umask. *ret is the place's. */
static int make_tagged(JobPlace *place, const char *parent, mode_t mode, const char **ret, Reason *reterr) {
        CLEANUP(freep) char *path = NULL;

        if (text_format(&path, "%s/%s.XXXXXX", parent, place->tag) < 0)
                return fail_oom(reterr);
        if (!mkdtemp(path))
                return fail_errno(reterr, -errno, "cannot make a directory in %s for the backup job", parent);
        *ret = path;
        if (chmod(path, mode) < 0) {
                int rc = -errno;

                rmdir(path);
                return fail_errno(reterr, rc, "cannot set the mode of %s", path);
        }
        return add_made(place, STEAL_PTR(path));
}

static int set_socket(JobPlace *place, const char *directory, const char *name, Reason *reterr) {
        if (text_format(&place->socket, "%s/%s.nbd", directory, name) < 0)
                return fail_oom(reterr);
        if (strlen(place->socket) >= sizeof ((struct sockaddr_un *) NULL)->sun_path)
                return fail(reterr, -ENAMETOOLONG, "%s is too long for a socket's path", place->socket);
        return 0;
}

/* libvirt's directory of a running domain: domain-ID-NAME, the name cut. NULL: none that can be used. */
static char *domain_directory(const JobPlaceWish *wish) {
        CLEANUP(close_fd) int fd = open(DOMAINS_DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CLEANUP(strings_free) Strings names = { 0 };
        char prefix[32];

        snprintf(prefix, sizeof prefix, "domain-%d-", wish->domain_id);
        if (fd < 0 || list_directory(fd, ".", &names, NULL) < 0)
                return NULL;
        for (size_t i = 0; i < names.count; i++) {
                const char *name = names.items[i] + strlen(prefix);
                char *path;

                if (strncmp(names.items[i], prefix, strlen(prefix)) != 0 ||
                    strncmp(name, wish->domain_name, strlen(name)) != 0)
                        continue;
                return text_format(&path, "%s/%s", DOMAINS_DIRECTORY, names.items[i]) < 0 ? NULL : path;
        }
        return NULL;
}

static int use_runtime_directory(JobPlace *place, Reason *reterr) {
        const char *runtime = getenv("XDG_RUNTIME_DIR"), *made;
        char fallback[64];
        int rc;

        if (!runtime || runtime[0] != '/') {
                snprintf(fallback, sizeof fallback, "/run/user/%u", (unsigned) geteuid());
                runtime = access(fallback, W_OK) == 0 ? fallback : SHARED_DIRECTORY;
        }
        rc = make_tagged(place, runtime, 0700, &made, reterr);
        return rc < 0 ? rc : set_socket(place, made, "job", reterr);
}

/* $XDG_CACHE_HOME/virtbackupfs: on a disk, which the runtime directory is not. */
static int use_cache_directory(JobPlace *place, Reason *reterr) {
        const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
        CLEANUP(freep) char *base = NULL;
        int rc;

        if (cache && cache[0] == '/')
                rc = text_format(&base, "%s", cache);
        else if (home && home[0] == '/')
                rc = text_format(&base, "%s/.cache", home);
        else
                rc = text_format(&base, "%s", SHARED_DIRECTORY);
        if (rc < 0)
                return fail_oom(reterr);
        if (mkdir(base, 0700) < 0 && errno != EEXIST)
                return fail_errno(reterr, -errno, "cannot make %s for scratch files", base);
        place->scratch_directory = STEAL_PTR(base);
        return 0;
}

static int use_shared_directory(JobPlace *place, Reason *reterr) {
        const char *outer, *inner;
        int rc;

        rc = make_tagged(place, SHARED_DIRECTORY, 0711, &outer, reterr);
        if (rc < 0)
                return rc;
        /* Sticky: somebody who guessed the name could still not replace the socket. */
        rc = make_tagged(place, outer, 03773, &inner, reterr);
        if (rc < 0)
                return rc;
        rc = set_socket(place, inner, "job", reterr);
        if (rc < 0)
                return rc;
        place->scratch_directory = strdup(outer);
        return place->scratch_directory ? 0 : fail_oom(reterr);
}

static int choose(const JobPlaceWish *wish, JobPlace *place, Reason *reterr) {
        CLEANUP(freep) char *own = NULL;
        const char *made;
        int rc;

        if (wish->off)
                return make_tagged(place, SHARED_DIRECTORY, 0700, &made, reterr);
        if (wish->remote) {
                place->scratch_directory = strdup(wish->session ? SHARED_DIRECTORY : DOMAINS_DIRECTORY);
                return place->scratch_directory ? 0 : fail_oom(reterr);
        }
        if (wish->session) {
                rc = use_runtime_directory(place, reterr);
                return rc < 0 ? rc : use_cache_directory(place, reterr);
        }
        if (geteuid() == 0)
                own = domain_directory(wish);
        if (own && set_socket(place, own, place->tag, NULL) == 0) {
                place->scratch_directory = STEAL_PTR(own);
                return 0;
        }
        free(STEAL_PTR(place->socket));
        return use_shared_directory(place, reterr);
}

static int space_of(const JobPlace *place, uint64_t *ret_free, uint64_t *ret_reserve, Reason *reterr) {
        struct statvfs fs;

        if (statvfs(place->scratch_directory, &fs) < 0)
                return fail_errno(reterr, -errno, "cannot tell the space left in %s", place->scratch_directory);
        *ret_free = (uint64_t) fs.f_bavail * fs.f_frsize;
        *ret_reserve = min_u64(RESERVE_MAX, (uint64_t) fs.f_blocks * fs.f_frsize / 10);
        return 0;
}

/* Whether there are scratch files on this machine. */
static bool is_watched(const JobPlace *place) {
        return place->scratch_directory && !place->remote;
}

/* From the start there must be more than is ever used up. */
static int check_space(JobPlace *place, Reason *reterr) {
        uint64_t left = 0, reserve = 0;
        int rc;

        rc = space_of(place, &left, &reserve, reterr);
        if (rc < 0)
                return rc;
        if (left <= reserve)
                return fail(reterr, -ENOSPC, "%s has %llu MiB left, too little for what the guest writes while it is "
                                             "backed up: make room or choose another scratch directory",
                            place->scratch_directory, (unsigned long long) (left >> 20));
        place->sampled = clock_now_ms();
        place->free_then = place->free_first = place->free_least = left;
        return 0;
}

int job_place_make(const JobPlaceWish *wish, JobPlace *ret, Reason *reterr) {
        CLEANUP(job_place_remove) JobPlace place = { .remote = wish->remote };
        uint32_t random;
        int rc;

        job_tag(wish->repository, wish->vm_uuid, place.tag);
        if (getrandom(&random, sizeof random, 0) != sizeof random)
                return fail_errno(reterr, -errno, "no random numbers");
        snprintf(place.serial, sizeof place.serial, "%08x", random);
        rc = choose(wish, &place, reterr);
        if (rc < 0)
                return rc;
        if (wish->scratch_directory && !wish->off) {
                free(place.scratch_directory);
                place.scratch_directory = strdup(wish->scratch_directory);
                if (!place.scratch_directory)
                        return fail_oom(reterr);
        }
        rc = is_watched(&place) ? check_space(&place, reterr) : 0;
        if (rc < 0)
                return rc;
        *ret = place;
        place = (JobPlace) { 0 };
        return 0;
}

char *job_place_scratch(const JobPlace *place, const char *disk) {
        char *path;

        (void) text_format(&path, "%s/%s-%s-%s.scratch", place->scratch_directory, place->tag, place->serial, disk);
        return path;
}

int job_place_watch(JobPlace *place, Reason *reterr) {
        uint64_t left = 0, reserve = 0, ahead, now, elapsed;
        int rc;

        if (!is_watched(place))
                return 0;
        rc = space_of(place, &left, &reserve, reterr);
        if (rc < 0)
                return rc;
        place->free_least = min_u64(place->free_least, left);
        now = clock_now_ms();
        elapsed = now - place->sampled;
        if (elapsed >= SAMPLE_MS) {
                place->rate = left < place->free_then ? (place->free_then - left) * 1000 / elapsed : 0;
                place->free_then = left;
                place->sampled = now;
        }
        ahead = place->rate / 1000 * AHEAD_MS;
        if (left <= reserve || left - reserve <= ahead)
                return fail(reterr, -ENOSPC, "the scratch files in %s are about to fill it (%llu MiB left): the job was "
                                             "ended so that the guest can go on",
                            place->scratch_directory, (unsigned long long) (left >> 20));
        return 0;
}

bool job_place_was_tight(const JobPlace *place) {
        return is_watched(place) && place->free_least < place->free_first / TIGHT_PART;
}

/* Removes the entries of a directory whose names begin with the tag, if they are of a kind that we make. */
static void sweep(const char *directory, const char *tag) {
        CLEANUP(strings_free) Strings names = { 0 };
        CLEANUP(close_fd) int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (fd < 0 || list_directory(fd, ".", &names, NULL) < 0)
                return;
        for (size_t i = 0; i < names.count; i++) {
                struct stat st;

                if (strncmp(names.items[i], tag, strlen(tag)) != 0 ||
                    fstatat(fd, names.items[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
                        continue;
                if (S_ISDIR(st.st_mode) && st.st_uid == geteuid())
                        remove_tree(fd, names.items[i], NULL);
                else if (!S_ISDIR(st.st_mode))
                        unlinkat(fd, names.items[i], 0);
        }
}

static void remove_made(char *path) {
        char *name = strrchr(path, '/');
        CLEANUP(close_fd) int fd = -1;

        *name = 0;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0)
                remove_tree(fd, name + 1, NULL);
}

void job_place_forget(JobPlace *place) {
        for (size_t i = 0; i < sizeof place->made / sizeof *place->made; i++)
                free(place->made[i]);
        free(place->socket);
        free(place->scratch_directory);
        *place = (JobPlace) { 0 };
}

void job_place_remove(JobPlace *place) {
        if (is_watched(place))
                sweep(place->scratch_directory, place->tag);
        if (place->socket)
                unlink(place->socket);
        for (size_t i = sizeof place->made / sizeof *place->made; i-- > 0;)
                if (place->made[i])
                        remove_made(place->made[i]);
        job_place_forget(place);
}

void job_place_sweep(const JobPlaceWish *wish) {
        CLEANUP(freep) char *own = NULL;
        JobPlace place = { 0 };
        const char *runtime = getenv("XDG_RUNTIME_DIR");
        char fallback[64];

        if (wish->remote)
                return;
        own = domain_directory(wish);
        job_tag(wish->repository, wish->vm_uuid, place.tag);
        snprintf(fallback, sizeof fallback, "/run/user/%u", (unsigned) geteuid());
        if (wish->scratch_directory)
                sweep(wish->scratch_directory, place.tag);
        sweep(runtime && runtime[0] == '/' ? runtime : fallback, place.tag);
        sweep(SHARED_DIRECTORY, place.tag);
        if (own)
                sweep(own, place.tag);
        if (use_cache_directory(&place, NULL) == 0)
                sweep(place.scratch_directory, place.tag);
        free(place.scratch_directory);
}
