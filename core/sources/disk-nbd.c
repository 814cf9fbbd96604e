#include "sources/disk-nbd.h"

#include <errno.h>
#include <string.h>

#include "sources/nbd-reader.h"
#include "sources/nbd-uri.h"
#include "util/text.h"

#define SECOND_MS 1000 /* how long a server may take to answer beside a connection that is there */
#define AGAIN_MAX 10   /* tries beyond the first, where a server may not have seen yet that the last connection is gone */
#define AGAIN_NS 100000000

/* How a connection is to look at the disk. */
typedef struct Look {
        const char *bitmap; /* context, the URI's; or NULL */
        bool top, ask_zero;
} Look;

typedef struct NbdSource {
        DiskSource source;
        NbdUri uri;
        SourceReader *held; /* keeps servers there that go with their last connection; or NULL */
        Look held_look;
        bool had_one;       /* there was a connection */
        bool alone;         /* one connection is all that can be had at a time */
        bool began;
        uint64_t size;
} NbdSource;

static void nbd_source_free(DiskSource *base) {
        NbdSource *source = (NbdSource *) base;

        source_reader_free(source->held);
        nbd_uri_clear(&source->uri);
        free(source);
}

static void nbd_source_freep(NbdSource **source) {
        if (*source)
                nbd_source_free(&(*source)->source);
}

static int nbd_source_open(const SourceOwner *owner, const char *disk, const char *text, DiskSource **ret, Reason *reterr) {
        CLEANUP(nbd_source_freep) NbdSource *source = calloc(1, sizeof *source);
        int rc;

        (void) owner;
        (void) disk;
        if (!source)
                return fail_oom(reterr);
        rc = nbd_uri_parse(text, &source->uri, reterr);
        if (rc < 0)
                return rc;
        *ret = &STEAL_PTR(source)->source;
        return 0;
}

static int nbd_source_settle(DiskSource *base, char **ret, Reason *reterr) {
        return nbd_uri_format(&((NbdSource *) base)->uri, ret) < 0 ? fail_oom(reterr) : 0;
}

static int open_connection(const NbdSource *source, const Look *look, unsigned connect_ms, SourceReader **ret,
                           Reason *reterr) {
        NbdAddress address = nbd_uri_address(&source->uri);

        address.bitmap = look->bitmap;
        address.ignore_zero = !look->ask_zero;
        address.top_depth = look->top ? 1 : 0;
        address.connect_ms = connect_ms;
        return nbd_reader_open(&address, source->source.owner->cancel, ret, reterr);
}

/* Where none is held. */
static int open_again(NbdSource *source, const Look *look, unsigned connect_ms, SourceReader **ret, Reason *reterr) {
        for (unsigned tries = 0;; tries++) {
                int rc = open_connection(source, look, connect_ms, ret, reterr);
                bool may_pass = rc < 0 && rc != -ECANCELED && rc != -ENODATA && rc != -ENOTSUP && rc != -ETIMEDOUT;

                if (!may_pass || !source->had_one || tries == AGAIN_MAX) {
                        source->had_one |= rc == 0;
                        return rc;
                }
                (void) nanosleep(&(struct timespec) { .tv_nsec = AGAIN_NS }, NULL);
        }
}

static bool same_look(const Look *a, const Look *b) {
        return a->bitmap == b->bitmap && a->top == b->top && a->ask_zero == b->ask_zero;
}

/* Whether another connection may be opened beside the one that is held. Some servers say that any number may, and let all
 * but the first wait without a word, as qemu-nbd does. */
static bool may_share(const NbdSource *source) {
        return source->held && source->held->multi && !source->alone;
}

/* Beside what is held, or in its place. */
static int open_beside(NbdSource *source, const Look *look, SourceReader **ret, Reason *reterr) {
        int rc = 0;

        if (may_share(source)) {
                rc = open_connection(source, look, SECOND_MS, ret, reterr);
                if (rc == 0 || rc == -ECANCELED || rc == -ENODATA)
                        return rc;
                source->alone = true;
        }
        source->held = source_reader_free(source->held);
        return open_again(source, look, 0, ret, reterr);
}

/* Holds a connection that looks so, with no moment in between that has none: some servers end with their last one. */
static int hold(NbdSource *source, const Look *look, Reason *reterr) {
        SourceReader *next;
        int rc;

        if (source->held && same_look(&source->held_look, look))
                return 0;
        rc = open_beside(source, look, &next, reterr);
        if (rc < 0)
                return rc;
        source_reader_free(source->held);
        source->held = next;
        source->held_look = *look;
        return 0;
}

static void warn_unverified(const NbdSource *source) {
        if (source->uri.tls && !source->uri.verify)
                source_warn(source->source.owner, "%s: whose certificate %s has is not verified", source->source.disk,
                            source->uri.shown);
}

