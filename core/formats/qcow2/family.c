#include "formats/qcow2/family.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "formats/qcow2/series.h"
#include "util/io.h"
#include "util/parallel.h"
#include "util/text.h"

#define THREADS 8
#define LATER_LEAST 86400  /* seconds; files that were copied have times of that */
#define ELSEWHERE_MAX 4096 /* images that lie elsewhere */

void family_clear(Family *family) {
        for (size_t i = 0; i < family->count; i++)
                image_free(family->images[i]);
        free(family->images);
        free(family->by_entry);
        *family = (Family) { 0 };
}

/* Takes the image over, whatever comes. */
static int add_image(Family *family, Image *image, FoundEntry *entry) {
        Image **grown = family->images;

        if ((family->count & (family->count - 1)) == 0)
                grown = reallocarray(family->images, family->count ? family->count * 2 : 1, sizeof *grown);
        if (!grown) {
                image_free(image);
                return -ENOMEM;
        }
        family->images = grown;
        family->images[family->count++] = image;
        image->entry = entry;
        if (entry) {
                entry->claimed = true;
                family->by_entry[entry - family->directory->entries] = image;
        }
        return 0;
}

/* What was seen in an entry of the directory. */
typedef struct Look {
        Image *image;
        char *words; /* why it cannot be used; NULL: it can, or is none */
        int rc;
} Look;

typedef struct Looking {
        const FoundDirectory *directory;
        Look *looks; /* for each entry */
} Looking;

static void looking_clear(Looking *looking) {
        for (size_t i = 0; looking->looks && i < looking->directory->entry_count; i++) {
                image_free(looking->looks[i].image);
                free(looking->looks[i].words);
        }
        free(looking->looks);
}

/* Whether the file begins as qcow2 images do. Whoever knows it otherwise may say why it cannot be read. */
static bool has_magic(int root_fd, const char *path) {
        CLEANUP(close_fd) int fd = open_beneath(root_fd, path, O_RDONLY | O_NONBLOCK, 0);
        char magic[4];

        return fd >= 0 && pread_whole(fd, magic, sizeof magic, 0) == 0 && memcmp(magic, "QFI\xfb", sizeof magic) == 0;
}

static bool is_partial(const char *name) {
        const char *dot = strrchr(name, '.');

        return dot && strcmp(dot, ".partial") == 0;
}

/* "PATH is damaged: …" is told beside the path. NULL: no memory. */
static char *words_without_path(const char *words, const char *path) {
        size_t length = strlen(path);
        char *told;

        if (strncmp(words, path, length) != 0 || words[length] != ' ')
                return strdup(words);
        return text_format(&told, "it%s", words + length) < 0 ? NULL : told;
}

static void look_into(void *context, size_t index) {
        const Looking *looking = context;
        const FoundEntry *entry = &looking->directory->entries[index];
        LayerStore *store = looking->directory->store;
        Look *look = &looking->looks[index];
        CLEANUP(freep) char *path = NULL;
        Reason reason = REASON_INIT;

        if (entry->claimed || !S_ISREG(entry->st.st_mode))
                return;
        path = found_path(looking->directory, entry->name);
        if (!path)
                look->rc = -ENOMEM;
        else if (!has_magic(layer_store_root(store), path))
                return;
        else if (is_partial(entry->name))
                look->rc = fail(&reason, -EBADMSG,
                                "it is not whole: its name says that it is being written, or was given up");
        else
                look->rc = image_open(store, path, &entry->st, &look->image, &reason);
        if (look->rc < 0 && look->rc != -ENOMEM)
                look->words = words_without_path(reason.text, path);
        if (look->rc < 0 && !look->words)
                look->rc = -ENOMEM;
}

