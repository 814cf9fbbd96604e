#include "sources/nbd-reader.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "libraries/libnbd-functions.h"
#include "sources/nbd-contexts.h"
#include "util/bytes.h"

#define PATIENCE_MS 60000u
#define CANCEL_POLL_MS 200u
#define ADDRESS_MAX 256             /* bytes, NUL included, of what is shown */
#define READ_MAX (2u << 20)         /* longest read that is offered */
#define PIECE_SIZE (256u << 10)     /* requests that a read consists of, all in flight at once */
#define PIECES_MAX (READ_MAX / PIECE_SIZE)
#define MINIMUM_LIMIT (64u << 10)   /* the protocol allows no larger minimum block */
#define DEPTH_CONTEXT "qemu:allocation-depth"
#define STATUS_MAX (UINT64_C(2) << 30) /* range of one block status request; the protocol ends below 4 GiB */

typedef struct NbdReader {
        SourceReader reader;
        struct nbd_handle *nbd; /* NULL once the connection is of no use: an answer might still come */
        const atomic_bool *cancel;
        unsigned patience_ms;
        uint64_t minimum, maximum; /* of a request, bytes; minimum is a power of two */
        char *bitmap;
        void *bounce;              /* for reads that the server wants wider; NULL until needed */
        bool ignore_zero;
        unsigned top_depth;
        NbdContext allocation, dirty, depth;
        uint64_t asked;            /* by the block status request in flight */
} NbdReader;

static void reader_free(SourceReader *base) {
        NbdReader *reader = (NbdReader *) base;

        nbd_close(reader->nbd);
        nbd_context_clear(&reader->allocation);
        nbd_context_clear(&reader->dirty);
        nbd_context_clear(&reader->depth);
        free(reader->bitmap);
        free(reader->bounce);
        free(reader);
}

static void reader_freep(NbdReader **reader) {
        if (*reader)
                reader_free(&(*reader)->reader);
}

/* libnbd puts its function's name in front of its words. */
static const char *nbd_words(void) {
        const char *words = nbd_get_error() ?: "no reason given", *colon = strstr(words, ": ");

        return colon && strncmp(words, "nbd_", 4) == 0 ? colon + 2 : words;
}

static int nbd_code(int otherwise) {
        int code = nbd_get_errno();

        return code > 0 ? -code : otherwise;
}

/* Ends the connection: buffers given to a request that is still open may be reused afterwards. */
static int give_up(NbdReader *reader, int rc) {
        nbd_close(reader->nbd);
        reader->nbd = NULL;
        reader->reader.lost = true;
        return rc;
}

