#include <errno.h>
#include <inttypes.h>

#include "formats/native/layer-private.h"
#include "formats/native/layout.h"

typedef struct PageRequest {
        const NativeLayer *native;
        const PageEntry *entry;
        const unsigned char *tail; /* the file from tail_start on, where that has been read; or NULL */
        uint64_t tail_start;
} PageRequest;

static int load_page(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        const PageRequest *request = context;
        const PageEntry *entry = request->entry;
        unsigned char buffer[PAGE_MAX];
        const unsigned char *bytes = buffer;
        Reason reason = REASON_INIT;
        Page *page;
        int rc;

        if (request->tail && entry->offset >= request->tail_start)
                bytes = request->tail + (entry->offset - request->tail_start);
        else {
                rc = byte_store_read(request->native->store, buffer, entry->length, entry->offset, reterr);
                if (rc < 0)
                        return rc;
        }
        rc = page_decode(bytes, entry, &request->native->bounds, &page, ret_cost, &reason);
        if (rc < 0)
                return fail(reterr, rc == -ENOMEM ? rc : -EIO, "%s is damaged: the index page at %" PRIu64 ": %s",
                            byte_store_name(request->native->store), entry->offset, reason.text);
        *ret = page;
        return 0;
}

static void free_page(void *page) {
        page_free(page);
}

static const CacheLoader page_loader = { load_page, free_page };

static int get_page(const PageRequest *request, CacheEntry **ret, Reason *reterr) {
        CacheKey key = { request->native->owner, request->entry->offset };
        CLEANUP(cache_releasep) CacheEntry *cached = NULL;
        int rc;

        rc = cache_get(request->native->memory, key, &page_loader, (void *) request, &cached, reterr);
        if (rc < 0)
                return rc;
        /* It was checked against the entry that led to it first: by another one, nothing of it can be trusted. */
        if (!page_is_of(cache_value(cached), request->entry))
                return fail(reterr, -EIO, "%s is damaged: the index page at %" PRIu64 ": several entries lead to it",
                            byte_store_name(request->native->store), request->entry->offset);
        *ret = STEAL_PTR(cached);
        return 0;
}

int native_find_leaf(const NativeLayer *native, uint64_t block, uint64_t end, CacheEntry **ret_leaf, PageEntry *ret_entry,
                     Reason *reterr) {
        PageEntry entry = native->root;

        while (entry.end > block && entry.first < end) {
                CLEANUP(cache_releasep) CacheEntry *cached = NULL;
                const Page *page;
                int rc;

                *ret_entry = entry;
                rc = get_page(&(PageRequest) { .native = native, .entry = &entry }, &cached, reterr);
                if (rc < 0)
                        return rc;
                page = cache_value(cached);
                if (page->level == 0) {
                        *ret_leaf = STEAL_PTR(cached);
                        return 0;
                }
                entry = page->entries[page_find(page, block)];
        }
        *ret_leaf = NULL;
        return 0;
}

void native_keep_root(const NativeLayer *native, const unsigned char *tail, uint64_t tail_start) {
        PageRequest root = { .native = native, .entry = &native->root, .tail = tail, .tail_start = tail_start };
        CLEANUP(cache_releasep) CacheEntry *cached = NULL;

        (void) get_page(&root, &cached, NULL);
}
