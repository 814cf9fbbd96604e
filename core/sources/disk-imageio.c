#include "sources/disk-imageio.h"

#include <errno.h>
#include <string.h>

#include "sources/imageio-connect.h"
#include "sources/imageio-extents.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/text.h"

#define READ_MAX (2u << 20)     /* longest read that is offered */
#define CHANGES_MAX (4u << 20)  /* of an extent list: 32 MiB of memory */
#define NOT_INCREMENTAL "its transfer is not that of an incremental backup"
#define IDLE_MS 5000            /* oVirt gives a transfer up that was idle for a minute */

typedef struct ImageioSource {
        DiskSource source;
        ImageioUri uri;
        ImageioOffer offer;
        ImageioConnection *connection; /* of inspection and begin; none while there are readers */
        ImageioConnection *touch;      /* that keeps an idle transfer alive; NULL: none is under way */
        bool began;
        uint64_t size;
        ImageioExtents *zero, *dirty; /* of the job, immutable while there are readers; NULL: not known */
        _Atomic size_t readers;
        atomic_uint_least64_t used; /* when something was asked last: ms, of clock_now_ms() */
} ImageioSource;

typedef struct ImageioReader {
        SourceReader reader;
        ImageioSource *source;
        ImageioConnection *connection;
        const ImageioExtents *zero, *dirty; /* the source's, as far as the view has them */
} ImageioReader;

static void imageio_free(DiskSource *base) {
        ImageioSource *source = (ImageioSource *) base;

        imageio_connection_free(source->connection);
        imageio_connection_free(source->touch);
        imageio_extents_free(source->zero);
        imageio_extents_free(source->dirty);
        imageio_uri_clear(&source->uri);
        imageio_offer_clear(&source->offer);
        free(source);
}

static void imageio_freep(ImageioSource **source) {
        if (*source)
                imageio_free(&(*source)->source);
}

static void warn(const DiskSource *base, const char *words) {
        source_warn(base->owner, "%s: %s", base->disk, words);
}

static int imageio_open(const SourceOwner *owner, const char *disk, const char *text, DiskSource **ret, Reason *reterr) {
        CLEANUP(imageio_freep) ImageioSource *source = calloc(1, sizeof *source);
        int rc;

        if (!source)
                return fail_oom(reterr);
        rc = imageio_uri_parse(text, &source->uri, reterr);
        if (rc < 0)
                return rc;
        *ret = &STEAL_PTR(source)->source;
        return 0;
}

static int imageio_settle(DiskSource *base, char **ret, Reason *reterr) {
        return imageio_uri_format(&((ImageioSource *) base)->uri, ret) < 0 ? fail_oom(reterr) : 0;
}

static int ask(ImageioSource *source, ImageioConnection *connection, const ImageioRequest *request, ImageioAnswer *ret,
               Reason *reterr) {
        int rc = imageio_request(connection, request, ret, reterr);

        atomic_store(&source->used, clock_now_ms());
        return rc < 0 ? fail_within(reterr, rc, "%s", source->uri.shown) : 0;
}

static int open_connection(ImageioSource *source, const char *local, ImageioConnection **ret, Reason *reterr) {
        return imageio_connection_new(&source->uri, local, source->source.owner->cancel, ret, reterr);
}

static int connect_source(ImageioSource *source, Reason *reterr) {
        CLEANUP(imageio_connection_freep) ImageioConnection *connection = NULL;
        CLEANUP(imageio_offer_clear) ImageioOffer offer = { 0 };
        int rc;

        rc = imageio_connect(&source->uri, source->source.owner->cancel, &connection, &offer, reterr);
        atomic_store(&source->used, clock_now_ms());
        if (rc < 0)
                return rc;
        imageio_offer_clear(&source->offer);
        source->offer = offer;
        offer = (ImageioOffer) { 0 };
        imageio_connection_free(source->connection);
        source->connection = STEAL_PTR(connection);
        return 0;
}

static int take_extents(void *context, const char *bytes, size_t length, Reason *reterr) {
        return imageio_extents_take(context, bytes, length, reterr);
}