/* Waits once for the server: returns 0 when something has moved. */
static int wait_for_server(NbdReader *reader, unsigned *silent_ms, Reason *reterr) {
        unsigned direction = nbd_aio_get_direction(reader->nbd);
        struct pollfd fd = { .fd = nbd_aio_get_fd(reader->nbd) };
        unsigned step = (unsigned) min_u64(CANCEL_POLL_MS, reader->patience_ms);
        int rc = 0;

        if (reader->cancel && atomic_load(reader->cancel))
                return give_up(reader, fail(reterr, -ECANCELED, "canceled"));
        fd.events = (short) ((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                             (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
        rc = poll(&fd, 1, (int) step);
        if (rc < 0 && errno != EINTR)
                return give_up(reader, fail_errno(reterr, -errno, "cannot wait for the NBD server"));
        if (rc <= 0) {
                *silent_ms += rc == 0 ? step : 0;
                if (*silent_ms >= reader->patience_ms)
                        return give_up(reader, fail(reterr, -ETIMEDOUT, "the NBD server has said nothing for %u seconds",
                                                    (reader->patience_ms + 999) / 1000));
                return 0;
        }
        *silent_ms = 0;
        /* A closed connection is found by reading. */
        if ((direction & LIBNBD_AIO_DIRECTION_READ) && (fd.revents & (POLLIN | POLLHUP | POLLERR | POLLNVAL)))
                rc = nbd_aio_notify_read(reader->nbd);
        else
                rc = nbd_aio_notify_write(reader->nbd);
        if (rc < 0) {
                rc = nbd_code(-EIO);
                fail(reterr, rc, "the connection to the NBD server broke: %s", nbd_words());
                return give_up(reader, rc);
        }
        return 0;
}

/* Waits for the answer to the request of this cookie (negative: it was not even sent). */
static int finish_request(NbdReader *reader, int64_t cookie, const char *what, Reason *reterr) {
        unsigned silent_ms = 0;
        int rc;

        while (cookie >= 0) {
                rc = nbd_aio_command_completed(reader->nbd, (uint64_t) cookie);
                if (rc > 0)
                        return 0;
                if (rc < 0)
                        break;
                rc = wait_for_server(reader, &silent_ms, reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "%s", what);
        }
        rc = nbd_code(-EIO);
        fail(reterr, rc, "%s: %s", what, nbd_words());
        /* An error that the server answered leaves the connection as good as it was. */
        if (nbd_aio_is_ready(reader->nbd) > 0 || nbd_aio_is_processing(reader->nbd) > 0)
                return rc;
        return give_up(reader, rc);
}

static int connection_lost(Reason *reterr) {
        return fail(reterr, -ENOTCONN, "the connection to the NBD server is gone");
}

static int take_extents(void *data, const char *context, uint64_t offset, uint32_t *entries, size_t words, int *error) {
        NbdReader *reader = data;
        NbdContext *into = NULL;
        int rc;

        if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0)
                into = &reader->allocation;
        else if (reader->bitmap && strcmp(context, reader->bitmap) == 0)
                into = &reader->dirty;
        else if (strcmp(context, DEPTH_CONTEXT) == 0)
                into = &reader->depth;
        else
                return 0;
        rc = nbd_context_take(into, entries, words, reader->asked);
        if (rc < 0)
                *error = -rc;
        return rc < 0 ? -1 : 0;
}

/* One block status request for [start, start + length), whose answer lands in the reader's contexts. */
static int ask_status(NbdReader *reader, uint64_t start, uint64_t length, Reason *reterr) {
        int64_t cookie;

        reader->allocation.count = reader->dirty.count = reader->depth.count = 0;
        reader->allocation.covered = reader->dirty.covered = reader->depth.covered = 0;
        reader->asked = length;
        cookie = nbd_aio_block_status(reader->nbd, length, start,
                                      (nbd_extent_callback) { .callback = take_extents, .user_data = reader },
                                      NBD_NULL_COMPLETION, 0);
        return finish_request(reader, cookie, "cannot get extents", reterr);
}

/* Cuts what alignment to the server's minimum block added at both ends. */
static void cut_to(SourceExtents *extents, uint64_t start, uint64_t end) {
        size_t kept = 0;

        for (size_t i = 0; i < extents->count; i++) {
                SourceExtent e = extents->items[i];
                uint64_t from = max_u64(e.start, start), to = min_u64(e.start + e.length, end);

                if (from >= to)
                        continue;
                e.start = from;
                e.length = to - from;
                extents->items[kept++] = e;
        }
        extents->count = kept;
}

static int reader_extents(SourceReader *base, uint64_t start, uint64_t length, SourceExtents *ret, Reason *reterr) {
        CLEANUP(source_extents_clear) SourceExtents extents = { 0 };
        NbdReader *reader = (NbdReader *) base;
        uint64_t at = round_down(start, reader->minimum);
        uint64_t end = min_u64(round_up(start + length, reader->minimum), base->size);
        const NbdContexts contexts = {
                .allocation = reader->ignore_zero ? NULL : &reader->allocation,
                .dirty = reader->bitmap ? &reader->dirty : NULL,
                .depth = reader->top_depth ? &reader->depth : NULL,
                .top_depth = reader->top_depth,
        };
        bool asks = contexts.allocation || contexts.dirty || contexts.depth;
        int rc = 0;

        if (!reader->nbd)
                return connection_lost(reterr);
        while (at < end) {
                uint64_t asked = min_u64(end - at, STATUS_MAX), covered;

                if (asks)
                        rc = ask_status(reader, at, asked, reterr);
                if (rc < 0)
                        return rc;
                rc = nbd_contexts_intersect(&contexts, at, asked, &extents, &covered);
                if (rc < 0)
                        return fail_oom(reterr);
                if (covered == 0)
                        return fail(reterr, -EPROTO, "the NBD server answers a request for extents with none");
                at += covered;
        }
        cut_to(&extents, start, start + length);
        *ret = extents;
        extents = (SourceExtents) { 0 };
        return 0;
}

/* Bytes that lie as the server wants them: in several requests that are in flight together. */
static int read_aligned(NbdReader *reader, uint8_t *to, uint64_t length, uint64_t offset, Reason *reterr) {
        uint64_t piece = min_u64(reader->maximum, max_u64(PIECE_SIZE, reader->minimum));
        int64_t cookies[PIECES_MAX];

        while (length > 0) {
                size_t count = 0;
                int first_rc = 0;

                for (; count < PIECES_MAX && length > 0 && (count == 0 || cookies[count - 1] >= 0); count++) {
                        uint64_t part = min_u64(piece, length);

                        cookies[count] = nbd_aio_pread(reader->nbd, to, part, offset, NBD_NULL_COMPLETION, 0);
                        to += part;
                        offset += part;
                        length -= part;
                }
                /* All of them end before the buffer is given back, or the connection does. */
                for (size_t i = 0; i < count && reader->nbd; i++) {
                        Reason reason = REASON_INIT;
                        int rc = finish_request(reader, cookies[i], "cannot read", &reason);

                        if (rc < 0 && first_rc == 0 && reterr)
                                *reterr = reason;
                        if (rc < 0 && first_rc == 0)
                                first_rc = rc;
                }
                if (first_rc < 0)
                        return first_rc;
        }
        return 0;
}

static int reader_read(SourceReader *base, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        NbdReader *reader = (NbdReader *) base;
        uint8_t *to = buffer;
        int rc;

        while (length > 0) {
                uint64_t start = round_down(offset, reader->minimum);
                uint64_t got = offset + length == base->size ? length : round_down(length, reader->minimum);

                if (!reader->nbd)
                        return connection_lost(reterr);
                if (start == offset && got > 0) {
                        rc = read_aligned(reader, to, got, offset, reterr);
                } else { /* a part of a block, of which the server gives all or nothing */
                        uint64_t whole = min_u64(reader->minimum, base->size - start);

                        if (!reader->bounce)
                                reader->bounce = malloc(reader->minimum);
                        if (!reader->bounce)
                                return fail_oom(reterr);
                        rc = read_aligned(reader, reader->bounce, whole, start, reterr);
                        got = min_u64(start + whole - offset, length);
                        if (rc == 0)
                                memcpy(to, (uint8_t *) reader->bounce + (offset - start), got);
                }
                if (rc < 0)
                        return rc;
                to += got;
                offset += got;
                length -= got;
        }
        return 0;
}

static const SourceReaderOps nbd_reader_ops = {
        .extents = reader_extents,
        .read = reader_read,
        .free = reader_free,
};

static int prepare(NbdReader *reader, const NbdAddress *address, Reason *reterr) {
        struct nbd_handle *nbd = reader->nbd = nbd_create();

        if (!nbd)
                return fail(reterr, nbd_code(-ENOMEM), "cannot use libnbd: %s", nbd_words());
        /* Alignment is seen to here: the last bytes of a disk may be less than the server's minimum block. */
        if (nbd_set_export_name(nbd, address->export_name) < 0 ||
            (!reader->ignore_zero && nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0) ||
            (reader->bitmap && nbd_add_meta_context(nbd, reader->bitmap) < 0) ||
            (reader->top_depth && nbd_add_meta_context(nbd, DEPTH_CONTEXT) < 0) ||
            nbd_set_pread_initialize(nbd, false) < 0 ||
            nbd_set_strict_mode(nbd, nbd_get_strict_mode(nbd) & ~(uint32_t) LIBNBD_STRICT_ALIGN) < 0)
                return fail(reterr, nbd_code(-EINVAL), "cannot set up the NBD connection: %s", nbd_words());
        return 0;
}

static bool has_authority(const char *directory, const char *below) {
        CLEANUP(freep) char *path = NULL;

        if (asprintf(&path, "%s%s/ca-cert.pem", directory, below) < 0) {
                path = NULL;
                return false;
        }
        return access(path, R_OK) == 0;
}

bool nbd_has_certificates(const char *directory) {
        const char *home = getenv("HOME");

        if (directory)
                return has_authority(directory, "");
        if (geteuid() != 0 && home && (has_authority(home, "/.pki/libnbd") || has_authority(home, "/.config/pki/libnbd")))
                return true;
        return has_authority("/etc/pki/libnbd", "");
}

static int start_connecting(NbdReader *reader, const NbdAddress *address) {
        struct nbd_handle *nbd = reader->nbd;
        char port[16];

        if (address->tls && (nbd_set_tls(nbd, LIBNBD_TLS_REQUIRE) < 0 ||
                             nbd_set_tls_verify_peer(nbd, !address->unverified) < 0 ||
                             (address->certificates && nbd_set_tls_certificates(nbd, address->certificates) < 0) ||
                             (address->psk_file && nbd_set_tls_psk_file(nbd, address->psk_file) < 0) ||
                             (address->user && nbd_set_tls_username(nbd, address->user) < 0)))
                return -1;
        if (address->socket_path)
                return nbd_aio_connect_unix(nbd, address->socket_path);
        snprintf(port, sizeof port, "%u", address->port);
        return nbd_aio_connect_tcp(nbd, address->host, port);
}

/* The address for people. */
static void show_address(const NbdAddress *address, char text[static ADDRESS_MAX]) {
        if (address->socket_path)
                snprintf(text, ADDRESS_MAX, "%s", address->socket_path);
        else
                snprintf(text, ADDRESS_MAX, "%s port %u", address->host, address->port);
}

static int connect_to(NbdReader *reader, const NbdAddress *address, Reason *reterr) {
        char shown[ADDRESS_MAX];
        unsigned silent_ms = 0;
        int rc;

        show_address(address, shown);
        /* libnbd 1.14 verifies nothing where it finds no authority to verify by (CVE-2024-7383). */
        if (address->tls && !address->unverified && !address->psk_file && !nbd_has_certificates(address->certificates))
                return fail(reterr, -ENOKEY, "cannot verify the NBD server at %s: there is no ca-cert.pem in %s", shown,
                            address->certificates ?: "/etc/pki/libnbd");
        rc = start_connecting(reader, address);
        while (rc >= 0 && nbd_aio_is_connecting(reader->nbd) > 0) {
                rc = wait_for_server(reader, &silent_ms, reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "cannot connect to the NBD server at %s", shown);
        }
        if (rc >= 0 && nbd_aio_is_ready(reader->nbd) > 0)
                return 0;
        rc = nbd_code(-ECONNREFUSED);
        if (rc == -ENOENT) /* callers take that for a VM that is not there */
                rc = -ECONNREFUSED;
        return fail(reterr, rc, "cannot connect to the NBD server at %s: %s", shown, nbd_words());
}

/* What the server said of the export, checked. */
static int learn(NbdReader *reader, const NbdAddress *address, Reason *reterr) {
        struct nbd_handle *nbd = reader->nbd;
        int64_t size = nbd_get_size(nbd);
        int64_t minimum = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);
        int64_t maximum = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);

        /* libnbd 1.14 passes a size past INT64_MAX on as a negative number that is no error (CVE-2023-5215). */
        if (size < 0)
                return fail(reterr, -EPROTO, "the NBD server says no size of export %s that could be", address->export_name);
        if (nbd_can_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) <= 0)
                reader->ignore_zero = true;
        if (reader->bitmap && nbd_can_meta_context(nbd, reader->bitmap) <= 0)
                return fail(reterr, -ENODATA, "the NBD server has no bitmap %s for export %s", reader->bitmap,
                            address->export_name);
        if (reader->top_depth && nbd_can_meta_context(nbd, DEPTH_CONTEXT) <= 0)
                return fail(reterr, -ENOTSUP, "the NBD server does not tell what of export %s lies in backing files "
                                              "(" DEPTH_CONTEXT ")", address->export_name);
        if (minimum <= 0)
                minimum = 1;
        if (maximum <= 0 || maximum > READ_MAX)
                maximum = READ_MAX;
        if (!is_power_of_2((uint64_t) minimum) || minimum > MINIMUM_LIMIT || maximum < minimum)
                return fail(reterr, -EPROTO, "the NBD server wants requests of at least %lld and at most %lld bytes",
                            (long long) minimum, (long long) maximum);
        reader->minimum = (uint64_t) minimum;
        reader->maximum = round_down((uint64_t) maximum, reader->minimum);
        reader->reader.size = (uint64_t) size;
        reader->reader.read_max = READ_MAX;
        reader->reader.multi = nbd_can_multi_conn(nbd) > 0;
        return 0;
}

