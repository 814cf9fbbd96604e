#include "formats/virtnbdbackup/head.h"

#include <errno.h>
#include <string.h>

#include "codec/checksum.h"
#include "formats/virtnbdbackup/member.h"

typedef struct Head {
        char *path;
        uint64_t length, seal;
        bool incremental;
        Shape shape; /* without bytes and zero_from */
} Head;

static void head_free(void *value) {
        Head *head = value;

        free(head->path);
        free(head);
}

static CacheKey key_of(LayerStore *store, const LayerLocation *location) {
        return (CacheKey) { layer_store_heads(store), checksum(location->path, strlen(location->path)) ^ location->seal };
}

typedef struct Remembering {
        const LayerLocation *location;
        const Metadata *metadata;
        const Shape *shape;
} Remembering;

static int remember(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        const Remembering *remembering = context;
        Head *head = malloc(sizeof *head);

        if (!head)
                return -ENOMEM;
        *head = (Head) {
                .path = strdup(remembering->location->path),
                .length = remembering->location->length,
                .seal = remembering->location->seal,
                .incremental = remembering->metadata->incremental,
                .shape = *remembering->shape,
        };
        if (!head->path) {
                free(head);
                return -ENOMEM;
        }
        *ret_cost = sizeof *head + strlen(head->path) + 1;
        *ret = head;
        return 0;
}

static int recall(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        return -ENOENT;
}

void head_remember(LayerStore *store, const LayerLocation *location, const Metadata *metadata, const Shape *shape) {
        static const CacheLoader loader = { remember, head_free };
        Remembering remembering = { location, metadata, shape };
        CacheEntry *entry;

        if (cache_get(layer_store_memory(store), key_of(store, location), &loader, &remembering, &entry, NULL) == 0)
                cache_release(entry);
}

static bool find(LayerStore *store, const LayerLocation *location, uint64_t grown_from, Shape *ret) {
        static const CacheLoader finder = { recall, head_free };
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;
        const Head *head;

        if (cache_get(layer_store_memory(store), key_of(store, location), &finder, NULL, &entry, NULL) < 0)
                return false;
        head = cache_value(entry);
        if (strcmp(head->path, location->path) != 0 || head->length != location->length || head->seal != location->seal)
                return false;
        *ret = head->shape;
        ret->zero_from = head->incremental ? grown_from : 0;
        return true;
}

int head_read(LayerStore *store, const LayerLocation *location, ByteStore *bytes, uint64_t grown_from, Shape *ret,
              Reason *reterr) {
        CLEANUP(metadata_clear) Metadata metadata = { 0 };
        Window window = { 0 };
        Member member;
        int rc;

        if (member_parse(location->member, &member) == 0 && !member.name && find(store, location, grown_from, ret)) {
                ret->bytes = bytes;
                return 0;
        }
        rc = metadata_read(bytes, &window, &metadata, reterr);
        return rc < 0 ? rc : shape_read(bytes, &metadata, grown_from, ret, reterr);
}