/* Sees which of the bitmaps are there. */
static int look_at(NbdSource *source, Reason *reterr) {
        DiskSource *base = &source->source;
        int rc = 0;

        free(STEAL_PTR(base->bitmap));
        free(STEAL_PTR(base->checkpoint));
        if (source->uri.common.checkpoint) {
                rc = hold(source, &(Look) { .bitmap = source->uri.checkpoint_context, .ask_zero = true }, reterr);
                if (rc < 0)
                        return rc;
                base->checkpoint = strdup(source->uri.common.checkpoint);
        }
        if (source->uri.common.bitmap) {
                rc = hold(source, &(Look) { .bitmap = source->uri.bitmap_context, .ask_zero = true }, reterr);
                if (rc < 0 && rc != -ENODATA)
                        return rc;
                base->bitmap = rc == 0 ? strdup(source->uri.common.bitmap) : NULL;
                if (rc == 0 && !base->bitmap)
                        return fail_oom(reterr);
        }
        if (source->uri.common.checkpoint && !base->checkpoint)
                return fail_oom(reterr);
        return base->bitmap ? 0 : hold(source, &(Look) { .ask_zero = true }, reterr);
}

static int nbd_source_inspect(DiskSource *base, SourceDisk *ret, Reason *reterr) {
        NbdSource *source = (NbdSource *) base;
        CLEANUP(freep) char *identity = NULL;
        int rc;

        if (!source->began) {
                rc = look_at(source, reterr);
                if (rc < 0)
                        return rc;
                warn_unverified(source);
        }
        ret->tracks_changes = base->bitmap;
        if (base->bitmap)
                rc = 0;
        else if (source->uri.common.bitmap)
                rc = text_format(&ret->why_not, "its server has no bitmap %s", source->uri.common.bitmap);
        else
                rc = text_format(&ret->why_not, "its URI names no bitmap");
        if (rc < 0)
                return fail_oom(reterr);
        if (text_format(&identity, "nbd:%s", source->uri.common.image ?: source->uri.shown) < 0)
                return fail_oom(reterr);
        if (text_format(&ret->backing, "what lies below the image that %s serves", source->uri.shown) < 0)
                return fail_oom(reterr);
        return strings_add(&ret->images, identity) < 0 ? fail_oom(reterr) : 0;
}

static Look look_of(const NbdSource *source, const SourceView *view) {
        return (Look) {
                .bitmap = view->incremental ? source->uri.bitmap_context : NULL,
                .top = view->top,
                .ask_zero = view->ask_zero,
        };
}

static int nbd_source_begin(DiskSource *base, const SourceView *view, Reason *reterr) {
        CLEANUP(source_reader_freep) SourceReader *second = NULL;
        NbdSource *source = (NbdSource *) base;
        const Look look = look_of(source, view);
        int rc;

        rc = hold(source, &look, reterr);
        if (rc < 0)
                return rc == -ENODATA ? -ESTALE : rc;
        source->size = source->held->size;
        source->began = true;
        if (!may_share(source)) {
                source->alone = true;
                return 0;
        }
        rc = open_connection(source, &look, SECOND_MS, &second, NULL);
        if (rc == -ECANCELED)
                return fail(reterr, rc, "interrupted");
        source->alone = rc < 0;
        return 0;
}

/* The one that is held is given away, where no other can be had. */
static int get_reader(NbdSource *source, const Look *look, SourceReader **ret, Reason *reterr) {
        int rc;

        if (!source->held && !source->alone) /* beside others, which have been given away */
                return open_again(source, look, SECOND_MS, ret, reterr);
        if (may_share(source)) {
                rc = open_connection(source, look, SECOND_MS, ret, reterr);
                if (rc == 0 || rc == -ECANCELED)
                        return rc;
        }
        if (source->held && same_look(&source->held_look, look)) {
                *ret = STEAL_PTR(source->held);
                return 0;
        }
        source->held = source_reader_free(source->held);
        return open_again(source, look, 0, ret, reterr);
}

static int nbd_source_open_reader(DiskSource *base, const SourceView *view, SourceReader **ret, Reason *reterr) {
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        NbdSource *source = (NbdSource *) base;
        const Look look = look_of(source, view);
        int rc;

        rc = get_reader(source, &look, &reader, reterr);
        if (rc < 0)
                return rc;
        if (reader->size != source->size)
                return fail(reterr, -ESTALE, "%s has another size than when the capture began", source->uri.shown);
        reader->multi &= !source->alone;
        *ret = STEAL_PTR(reader);
        return 0;
}

static int nbd_source_end(DiskSource *base, Reason *reterr) {
        NbdSource *source = (NbdSource *) base;

        (void) reterr;
        source->held = source_reader_free(source->held);
        return 0;
}

const DiskSourceOps disk_nbd_ops = {
        .name = "nbd",
        .claims = nbd_uri_claims,
        .open = nbd_source_open,
        .settle = nbd_source_settle,
        .inspect = nbd_source_inspect,
        .begin = nbd_source_begin,
        .open_reader = nbd_source_open_reader,
        .end = nbd_source_end,
        .free = nbd_source_free,
};
