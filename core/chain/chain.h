/* core/chain/chain.h - a disk at a restore point: its layers, flattened.
 *
 * The map of a chain is its layers newest first, until covered; it is made region by region as it is asked for,
 * kept in the repository's cache, and shared by all who have the point open. The cost of a read does not grow with
 * the length of the chain. Layers are opened when a region first needs them.
 * What no layer covers (a lost parent) is an error to read, never zeroes.
 * Threads: any number of threads may use a chain at once. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "extent/extent-map.h"
#include "repository/manifest.h"
#include "util/cache.h"
#include "util/cleanup.h"
#include "util/reason.h"

typedef struct Chain Chain;

typedef struct ChainExtent {
        uint64_t start, length; /* bytes */
        ExtentState state;      /* EXTENT_UNREADABLE also for what a lost or damaged layer should hold */
        const char *point;      /* whose layer holds it; borrowed from the chain; NULL: lost */
} ChainExtent;

/* Loads the manifests of the point and its ancestors. A damaged or missing ancestor does not fail this: chain_damage()
 * tells. -ENOENT: no such point or disk; -EBADMSG: the point's own manifest is damaged.
 * The chain is shared: opening the same disk again while it is open, or still in the cache, gives the same one. vm may
 * go before it. */
int chain_open(Vm *vm, const char *point, const char *disk, Chain **ret, Reason *reterr);
Chain *chain_unref(Chain *chain); /* always NULL */
DEFINE_CLEANUP(Chain, chain_unref)

uint64_t chain_size(const Chain *chain);      /* bytes */
size_t chain_layer_count(const Chain *chain);
bool chain_is_same_disk(const Chain *a, const Chain *b); /* at whatever points */
const char *chain_damage(const Chain *chain); /* NULL where all ancestors are there */

/* The extent that holds offset (< size), as far as one region tells: its start <= offset, and neighbours in the same
 * state may follow. Fails only without memory. */
int chain_extent_at(Chain *chain, uint64_t offset, ChainExtent *ret, Reason *reterr);

/* The same, but as far as a wider piece of the disk tells: for walks over the disk, which would else flatten it region by
 * region. */
int chain_wide_extent_at(Chain *chain, uint64_t offset, ChainExtent *ret, Reason *reterr);

/* As above, with all neighbours behind it of the same state and point joined. Walks a whole disk:
 * for (offset = 0; offset < size; offset = e.start + e.length). */
int chain_next_extent(Chain *chain, uint64_t offset, ChainExtent *ret, Reason *reterr);

/* Reads [offset, offset + length), which lies within the disk. All of it or an error: -EIO where any byte is
 * unreadable, lost or damaged; the reason then names the file and the block. */
int chain_read(Chain *chain, void *buffer, size_t length, uint64_t offset, Reason *reterr);

/* Whether the range reads as zeroes, as far as the map tells. 1, 0 or a negative errno. */
int chain_is_zero(Chain *chain, uint64_t offset, size_t length);


/* What others make of the chain, such as its partitions, stays in the repository's cache as long as the chain does. kind: a
 * number of theirs. As cache_get(). */
int chain_get_made(Chain *chain, uint32_t kind, const CacheLoader *loader, void *context, CacheEntry **ret, Reason *reterr);
