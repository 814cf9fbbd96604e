#include "formats/virtnbdbackup/lz4-reader.h"

#include <errno.h>
#include <string.h>

#include "formats/virtnbdbackup/lz4-landmark.h"
#include "util/bytes.h"
#include "util/scratch.h"

#define PIECE_SIZE (512u << 10) /* bytes: a place in the cache takes an eighth of it */
#define PIECES_MAX 128u         /* of a frame: finding a place goes back this many steps at most */
#define LANDMARK_PIECES 4u      /* from one to the next: they take some 80th of what they lie in, a 32nd at most */
#define TRAIL_PIECES 8u         /* who comes no farther behind another goes on from his places */

typedef struct Request {
        ByteStore *bytes;
        const Memory *memory;
        const Run *run;
        unsigned char *to; /* where a piece that is passed on the way belongs; or NULL */
        unsigned number;   /* of that piece */
        bool done;
        bool keeps; /* pieces that are read in parts are kept */
} Request;

/* Bytes of each piece of a frame but the last. Whole blocks. */
static size_t piece_size(const Lz4Header *header) {
        uint64_t least = max_u64(PIECE_SIZE, divide_up(header->content, PIECES_MAX));

        return (size_t) round_up(least, header->block_size);
}

static size_t piece_length(const Lz4Header *header, unsigned number) {
        uint64_t size = piece_size(header);

        return (size_t) min_u64(size, header->content - number * size);
}

static int get_place(Request *request, unsigned number, CacheEntry **ret, Reason *reterr);
static int get_landmark(Request *request, unsigned number, CacheEntry **ret, Reason *reterr);

/* From the place before a piece to that behind it. */
static int step(Request *request, const Lz4Place *from, unsigned piece, Lz4Place **ret, Reason *reterr) {
        bool wanted = request->to && request->number == piece;
        unsigned char *to = wanted ? request->to : scratch_get(SCRATCH_PIECE, piece_size(&from->header));
        int rc;

        if (!to)
                return fail_oom(reterr);
        rc = lz4_unpack(request->bytes, request->run, from, to, piece_length(&from->header, piece), ret, reterr);
        request->done |= wanted && rc == 0;
        return rc;
}

/* The place before a piece, by way of a landmark that lies before it. The caller frees *ret. */
static int approach(Request *request, unsigned landmark, unsigned number, Lz4Place **ret, Reason *reterr) {
        CLEANUP(cache_releasep) CacheEntry *cached = NULL;
        CLEANUP(freep) Lz4Place *at = NULL;
        int rc = get_landmark(request, landmark, &cached, reterr);

        if (rc >= 0)
                rc = lz4_landmark_place(cache_value(cached), &at, reterr);
        for (unsigned piece = landmark * LANDMARK_PIECES; rc >= 0 && piece < number; piece++) {
                Lz4Place *next = NULL;

                rc = step(request, at, piece, &next, reterr);
                free(at);
                at = next;
        }
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(at);
        return 0;
}

static int load_landmark(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        Request *request = context;
        unsigned number = memory_key_number(key);
        CLEANUP(freep) Lz4Place *place = NULL;
        Lz4Landmark *landmark;
        int rc;

        rc = number == 0 ? lz4_place_begin(request->bytes, request->run, &place, reterr)
                         : approach(request, number - 1, number * LANDMARK_PIECES, &place, reterr);
        if (rc >= 0)
                rc = lz4_landmark_new(place, &landmark, reterr);
        if (rc < 0)
                return rc;
        *ret = landmark;
        *ret_cost = lz4_landmark_size(landmark);
        return 0;
}

static const CacheLoader landmark_loader = { load_landmark, free };

static int get_landmark(Request *request, unsigned number, CacheEntry **ret, Reason *reterr) {
        CacheKey key = memory_key(request->memory, MEMORY_LANDMARK, request->run->offset, number);

        return cache_get(request->memory->cache, key, &landmark_loader, request, ret, reterr);
}

static CacheKey place_key(const Request *request, unsigned number) {
        return memory_key(request->memory, MEMORY_PLACE, request->run->offset, number);
}

/* Whether somebody has left a place not far before, or is about to. That at the beginning is always there. */
static bool is_on_a_trail(const Request *request, unsigned number) {
        for (unsigned back = 1; back <= TRAIL_PIECES && back < number; back++)
                if (cache_has(request->memory->cache, place_key(request, number - back)))
                        return true;
        return false;
}

static int follow_trail(Request *request, unsigned number, Lz4Place **ret, Reason *reterr) {
        CLEANUP(cache_releasep) CacheEntry *before = NULL;
        int rc = get_place(request, number - 1, &before, reterr);

        return rc < 0 ? rc : step(request, cache_value(before), number - 1, ret, reterr);
}

static int load_place(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        Request *request = context;
        unsigned number = memory_key_number(key);
        Lz4Place *place = NULL;
        int rc;

        if (number == 0)
                rc = lz4_place_begin(request->bytes, request->run, &place, reterr);
        else
                rc = is_on_a_trail(request, number) ? follow_trail(request, number, &place, reterr)
                                                    : approach(request, number / LANDMARK_PIECES, number, &place, reterr);
        if (rc < 0)
                return rc;
        *ret = place;
        *ret_cost = sizeof *place + place->dictionary_length;
        return 0;
}