/* *ret stays NULL where the server has no such list. */
static int get_extents(ImageioSource *source, bool dirty, ImageioExtents **ret, Reason *reterr) {
        CLEANUP(imageio_extents_freep) ImageioExtents *list = NULL;
        ImageioRequest request = {
                .method = "GET",
                .below = dirty ? "/extents?context=dirty" : "/extents?context=zero",
                .take = take_extents,
        };
        ImageioAnswer answer;
        int rc;

        if (!source->offer.extents)
                return 0;
        if (imageio_extents_new(dirty ? "dirty" : "zero", dirty, CHANGES_MAX, &list) < 0)
                return fail_oom(reterr);
        request.context = list;
        rc = ask(source, source->connection, &request, &answer, reterr);
        if (dirty && answer.status == 404)
                return 0;
        if (rc == 0) {
                rc = imageio_extents_finish(list, reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "%s", source->uri.shown);
        }
        if (rc == 0)
                *ret = STEAL_PTR(list);
        return rc;
}

static int copy_text(const char *text, char **ret) {
        free(*ret);
        *ret = text ? strdup(text) : NULL;
        return text && !*ret ? -ENOMEM : 0;
}

/* What names the disk, over tickets: as far as it is told. */
static int add_identity(const ImageioSource *source, Strings *images) {
        CLEANUP(freep) char *text = NULL;

        if (text_format(&text, "imageio:%s", source->uri.common.image ?: "") < 0)
                return -ENOMEM;
        return strings_add(images, text);
}

/* Asks the server; what is dirty is kept for the job. */
static int look(ImageioSource *source, Reason *reterr) {
        DiskSource *base = &source->source;
        int rc;

        rc = connect_source(source, reterr);
        source->dirty = imageio_extents_free(source->dirty);
        if (rc == 0 && source->uri.common.bitmap)
                rc = get_extents(source, true, &source->dirty, reterr);
        if (rc < 0)
                return rc;
        if (copy_text(source->dirty ? source->uri.common.bitmap : NULL, &base->bitmap) < 0 ||
            copy_text(source->uri.common.checkpoint, &base->checkpoint) < 0)
                return fail_oom(reterr);
        if (!source->uri.tls)
                warn(base, "http:// protects neither the ticket nor the data on their way");
        return 0;
}

static int imageio_inspect(DiskSource *base, SourceDisk *ret, Reason *reterr) {
        ImageioSource *source = (ImageioSource *) base;
        int rc = source->began ? 0 : look(source, reterr);

        if (rc < 0)
                return rc;
        ret->tracks_changes = base->bitmap;
        if (!base->bitmap)
                ret->why_not = strdup(source->uri.common.bitmap ? NOT_INCREMENTAL : "its URI names no bitmap");
        if ((!base->bitmap && !ret->why_not) || add_identity(source, &ret->images) < 0)
                return fail_oom(reterr);
        return 0;
}

/* The server's answer to the first byte says how many there are, as far as it serves them. */
static int get_total(ImageioSource *source, uint64_t *ret, Reason *reterr) {
        char byte;
        ImageioBody body = { &byte, 1, 0 };
        ImageioRequest request = imageio_body_ask(&body, 0);
        ImageioAnswer answer;
        int rc;

        rc = ask(source, source->connection, &request, &answer, reterr);
        if (rc == 0 && body.length == 0)
                rc = fail(reterr, -EPROTO, "%s: the server answers with nothing", source->uri.shown);
        if (rc == 0)
                *ret = answer.total;
        return rc;
}