static int take_looks(Family *family, Look *looks) {
        FoundDirectory *directory = family->directory;

        for (size_t i = 0; i < directory->entry_count; i++) {
                int rc = 0;

                if (looks[i].rc == -ENOMEM)
                        return -ENOMEM;
                if (looks[i].image)
                        rc = add_image(family, STEAL_PTR(looks[i].image), &directory->entries[i]);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

/* The entry of the directory that is at this path; NULL where that is elsewhere. */
static FoundEntry *entry_at(const Family *family, const char *path) {
        FoundDirectory *directory = family->directory;
        size_t length = strlen(directory->path);

        if (strncmp(path, directory->path, length) != 0 || (length > 0 && path[length] != '/'))
                return NULL;
        path += length + (length > 0);
        return strchr(path, '/') ? NULL : found_entry(directory, path);
}

static bool says_raw(const Image *image) {
        return strcmp(image->header.backing_format, "raw") == 0;
}

/* The image at a path that is known already; NULL: none. Those from elsewhere come last. */
static Image *known_image(const Family *family, const char *path, const FoundEntry *entry) {
        if (entry)
                return family->by_entry[entry - family->directory->entries];
        for (size_t i = family->count; i-- > 0;)
                if (!family->images[i]->entry && strcmp(family->images[i]->path, path) == 0)
                        return family->images[i];
        return NULL;
}

/* Opens what another image is based on: as raw where that one says so, or it is no qcow2 image. 0, -ENOMEM, or why not. */
static int open_below(const Family *family, const Image *image, Image **ret, Reason *reterr) {
        const Neighbour *below = &image->below;
        int rc = 0;

        if (!says_raw(image))
                rc = image_open(family->directory->store, below->path, &below->st, ret, reterr);
        if (rc == 0 && strcmp(image->header.backing_format, "qcow2") == 0)
                return fail(reterr, -EBADMSG, "it is no qcow2 image");
        if (rc == 0)
                rc = image_open_raw(below->path, &below->st, ret, reterr);
        return rc < 0 ? rc : 0;
}

/* Links an image to its base, which may be new. */
static int link_image(Family *family, Image *image, size_t *elsewhere) {
        Reason reason = REASON_INIT;
        FoundEntry *entry;
        Image *below;
        int rc = 0;

        if (image->backing)
                return 0;
        if (!*image->header.backing)
                return !image->said.incremental
                               ? 0
                               : image_problem(image, "it is incremental, and what it is based on is not there");
        if (image->without_below)
                return image_problem(image, "%s", image->without_below);
        if (image->below.moved &&
            image_note(image, "its backing file %s is taken from beside it", image->header.backing) < 0)
                return -ENOMEM;
        entry = entry_at(family, image->below.path);
        below = known_image(family, image->below.path, entry);
        if (!below && !entry && ++*elsewhere > ELSEWHERE_MAX)
                return image_problem(image, "its backing file %s: too many images lie elsewhere", image->header.backing);
        if (!below) {
                rc = open_below(family, image, &below, &reason);
                if (rc < 0)
                        return rc == -ENOMEM ? rc : image_problem(image, "its backing file %s cannot be used: %s",
                                                                  image->header.backing, reason.text);
                rc = add_image(family, below, entry);
        }
        if (rc < 0)
                return rc;
        image->backing = below;
        if (below->st.st_mtim.tv_sec - LATER_LEAST > image->st.st_mtim.tv_sec)
                rc = image_note(image, "its backing file %s was changed later: if that is the VM's own disk, this is not "
                                       "what was backed up", image->header.backing);
        return rc;
}

static int link_images(Family *family) {
        size_t elsewhere = 0;
        int rc = 0;

        for (size_t i = 0; i < family->count; i++) {
                const Image *image = family->images[i];
                FoundEntry *entry = image->below.path && says_raw(image) ? entry_at(family, image->below.path) : NULL;
                Image *below = entry ? known_image(family, image->below.path, entry) : NULL;

                if (below && below != image)
                        image_make_raw(below);
        }
        rc = family_link_series(family);
        for (size_t i = 0; rc >= 0 && i < family->count; i++)
                rc = link_image(family, family->images[i], &elsewhere);
        for (size_t i = 0; rc >= 0 && i < family->count; i++) {
                Image *image = family->images[i];

                if (image->backing && image->backing->raw && strcmp(image->header.backing_format, "qcow2") == 0)
                        rc = image_problem(image, "its backing file %s is a raw one, as another image says",
                                           image->header.backing);
        }
        return rc;
}

/* Finds the ends of all chains. One that leads back into itself ends where that is seen first. */
static int find_bases(Family *family) {
        int rc = 0;

        for (size_t i = 0; rc >= 0 && i < family->count; i++) {
                Image *last = family->images[i], *base;

                for (last->walk = i + 1; last->backing && !last->base && last->backing->walk != i + 1; last->walk = i + 1)
                        last = last->backing;
                if (last->backing && !last->base) {
                        rc = image_problem(last, "its backing files lead back to itself");
                        last->backing = NULL;
                }
                base = last->base ?: last;
                for (Image *image = family->images[i]; image && !image->base; image = image->backing)
                        image->base = base;
        }
        return rc;
}

/* What images have their data in is no disk by itself. */
static void claim_data_files(const Family *family) {
        for (size_t i = 0; i < family->count; i++) {
                const char *path = family->images[i]->data.path;
                FoundEntry *entry = path ? entry_at(family, path) : NULL;

                if (entry)
                        entry->claimed = true;
        }
}

static int refuse_others(Family *family, const Look *looks) {
        FoundDirectory *directory = family->directory;
        int rc = 0;

        for (size_t i = 0; rc >= 0 && i < directory->entry_count; i++)
                if (looks[i].words && !family->by_entry[i])
                        rc = found_refuse(directory, &directory->entries[i], looks[i].words);
        return rc;
}

int family_load(FoundDirectory *directory, Family *ret, Reason *reterr) {
        CLEANUP(family_clear) Family family = { .directory = directory };
        CLEANUP(looking_clear) Looking looking = { directory, calloc(directory->entry_count + 1, sizeof(Look)) };
        int rc;

        family.by_entry = calloc(directory->entry_count + 1, sizeof *family.by_entry);
        if (!looking.looks || !family.by_entry)
                return fail_oom(reterr);
        parallel_for(directory->entry_count, THREADS, look_into, &looking);
        rc = take_looks(&family, looking.looks);
        if (rc >= 0)
                rc = link_images(&family);
        if (rc >= 0)
                rc = find_bases(&family);
        if (rc >= 0)
                rc = refuse_others(&family, looking.looks);
        if (rc < 0)
                return fail_oom(reterr);
        claim_data_files(&family);
        *ret = family;
        family = (Family) { 0 };
        return 0;
}
