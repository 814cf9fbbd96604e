/* core/chain/chain-private.h - what the files of a chain share. */
#pragma once

#include <stdatomic.h>

#include "chain/chain.h"
#include "chain/region.h"
#include "formats/layer.h"
#include "util/cache.h"

#define WIDE_ITEMS (UINT64_C(1) << 63) /* cache items of wide regions have this bit; those of others are their numbers */
#define MADE_ITEMS (UINT64_C(1) << 62) /* those of what others made of the chain this one */
#define NARROW_ITEMS (UINT64_C(1) << 61) /* and those of regions of as little as a read needs this one */
#define RECENT_COUNT 8

/* A layer of the chain, opened when a region first needs it. */
typedef struct ChainPart {
        char point[POINT_NAME_MAX];
        uint64_t limit; /* the smallest disk size from the newest part to this one */
        char *format, *path, *member;
        uint64_t length, seal;
        _Atomic(Layer *) layer;
} ChainPart;

struct Chain {
        _Atomic(CacheEntry *) entry; /* the chain itself, in the store's memory; its references are the chain's */
        LayerStore *store;
        uint64_t owner;    /* of its regions */
        uint64_t size;
        char *vm, *point, *disk, *capture;
        char *damage;      /* or NULL */
        char *backing;     /* what has that which was left out of the layers; or NULL */
        ChainPart *parts;  /* newest first */
        size_t part_count, part_capacity;
        /* Where narrow regions were wanted last: offsets plus one. */
        atomic_uint_fast64_t recent[RECENT_COUNT];
        atomic_uint recent_next;
        atomic_int waits;  /* how many of the next reads are taken to wait for the disk */
};

/* One of the chain's layers, opened where it is not yet. It is the chain's. */
int chain_layer(Chain *chain, size_t index, Layer **ret, Reason *reterr);

/* Whether both are in the same state and place: the same point's layers at different places have the same name. */
bool chain_extents_are_alike(const ChainExtent *a, const ChainExtent *b);

/* A region that holds offset; the caller releases it. length: what is wanted from there on, or less. */
int chain_region(Chain *chain, uint64_t offset, uint64_t length, CacheEntry **ret, Reason *reterr);
