/* core/sources/job-place.h - where the socket and the scratch files of a job lie, and whether there is space left.
 *
 * QEMU makes the socket itself, libvirtd the scratch files, and this process must reach the socket. Who may write where
 * depends on who runs QEMU:
 *     root, qemu:///system          the domain's own directory, which AppArmor's profile for it allows
 *     a user, qemu:///session       a directory below $XDG_RUNTIME_DIR; scratch files below the user's cache directory
 *     a user, qemu:///system        a directory in /var/tmp that nobody can list, and in it one that QEMU can write to.
 *                                   It is setgid: the socket becomes the user's group's, and QEMU's umask lets it write
 *     another host                  no socket; scratch files below /var/lib/libvirt/qemu there, or /var/tmp in a session.
 *                                   libvirtd removes them; nothing of that host is looked at or swept from here
 *     nobody, the VM is off         a directory for the sockets of NBD servers of our own, in /var/tmp
 * Every name made begins with a tag of repository and VM, by which leftovers are found.
 * Threads: job_place_watch() may run beside reads of the struct; all else belongs to one thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "util/reason.h"

#define JOB_TAG_MAX 48

typedef struct JobPlace {
        char tag[JOB_TAG_MAX];
        bool remote;
        char serial[9];           /* makes the names of this job's scratch files its own */
        char *made[3];            /* directories made for this job, innermost last; or NULL */
        char *socket;             /* NULL on another host, and where the VM is off */
        char *scratch_directory;  /* NULL where the VM is off */
        uint64_t sampled;         /* ms, of clock_now_ms(): by job_place_watch() */
        uint64_t free_then, rate; /* bytes, bytes per second */
        uint64_t free_first, free_least; /* bytes, when it was made and at the tightest moment since */
} JobPlace;

typedef struct JobPlaceWish {
        const char *repository;        /* UUID */
        const char *vm_uuid;
        bool session;                  /* QEMU runs as this user, or as one on the other host */
        bool remote;                   /* the hypervisor is on another host */
        bool off;                      /* the VM is: the directory alone, made[0] */
        int domain_id;
        const char *domain_name;
        const char *scratch_directory; /* or NULL */
} JobPlaceWish;

/* "virtbackupfs-" with 12 hex digits of the repository's UUID and a "-" at its end: how checkpoints of a repository
 * begin as well. */
void job_repository_prefix(const char *repository, char prefix[static JOB_TAG_MAX]);
/* The prefix with 8 hex digits of the VM's. */
void job_tag(const char *repository, const char *vm_uuid, char tag[static JOB_TAG_MAX]);
/* path: of a job's socket or scratch file. */
bool job_is_ours(const char *path, const char *tag);

/* Makes the directories. -ENOSPC where there is too little for scratch files from the start. */
int job_place_make(const JobPlaceWish *wish, JobPlace *ret, Reason *reterr);
/* Path of a disk's scratch file; the caller frees it. NULL: out of memory. */
char *job_place_scratch(const JobPlace *place, const char *disk);

/* 0, or -ENOSPC while what is left still suffices for the next half a second. */
int job_place_watch(JobPlace *place, Reason *reterr);
/* Whether most of what there was has been taken meanwhile. */
bool job_place_was_tight(const JobPlace *place);

/* Removes what was made, and what jobs of the same tag left in the same places. */
void job_place_remove(JobPlace *place);
void job_place_forget(JobPlace *place); /* frees the struct's own memory alone */
void job_place_sweep(const JobPlaceWish *wish);
