/* core/restore/target-imageio.c - a disk behind an oVirt imageio server: PUT of data, PATCH for zeroes and to flush. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "restore/target-kinds.h"
#include "sources/imageio-connect.h"
#include "util/bytes.h"

#define CONNECTIONS_MAX 4
#define ZERO_MAX (UINT64_C(128) << 20) /* bytes of one request: some storage writes them one by one */
#define TRIES_MAX 3                    /* of a request that another connection may do better at: all can be repeated */

typedef struct ImageioTarget {
        DiskTarget target;
        ImageioUri uri;
        ImageioOffer offer;
        _Atomic(ImageioConnection *) first; /* by which it was looked at; NULL once it is in use */
} ImageioTarget;

static bool imageio_claims(const TargetRequest *request) {
        return imageio_uri_claims(request->name);
}

static void imageio_close(DiskTarget *base, bool keep) {
        ImageioTarget *target = (ImageioTarget *) base;

        (void) keep;
        imageio_connection_free(target->first);
        imageio_offer_clear(&target->offer);
        imageio_uri_clear(&target->uri);
        free(target);
}

static int ask(const ImageioTarget *target, ImageioConnection *connection, const ImageioRequest *request,
               ImageioAnswer *answer, Reason *reterr) {
        int rc;

        for (unsigned tries = 1;; tries++) {
                rc = imageio_request(connection, request, answer, reterr);
                if (rc == 0 || rc == -ECANCELED || rc == -ETIMEDOUT || rc == -ENOMEM || !answer->broken ||
                    tries == TRIES_MAX || request->take)
                        break;
        }
        return rc < 0 ? fail_within(reterr, rc, "%s", target->uri.shown) : 0;
}

static int get(const ImageioTarget *target, ImageioConnection *connection, void *buffer, size_t length, uint64_t offset,
               uint64_t *ret_total, Reason *reterr) {
        ImageioBody body = { buffer, length, 0 };
        ImageioRequest request = imageio_body_ask(&body, offset);
        ImageioAnswer answer;
        int rc = ask(target, connection, &request, &answer, reterr);

        if (rc == 0 && body.length < length)
                rc = fail(reterr, -EPROTO, "%s: the server answers with less than was asked for", target->uri.shown);
        if (rc == 0)
                *ret_total = answer.total;
        return rc;
}

/* Looks at the server and at how large the disk is that it has. */
static int imageio_open(DiskTarget *base, const TargetRequest *request, Reason *reterr) {
        ImageioTarget *target = (ImageioTarget *) base;
        ImageioConnection *connection;
        char byte;
        int rc;

        base->in_place = true;
        rc = imageio_uri_parse(request->name, &target->uri, reterr);
        if (rc == 0)
                rc = disk_uri_refuse_captured(&target->uri.common, target->uri.shown, reterr);
        if (rc < 0)
                return rc;
        if (!target->uri.tls && request->tell)
                request->tell(request->context, "http:// protects neither the ticket nor the data on their way");
        rc = imageio_connect(&target->uri, request->cancel, &connection, &target->offer, reterr);
        if (rc < 0)
                return rc;
        target->first = connection;
        base->shown = strdup(target->uri.shown);
        if (!base->shown)
                return fail_oom(reterr);
        rc = get(target, connection, &byte, 1, 0, &base->size, reterr);
        if (rc == 0 && base->size == UINT64_MAX)
                return fail(reterr, -EPROTO, "%s: the server does not tell the disk's size", target->uri.shown);
        base->connections_max = (unsigned) min_u64(CONNECTIONS_MAX, target->offer.max_writers);
        return rc;
}

static int imageio_connect_again(DiskTarget *base, void **ret, Reason *reterr) {
        ImageioTarget *target = (ImageioTarget *) base;
        ImageioConnection *connection = atomic_exchange(&target->first, NULL);
        int rc = 0;

        if (!connection)
                rc = imageio_connection_new(&target->uri, target->offer.local, base->cancel, &connection, reterr);
        if (rc == 0)
                *ret = connection;
        return rc;
}

static void imageio_disconnect(DiskTarget *base, void *connection) {
        (void) base;
        imageio_connection_free(connection);
}

static int imageio_write(DiskTarget *base, void *connection, const void *buffer, size_t length, uint64_t offset,
                         Reason *reterr) {
        const ImageioTarget *target = (const ImageioTarget *) base;
        ImageioRequest request = {
                .method = "PUT",
                .below = target->offer.flush ? "?flush=n" : NULL, /* else each is flushed by itself */
                .start = offset,
                .length = length,
                .body = buffer,
                .body_length = length,
                .body_type = "application/octet-stream",
        };
        ImageioAnswer answer;

        return ask(target, connection, &request, &answer, reterr);
}

static int patch(const ImageioTarget *target, ImageioConnection *connection, const char *what, Reason *reterr) {
        ImageioRequest request = {
                .method = "PATCH",
                .body = what,
                .body_length = strlen(what),
                .body_type = "application/json",
        };
        ImageioAnswer answer;

        return ask(target, connection, &request, &answer, reterr);
}

static int imageio_zero(DiskTarget *base, void *connection, uint64_t length, uint64_t offset, Reason *reterr) {
        const ImageioTarget *target = (const ImageioTarget *) base;
        int rc = target->offer.zero ? 0 : -EOPNOTSUPP;

        while (rc == 0 && length > 0) {
                uint64_t part = min_u64(length, ZERO_MAX);
                char what[128];

                snprintf(what, sizeof what, "{\"op\": \"zero\", \"offset\": %llu, \"size\": %llu, \"flush\": false}",
                         (unsigned long long) offset, (unsigned long long) part);
                rc = patch(target, connection, what, reterr);
                offset += part;
                length -= part;
        }
        return rc;
}

static int imageio_read(DiskTarget *base, void *connection, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        uint64_t total;

        return get((const ImageioTarget *) base, connection, buffer, length, offset, &total, reterr);
}

static int imageio_sync(DiskTarget *base, void *connection, Reason *reterr) {
        const ImageioTarget *target = (const ImageioTarget *) base;

        return target->offer.flush ? patch(target, connection, "{\"op\": \"flush\"}", reterr) : 0;
}

const TargetOps target_imageio_ops = {
        .name = "imageio",
        .raw_only = "an imageio server",
        .size = sizeof(ImageioTarget),
        .claims = imageio_claims,
        .open = imageio_open,
        .connect = imageio_connect_again,
        .disconnect = imageio_disconnect,
        .write = imageio_write,
        .zero = imageio_zero,
        .read = imageio_read,
        .sync = imageio_sync,
        .close = imageio_close,
};