int nbd_reader_open(const NbdAddress *address, const atomic_bool *cancel, SourceReader **ret, Reason *reterr) {
        CLEANUP(reader_freep) NbdReader *reader = NULL;
        unsigned patience_ms;
        int rc;

        rc = libnbd_load(reterr);
        if (rc < 0)
                return rc;
        reader = calloc(1, sizeof *reader);
        if (!reader)
                return fail_oom(reterr);
        reader->reader.ops = &nbd_reader_ops;
        reader->cancel = cancel;
        reader->patience_ms = address->patience_ms ?: PATIENCE_MS;
        reader->ignore_zero = address->ignore_zero;
        reader->top_depth = address->top_depth;
        if (address->bitmap) {
                reader->bitmap = strdup(address->bitmap);
                if (!reader->bitmap)
                        return fail_oom(reterr);
        }
        rc = prepare(reader, address, reterr);
        if (rc < 0)
                return rc;
        patience_ms = reader->patience_ms;
        if (address->connect_ms > 0)
                reader->patience_ms = (unsigned) min_u64(patience_ms, address->connect_ms);
        rc = connect_to(reader, address, reterr);
        if (rc < 0)
                return rc;
        reader->patience_ms = patience_ms;
        rc = learn(reader, address, reterr);
        if (rc < 0)
                return rc;
        *ret = &STEAL_PTR(reader)->reader;
        return 0;
}
