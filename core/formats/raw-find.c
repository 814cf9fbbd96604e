/* Finding plain images: by name, or by what disks begin with. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>

#include "formats/raw.h"
#include "util/bytes.h"
#include "util/io.h"
#include "util/text.h"

#define LOOK_LENGTH 4096u /* bytes from the beginning that tell: what lies behind is worth no other read */
#define SIZE_LEAST (64u << 10) /* of what is taken for a disk though its name does not say so */
#define KEY_NAME "(raw images)" /* no file's: two formats never share a point */

typedef struct Magic {
        size_t offset;
        const char *bytes;
        size_t length;
        const char *words;
} Magic;

#define MAGIC(offset, text, words) { offset, text, sizeof text - 1, words }

/* Partition tables, file systems, volumes. */
static const Magic disks[] = {
        MAGIC(510, "\x55\xaa", NULL),     MAGIC(512, "EFI PART", NULL), MAGIC(1080, "\x53\xef", NULL),
        MAGIC(0, "XFSB", NULL),           MAGIC(512, "LABELONE", NULL), MAGIC(0, "LUKS\xba\xbe", NULL),
        MAGIC(4086, "SWAPSPACE2", NULL),  MAGIC(0, "hsqs", NULL),
};

/* What is called .img or .raw and is none. */
static const Magic others[] = {
        MAGIC(0, "QFI\xfb", "a qcow2 image that no format here can use"),
        MAGIC(0, "KDMV", "a VMDK image, which no format here reads"),
        MAGIC(0, "vhdxfile", "a VHDX image, which no format here reads"),
        MAGIC(0, "conectix", "a VHD image, which no format here reads"),
        MAGIC(64, "\x7f\x10\xda\xbe", "a VDI image, which no format here reads"),
        MAGIC(0, "QED\0", "a QED image, which no format here reads"),
        MAGIC(0, "\x1f\x8b", "compressed with gzip: unpack it first"),
        MAGIC(0, "\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"),
        MAGIC(0, "\xfd" "7zXZ\0", "compressed with xz: unpack it first"),
};

static const Magic *find_magic(const Magic *magics, size_t count, const char *bytes, size_t length) {
        for (size_t i = 0; i < count; i++)
                if (magics[i].offset + magics[i].length <= length &&
                    memcmp(bytes + magics[i].offset, magics[i].bytes, magics[i].length) == 0)
                        return &magics[i];
        return NULL;
}

/* Where the extension begins that says so, or NULL. */
static const char *raw_extension(const char *name) {
        const char *dot = strrchr(name, '.');

        return dot && dot > name && (strcasecmp(dot, ".raw") == 0 || strcasecmp(dot, ".img") == 0) ? dot : NULL;
}

/* The beginning of the file: its length, or a negative errno. */
static int look_into(const FoundDirectory *directory, const FoundEntry *entry, char bytes[static LOOK_LENGTH]) {
        size_t length = (size_t) min_u64(LOOK_LENGTH, (uint64_t) entry->st.st_size);
        CLEANUP(freep) char *path = found_path(directory, entry->name);
        CLEANUP(close_fd) int fd = -1;
        int rc;

        if (!path)
                return -ENOMEM;
        fd = open_beneath(layer_store_root(directory->store), path, O_RDONLY | O_NONBLOCK, 0);
        if (fd < 0)
                return fd;
        rc = pread_whole(fd, bytes, length, 0);
        return rc < 0 ? rc : (int) length;
}

/* 1: an image, 0: something else, or a refusal has been made; -ENOMEM. */
static int judge(FoundDirectory *directory, FoundEntry *entry) {
        bool named = raw_extension(entry->name) != NULL;
        char bytes[LOOK_LENGTH];
        const Magic *other;
        int length;

        if (!S_ISREG(entry->st.st_mode) || entry->claimed)
                return 0;
        if (!named && (entry->st.st_size < SIZE_LEAST || entry->st.st_size % 512 != 0))
                return 0;
        length = look_into(directory, entry, bytes);
        if (length == -ENOMEM)
                return length;
        if (length < 0)
                return found_refuse(directory, entry, strerrordesc_np(-length) ?: "it cannot be read");
        other = find_magic(others, sizeof others / sizeof *others, bytes, (size_t) length);
        if (other)
                return named ? found_refuse(directory, entry, other->words) : 0;
        return named || find_magic(disks, sizeof disks / sizeof *disks, bytes, (size_t) length);
}

static size_t stem_length(const char *name) {
        const char *extension = raw_extension(name);

        return extension ? (size_t) (extension - name) : strlen(name);
}

/* Whether another image of the directory has this name but for the extension. *bad: -ENOMEM. */
static bool is_ambiguous(FoundDirectory *directory, const bool *images, size_t index, int *bad) {
        static const char *const extensions[] = { "", ".raw", ".img", ".RAW", ".IMG" };
        const char *name = directory->entries[index].name;

        for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++) {
                CLEANUP(freep) char *other = NULL;
                const FoundEntry *entry;

                if (text_format(&other, "%.*s%s", (int) stem_length(name), name, extensions[i]) < 0) {
                        *bad = -ENOMEM;
                        return false;
                }
                entry = found_entry(directory, other);
                if (entry && entry != &directory->entries[index] && images[entry - directory->entries])
                        return true;
        }
        return false;
}

static int add_image(FoundDirectory *directory, const bool *images, size_t index) {
        FoundEntry *entry = &directory->entries[index];
        CLEANUP(freep) char *point = found_path(directory, KEY_NAME);
        CLEANUP(freep) char *path = found_path(directory, entry->name);
        CLEANUP(freep) char *stem = strndup(entry->name, stem_length(entry->name));
        FoundLayer layer;
        bool ambiguous;
        int bad = 0;

        ambiguous = is_ambiguous(directory, images, index, &bad);
        if (!point || !path || !stem || bad)
                return -ENOMEM;
        layer = (FoundLayer) {
                .point = point,
                .disk = ambiguous ? entry->name : stem,
                .kind = FOUND_FULL,
                .time = entry->st.st_mtim,
                .size = (uint64_t) entry->st.st_size,
                .stored = (uint64_t) entry->st.st_blocks * 512,
                .location = { "raw", path, NULL, (uint64_t) entry->st.st_size, found_seal(&entry->st) },
        };
        entry->claimed = true;
        return found_add_layer(directory, &layer);
}

int raw_find(FoundDirectory *directory, Reason *reterr) {
        CLEANUP(freep) bool *images = calloc(directory->entry_count + 1, sizeof *images);
        int rc = images ? 0 : -ENOMEM;

        for (size_t i = 0; rc >= 0 && i < directory->entry_count; i++) {
                rc = judge(directory, &directory->entries[i]);
                images[i] = rc > 0;
        }
        for (size_t i = 0; rc >= 0 && i < directory->entry_count; i++)
                if (images[i])
                        rc = add_image(directory, images, i);
        return rc < 0 ? fail_oom(reterr) : 0;
}
