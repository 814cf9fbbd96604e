#include "sources/imageio-connect.h"

#include <errno.h>

#define OPTIONS_MAX (64u << 10) /* bytes of what a server says that it can do */

int imageio_get_offer(const ImageioUri *uri, ImageioConnection *connection, ImageioOffer *ret, Reason *reterr) {
        CLEANUP(freep) char *room = malloc(OPTIONS_MAX);
        ImageioBody body = { room, OPTIONS_MAX, 0 };
        ImageioRequest request = { .method = "OPTIONS", .take = imageio_body_take, .context = &body };
        ImageioAnswer answer;
        int rc;

        if (!room)
                return fail_oom(reterr);
        rc = imageio_request(connection, &request, &answer, reterr);
        if (answer.status == 204 || answer.status == 405) { /* servers of long ago */
                *ret = (ImageioOffer) { .max_readers = 1, .max_writers = 1 };
                return 0;
        }
        if (rc == 0)
                rc = imageio_offer_parse(body.bytes, body.length, ret, reterr);
        return rc < 0 ? fail_within(reterr, rc, "%s", uri->shown) : 0;
}

/* The server's socket on this host is quicker than TLS. It may be another server's: then it does not know the ticket. */
static int try_local(const ImageioUri *uri, const atomic_bool *cancel, ImageioConnection **connection, ImageioOffer *offer,
                     Reason *reterr) {
        CLEANUP(imageio_connection_freep) ImageioConnection *local = NULL;
        CLEANUP(imageio_offer_clear) ImageioOffer said = { 0 };
        int rc;

        if (!offer->local)
                return 0;
        if (!imageio_connection_is_local(*connection)) {
                free(STEAL_PTR(offer->local));
                return 0;
        }
        rc = imageio_connection_new(uri, offer->local, cancel, &local, reterr);
        if (rc == 0)
                rc = imageio_get_offer(uri, local, &said, reterr);
        if (rc == -ECANCELED || rc == -ENOMEM)
                return rc;
        if (rc < 0) {
                free(STEAL_PTR(offer->local));
                return 0;
        }
        imageio_connection_free(*connection);
        *connection = STEAL_PTR(local);
        return 0;
}

int imageio_connect(const ImageioUri *uri, const atomic_bool *cancel, ImageioConnection **ret, ImageioOffer *ret_offer,
                    Reason *reterr) {
        CLEANUP(imageio_connection_freep) ImageioConnection *connection = NULL;
        CLEANUP(imageio_offer_clear) ImageioOffer offer = { 0 };
        int rc;

        rc = imageio_connection_new(uri, NULL, cancel, &connection, reterr);
        if (rc == 0)
                rc = imageio_get_offer(uri, connection, &offer, reterr);
        if (rc == 0)
                rc = try_local(uri, cancel, &connection, &offer, reterr);
        if (rc < 0)
                return rc;
        *ret_offer = offer;
        offer = (ImageioOffer) { 0 };
        *ret = STEAL_PTR(connection);
        return 0;
}