static const CacheLoader place_loader = { load_place, free };

/* The place before a piece of this number. */
static int get_place(Request *request, unsigned number, CacheEntry **ret, Reason *reterr) {
        return cache_get(request->memory->cache, place_key(request, number), &place_loader, request, ret, reterr);
}

/* A whole piece. The place behind it is made in one go with it, once for all who need either. */
static int unpack_piece(const Request *like, const Lz4Header *header, unsigned number, unsigned char *to, Reason *reterr) {
        Request request = { .bytes = like->bytes, .memory = like->memory, .run = like->run, .to = to, .number = number };
        CLEANUP(cache_releasep) CacheEntry *next = NULL, *place = NULL;
        size_t length = piece_length(header, number);
        int rc;

        if (number * (uint64_t) piece_size(header) + length < header->content) {
                rc = get_place(&request, number + 1, &next, reterr);
                if (rc < 0 || request.done)
                        return rc;
        }
        rc = get_place(&request, number, &place, reterr);
        return rc < 0 ? rc : lz4_unpack(request.bytes, request.run, cache_value(place), to, length, NULL, reterr);
}

typedef struct PieceRequest {
        Request *request;
        const Lz4Header *header;
} PieceRequest;

static int load_piece(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        const PieceRequest *piece = context;
        unsigned number = memory_key_number(key);
        size_t length = piece_length(piece->header, number);
        CLEANUP(freep) unsigned char *bytes = malloc(length);
        int rc;

        if (!bytes)
                return fail_oom(reterr);
        rc = unpack_piece(piece->request, piece->header, number, bytes, reterr);
        if (rc < 0)
                return rc;
        *ret_cost = length;
        *ret = STEAL_PTR(bytes);
        return 0;
}

static const CacheLoader piece_loader = { load_piece, free };

/* [start, end) of a piece, unpacked as far as that: also where what lies behind is damaged. Who reads here and there leaves
 * no trail, but landmarks. */
static int read_part(Request *request, const Lz4Header *header, unsigned number, void *buffer, size_t start,
                     size_t end, Reason *reterr) {
        size_t length = (size_t) min_u64(round_up(end, header->block_size), piece_length(header, number));
        CLEANUP(cache_releasep) CacheEntry *cached = NULL;
        CLEANUP(freep) Lz4Place *approached = NULL;
        unsigned char *bytes;
        int rc;

        rc = is_on_a_trail(request, number) ? get_place(request, number, &cached, reterr)
                                            : approach(request, number / LANDMARK_PIECES, number, &approached, reterr);
        if (rc < 0)
                return rc;
        bytes = scratch_get(SCRATCH_PIECE, piece_size(header));
        if (!bytes)
                return fail_oom(reterr);
        rc = lz4_unpack(request->bytes, request->run, approached ?: cache_value(cached), bytes, length, NULL, reterr);
        if (rc < 0)
                return rc;
        memcpy(buffer, bytes + start, end - start);
        return 0;
}

/* [start, end) of a piece. */
static int read_piece(Request *request, const Lz4Header *header, unsigned number, void *buffer, size_t start, size_t end,
                      Reason *reterr) {
        CacheKey key = memory_key(request->memory, MEMORY_PIECE, request->run->offset, number);
        PieceRequest piece = { request, header };
        CLEANUP(cache_releasep) CacheEntry *cached = NULL;
        int rc;

        if (start == 0 && end == piece_length(header, number))
                return unpack_piece(request, header, number, buffer, reterr);
        rc = request->keeps ? cache_get(request->memory->cache, key, &piece_loader, &piece, &cached, reterr) : -EIO;
        if (rc == -EIO)
                return read_part(request, header, number, buffer, start, end, reterr);
        if (rc < 0)
                return rc;
        memcpy(buffer, (const unsigned char *) cache_value(cached) + start, end - start);
        return 0;
}

int lz4_read(ByteStore *bytes, const Memory *memory, const Run *run, void *buffer, size_t length, uint64_t offset,
             bool keeps, Reason *reterr) {
        Request request = { .bytes = bytes, .memory = memory, .run = run, .keeps = keeps };
        CLEANUP(cache_releasep) CacheEntry *begin = NULL;
        const Lz4Header *header;
        uint64_t size, end = offset + length;
        int rc;

        rc = get_place(&request, 0, &begin, reterr);
        if (rc < 0)
                return rc;
        header = &((const Lz4Place *) cache_value(begin))->header;
        size = piece_size(header);
        for (uint64_t at = offset; at < end;) {
                uint64_t number = at / size, piece = number * size, part = min_u64(end, piece + size);

                rc = read_piece(&request, header, (unsigned) number, (unsigned char *) buffer + (at - offset),
                                (size_t) (at - piece), (size_t) (part - piece), reterr);
                if (rc < 0)
                        return rc;
                at = part;
        }
        return 0;
}