/* Extents tell the size of the image, which may be on a device that is larger than the disk; ranges that of the disk. */
static int learn_size(ImageioSource *source, Reason *reterr) {
        const ImageioExtents *list = source->zero ?: source->dirty;
        uint64_t total = UINT64_MAX;
        int rc;

        source->size = list ? imageio_extents_end(list) : 0;
        if (list && source->size == 0)
                return 0;
        rc = get_total(source, &total, reterr);
        if (rc < 0)
                return rc;
        if (total == UINT64_MAX && !list)
                return fail(reterr, -EPROTO, "%s: the server does not tell the disk's size", source->uri.shown);
        if (list && total != UINT64_MAX && total > source->size)
                return fail(reterr, -EPROTO, "%s: the server's extents end at byte %llu of %llu", source->uri.shown,
                            (unsigned long long) source->size, (unsigned long long) total);
        source->size = min_u64(total, list ? source->size : UINT64_MAX);
        if (source->dirty && imageio_extents_end(source->dirty) < source->size)
                return fail(reterr, -EPROTO, "%s: the server's dirty extents end before the disk does", source->uri.shown);
        return 0;
}

static int imageio_begin(DiskSource *base, const SourceView *view, Reason *reterr) {
        ImageioSource *source = (ImageioSource *) base;
        int rc = 0;

        if (view->top)
                return fail(reterr, -ENOTSUP, "an imageio server does not tell what lies below the top image");
        if (!source->connection)
                rc = connect_source(source, reterr);
        if (!view->incremental)
                source->dirty = imageio_extents_free(source->dirty);
        else if (rc == 0 && !source->dirty)
                rc = get_extents(source, true, &source->dirty, reterr);
        if (rc == 0 && view->incremental && !source->dirty)
                rc = fail(reterr, -ESTALE, NOT_INCREMENTAL);
        source->zero = imageio_extents_free(source->zero);
        if (rc == 0 && (view->ask_zero || !source->dirty))
                rc = get_extents(source, false, &source->zero, reterr);
        if (rc == 0)
                rc = learn_size(source, reterr);
        /* The server counts connections, and so does what it reads from. */
        source->connection = imageio_connection_free(source->connection);
        source->began = rc == 0;
        return rc;
}

static void reader_free(SourceReader *base) {
        ImageioReader *reader = (ImageioReader *) base;

        imageio_connection_free(reader->connection);
        atomic_fetch_sub(&reader->source->readers, 1);
        free(reader);
}

static void reader_freep(ImageioReader **reader) {
        if (*reader)
                reader_free(&(*reader)->reader);
}

static int reader_extents(SourceReader *base, uint64_t start, uint64_t length, SourceExtents *ret, Reason *reterr) {
        CLEANUP(source_extents_clear) SourceExtents extents = { 0 };
        const ImageioReader *reader = (const ImageioReader *) base;

        for (uint64_t at = start, end = start + length; at < end;) {
                uint64_t zero_end = end, dirty_end = end;
                SourceExtent extent = { .start = at, .dirty = true };

                if (reader->zero)
                        extent.zero = imageio_extents_at(reader->zero, at, &zero_end);
                if (reader->dirty)
                        extent.dirty = imageio_extents_at(reader->dirty, at, &dirty_end);
                extent.length = min_u64(end, min_u64(zero_end, dirty_end)) - at;
                if (source_extents_add(&extents, extent) < 0)
                        return fail_oom(reterr);
                at += extent.length;
        }
        *ret = extents;
        extents = (SourceExtents) { 0 };
        return 0;
}

static int reader_read(SourceReader *base, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        ImageioReader *reader = (ImageioReader *) base;
        ImageioBody body = { buffer, length, 0 };
        ImageioRequest request = imageio_body_ask(&body, offset);
        const char *shown = reader->source->uri.shown;
        ImageioAnswer answer;
        int rc;

        if (base->lost)
                return fail(reterr, -ENOTCONN, "%s: the connection is gone", shown);
        rc = ask(reader->source, reader->connection, &request, &answer, reterr);
        base->lost = rc < 0 && answer.broken;
        if (rc == 0 && body.length < length)
                rc = fail(reterr, -EPROTO, "%s: the server answers with %zu bytes instead of %zu", shown, body.length,
                          length);
        if (rc == 0 && answer.total != UINT64_MAX && answer.total < base->size)
                rc = fail(reterr, -EPROTO, "%s: the disk has become smaller", shown);
        return rc;
}

