#include "formats/found.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "codec/checksum.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/text.h"

/* A copy of a text that may be NULL; *bad becomes -ENOMEM. */
static const char *copy(const char *text, int *bad) {
        char *copied = text ? strdup(text) : NULL;

        if (text && !copied)
                *bad = -ENOMEM;
        return copied;
}

static LayerLocation copy_location(const LayerLocation *location, int *bad) {
        LayerLocation copied = *location;

        copied.format = copy(location->format, bad);
        copied.path = copy(location->path, bad);
        copied.member = copy(location->member, bad);
        return copied;
}

static void free_text(const char *text) {
        free((char *) text);
}

static void clear_location(LayerLocation *location) {
        free_text(location->format);
        free_text(location->path);
        free_text(location->member);
}

static void clear_layer(FoundLayer *layer) {
        free_text(layer->vm);
        free_text(layer->vm_uuid);
        free_text(layer->point);
        free_text(layer->parent);
        free_text(layer->disk);
        free_text(layer->checkpoint);
        free_text(layer->problem);
        free_text(layer->note);
        free_text(layer->directory);
        clear_location(&layer->location);
}

static void clear_kept(FoundKept *kept) {
        free_text(kept->point);
        free_text(kept->name);
        clear_location(&kept->location);
}

void findings_clear(Findings *findings) {
        for (size_t i = 0; i < findings->layer_count; i++)
                clear_layer(&findings->layers[i]);
        for (size_t i = 0; i < findings->kept_count; i++)
                clear_kept(&findings->kept[i]);
        for (size_t i = 0; i < findings->refusal_count; i++) {
                free(findings->refusals[i].path);
                free(findings->refusals[i].words);
        }
        free(findings->layers);
        free(findings->kept);
        free(findings->refusals);
        *findings = (Findings) { 0 };
}

/* Room for one more behind count items: they grow to the next power of two. */
static int make_room(void **items, size_t count, size_t item_size) {
        void *grown;

        if (count & (count - 1))
                return 0;
        grown = reallocarray(*items, count ? count * 2 : 1, item_size);
        if (!grown)
                return -ENOMEM;
        *items = grown;
        return 0;
}

int found_add_layer(FoundDirectory *directory, const FoundLayer *layer) {
        Findings *findings = directory->findings;
        FoundLayer copied = *layer;
        int rc = 0;

        if (make_room((void **) &findings->layers, findings->layer_count, sizeof copied) < 0)
                return -ENOMEM;
        copied.vm = copy(layer->vm, &rc);
        copied.vm_uuid = copy(layer->vm_uuid, &rc);
        copied.point = copy(layer->point, &rc);
        copied.parent = copy(layer->parent, &rc);
        copied.disk = copy(layer->disk, &rc);
        copied.checkpoint = copy(layer->checkpoint, &rc);
        copied.problem = copy(layer->problem, &rc);
        copied.note = copy(layer->note, &rc);
        copied.directory = copy(directory->path, &rc);
        copied.location = copy_location(&layer->location, &rc);
        if (rc < 0)
                clear_layer(&copied);
        else
                findings->layers[findings->layer_count++] = copied;
        return rc;
}

int found_add_kept(FoundDirectory *directory, const FoundKept *kept) {
        Findings *findings = directory->findings;
        FoundKept copied = *kept;
        int rc = 0;

        if (make_room((void **) &findings->kept, findings->kept_count, sizeof copied) < 0)
                return -ENOMEM;
        copied.point = copy(kept->point, &rc);
        copied.name = copy(kept->name, &rc);
        copied.location = copy_location(&kept->location, &rc);
        if (rc < 0)
                clear_kept(&copied);
        else
                findings->kept[findings->kept_count++] = copied;
        return rc;
}

int found_refuse(FoundDirectory *directory, FoundEntry *entry, const char *words) {
        Findings *findings = directory->findings;
        FoundRefusal refusal = { .path = found_path(directory, entry->name), .words = strdup(words) };

        entry->claimed = true;
        if (!refusal.path || !refusal.words ||
            make_room((void **) &findings->refusals, findings->refusal_count, sizeof refusal) < 0) {
                free(refusal.path);
                free(refusal.words);
                return -ENOMEM;
        }
        findings->refusals[findings->refusal_count++] = refusal;
        return 0;
}

static int compare_name(const void *name, const void *entry) {
        return strcmp(name, ((const FoundEntry *) entry)->name);
}

FoundEntry *found_entry(FoundDirectory *directory, const char *name) {
        return directory->entry_count == 0 ? NULL
                                           : bsearch(name, directory->entries, directory->entry_count,
                                                     sizeof *directory->entries, compare_name);
}

char *found_path(const FoundDirectory *directory, const char *name) {
        char *path;

        return text_format(&path, "%s%s%s", directory->path, *directory->path ? "/" : "", name) < 0 ? NULL : path;
}

uint64_t found_seal(const struct stat *st) {
        unsigned char identity[40];

        store_le64(identity, st->st_dev);
        store_le64(identity + 8, st->st_ino);
        store_le64(identity + 16, (uint64_t) st->st_size);
        store_le64(identity + 24, (uint64_t) st->st_mtim.tv_sec);
        store_le64(identity + 32, (uint64_t) st->st_mtim.tv_nsec);
        return checksum(identity, sizeof identity);
}
