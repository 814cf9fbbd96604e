#include "mount/mount-options.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "number.h"
#include "repository/repository.h"
#include "util/bytes.h"
#include "util/text.h"

#define CACHE_MIN (1u << 20)
#define THREADS_DEFAULT 16 /* each has a buffer of 1 MiB or two; what comes beyond waits its turn */
#define THREADS_MAX 1024

/* Flags that libfuse knows and hands on. `dev` and `suid` are not among them: a mount of ours has neither. */
static const char *const kernel_flags[] = {
        "ro", "rw", "nodev", "nosuid", "exec", "noexec", "atime", "noatime", "sync", "async", "dirsync", "auto_unmount",
};
static const char *const kernel_values[] = { "context=", "fscontext=", "defcontext=", "rootcontext=" };

static const char *const others_flags[] = {
        "_netdev", "auto", "default_permissions", "defaults", "dev", "diratime", "group", "iversion", "lazytime", "loud",
        "mand", "noauto", "nodiratime", "nofail", "nogroup", "noiversion", "nolazytime", "nomand", "nonempty", "noowner",
        "norelatime", "nostrictatime", "nosymfollow", "nouser", "nousers", "owner", "relatime", "silent", "strictatime",
        "suid", "user", "users",
};
static const char *const others_values[] = { "comment=", "helper=", "subtype=", "uhelper=", "user=", "x-", "X-" };

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static bool is_among(const char *word, const char *const *list, size_t count) {
        for (size_t i = 0; i < count; i++)
                if (strcmp(word, list[i]) == 0)
                        return true;
        return false;
}

static bool begins_with_one_of(const char *word, const char *const *list, size_t count) {
        for (size_t i = 0; i < count; i++)
                if (strncmp(word, list[i], strlen(list[i])) == 0)
                        return true;
        return false;
}

static const char *value_of(const char *word, const char *key) {
        size_t length = strlen(key);

        return strncmp(word, key, length) == 0 && word[length] == '=' ? word + length + 1 : NULL;
}

static int pass(MountOptions *options, const char *word, Reason *reterr) {
        char *longer;

        if (text_format(&longer, "%s%s%s", options->passed ?: "", options->passed ? "," : "", word) < 0)
                return fail_oom(reterr);
        free(options->passed);
        options->passed = longer;
        return 0;
}

static int take_uid(MountOptions *options, const char *value) {
        uint64_t number;

        if (number_parse(value, 10, UINT32_MAX - 1, &number) < 0)
                return -EINVAL;
        options->uid = (uid_t) number;
        return 0;
}

static int take_gid(MountOptions *options, const char *value) {
        uint64_t number;

        if (number_parse(value, 10, UINT32_MAX - 1, &number) < 0)
                return -EINVAL;
        options->gid = (gid_t) number;
        return 0;
}

static int take_umask(MountOptions *options, const char *value) {
        uint64_t number;

        if (number_parse(value, 8, 0777, &number) < 0)
                return -EINVAL;
        options->umask = (mode_t) number;
        return 0;
}

static int take_cache_size(MountOptions *options, const char *value) {
        uint64_t number;

        if (size_parse(value, SIZE_MAX / 2, &number) < 0)
                return -EINVAL;
        options->cache_bytes = (size_t) max_u64(number, CACHE_MIN);
        return 0;
}

static int take_threads(MountOptions *options, const char *value) {
        uint64_t number;

        if (number_parse(value, 10, THREADS_MAX, &number) < 0 || number == 0)
                return -EINVAL;
        options->max_threads = (unsigned) number;
        return 0;
}

static int take_text(char **into, const char *value) {
        char *copy = strdup(value);

        if (!copy)
                return -ENOMEM;
        free(*into);
        *into = copy;
        return 0;
}

static int take_fsname(MountOptions *options, const char *value) {
        return take_text(&options->fsname, value);
}

/* Absolute: the mount goes on in another directory. */
static int take_cache_dir(MountOptions *options, const char *value) {
        return *value == '/' ? take_text(&options->cache_dir, value) : -EINVAL;
}

static int take_cache_dir_size(MountOptions *options, const char *value) {
        return size_parse(value, INT64_MAX, &options->cache_dir_bytes);
}

static int take_hold(MountOptions *options, const char *value) {
        return take_text(&options->hold, value);
}

/* Ours that have a value. */
static const struct {
        const char *key;
        int (*take)(MountOptions *options, const char *value);
} ours[] = {
        { "uid", take_uid },
        { "gid", take_gid },
        { "umask", take_umask },
        { "cache-size", take_cache_size },
        { "cache_size", take_cache_size },
        { "max_threads", take_threads },
        { "fsname", take_fsname },
        { "cache-dir", take_cache_dir },
        { "cache_dir", take_cache_dir },
        { "cache-dir-size", take_cache_dir_size },
        { "cache_dir_size", take_cache_dir_size },
        { "hold", take_hold },
};

static int add_value(MountOptions *options, const char *word, bool *ret_known, Reason *reterr) {
        for (size_t i = 0; i < LENGTH(ours); i++) {
                const char *value = value_of(word, ours[i].key);
                int rc;

                if (!value)
                        continue;
                *ret_known = true;
                rc = ours[i].take(options, value);
                return rc < 0 ? fail(reterr, rc, "mount option %s: its value does not fit", word) : 0;
        }
        return 0;
}

static int add_word(MountOptions *options, const char *word, Reason *reterr) {
        bool known = false;
        int rc;

        if (!*word)
                return 0;
        if (strcmp(word, "allow_other") == 0) {
                options->allow_other = true;
                return 0;
        }
        if (strcmp(word, "direct_io") == 0 || strcmp(word, "kernel_cache") == 0) {
                options->disk_reads = *word == 'd' ? DISK_READS_DIRECT : DISK_READS_CACHED;
                return 0;
        }
        if (strcmp(word, "ro") == 0)
                options->read_only = true;
        if (strcmp(word, "rw") == 0)
                options->read_only = false;
        if (is_among(word, kernel_flags, LENGTH(kernel_flags)) ||
            begins_with_one_of(word, kernel_values, LENGTH(kernel_values)))
                return pass(options, word, reterr);
        rc = add_value(options, word, &known, reterr);
        if (rc < 0 || known)
                return rc;
        if (is_among(word, others_flags, LENGTH(others_flags)) ||
            begins_with_one_of(word, others_values, LENGTH(others_values)))
                return 0;
        return fail(reterr, -EINVAL, "unknown mount option %s", word);
}

int mount_options_add(MountOptions *options, const char *text, Reason *reterr) {
        CLEANUP(freep) char *words = strdup(text);
        char *rest = words, *word;

        if (!words)
                return fail_oom(reterr);
        while ((word = strsep(&rest, ","))) {
                int rc = add_word(options, word, reterr);

                if (rc < 0)
                        return rc;
        }
        return 0;
}

MountOptions mount_options_default(void) {
        return (MountOptions) {
                .uid = getuid(),
                .gid = getgid(),
                .umask = 077,
                .cache_bytes = REPOSITORY_CACHE_DEFAULT,
                .max_threads = THREADS_DEFAULT,
        };
}

void mount_options_clear(MountOptions *options) {
        free(options->fsname);
        free(options->cache_dir);
        free(options->hold);
        free(options->passed);
        *options = (MountOptions) { 0 };
}