static const SourceReaderOps reader_ops = {
        .extents = reader_extents,
        .read = reader_read,
        .free = reader_free,
};

/* One connection is left for keeping the transfer alive, where the server allows as many. */
static size_t readers_max(const ImageioSource *source) {
        return source->offer.max_readers > 1 ? source->offer.max_readers - 1 : 1;
}

static int imageio_open_reader(DiskSource *base, const SourceView *view, SourceReader **ret, Reason *reterr) {
        CLEANUP(reader_freep) ImageioReader *reader = NULL;
        CLEANUP(imageio_offer_clear) ImageioOffer offer = { 0 };
        ImageioSource *source = (ImageioSource *) base;
        int rc;

        if (atomic_load(&source->readers) >= readers_max(source))
                return fail(reterr, -EMFILE, "%s: the server allows no more than %zu connections", source->uri.shown,
                            source->offer.max_readers);
        if (view->incremental && !source->dirty)
                return fail(reterr, -EINVAL, "%s: what is dirty was not asked for", source->uri.shown);
        reader = calloc(1, sizeof *reader);
        if (!reader)
                return fail_oom(reterr);
        reader->reader = (SourceReader) {
                .ops = &reader_ops,
                .size = source->size,
                .read_max = READ_MAX,
                .multi = readers_max(source) > 1,
        };
        reader->source = source;
        reader->zero = view->ask_zero ? source->zero : NULL;
        reader->dirty = view->incremental ? source->dirty : NULL;
        atomic_fetch_add(&source->readers, 1);
        rc = open_connection(source, source->offer.local, &reader->connection, reterr);
        if (rc == 0)
                rc = imageio_get_offer(&source->uri, reader->connection, &offer, reterr);
        atomic_store(&source->used, clock_now_ms());
        if (rc < 0)
                return rc;
        *ret = &STEAL_PTR(reader)->reader;
        return 0;
}

static int take_nothing(void *context, const char *bytes, size_t length, Reason *reterr) {
        return 0;
}

static int touch(ImageioSource *source, Reason *reterr) {
        static const ImageioRequest request = { .method = "OPTIONS", .take = take_nothing };
        int rc;

        atomic_store(&source->used, clock_now_ms());
        rc = open_connection(source, source->offer.local, &source->touch, reterr);
        return rc < 0 ? rc : imageio_request_start(source->touch, &request, reterr);
}

/* oVirt gives a transfer up that is idle, as one may be while other disks are read. Nothing is waited for here. */
static int imageio_watch(DiskSource *base, Reason *reterr) {
        ImageioSource *source = (ImageioSource *) base;
        uint64_t used = atomic_load(&source->used); /* before the clock, which readers on other threads may look at next */
        bool idle = clock_now_ms() - used >= IDLE_MS;
        ImageioAnswer answer;
        int rc = 0;

        if (!source->touch) {
                if (!idle || atomic_load(&source->readers) >= source->offer.max_readers)
                        return 0;
                rc = touch(source, reterr);
        }
        if (rc == 0)
                rc = imageio_request_go_on(source->touch, 0, &answer, reterr);
        if (rc > 0)
                return 0;
        source->touch = imageio_connection_free(source->touch);
        /* Whatever else it is, readers find out if it stays. */
        return rc == -EACCES ? fail_within(reterr, rc, "%s", source->uri.shown) : 0;
}

static int imageio_end(DiskSource *base, Reason *reterr) {
        ImageioSource *source = (ImageioSource *) base;

        source->connection = imageio_connection_free(source->connection);
        source->touch = imageio_connection_free(source->touch);
        return 0;
}

const DiskSourceOps disk_imageio_ops = {
        .name = "imageio",
        .claims = imageio_uri_claims,
        .open = imageio_open,
        .settle = imageio_settle,
        .inspect = imageio_inspect,
        .begin = imageio_begin,
        .open_reader = imageio_open_reader,
        .watch = imageio_watch,
        .end = imageio_end,
        .free = imageio_free,
};
