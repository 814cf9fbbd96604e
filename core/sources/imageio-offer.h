/* core/sources/imageio-offer.h - what an imageio server says that it can do with a ticket: its answer to OPTIONS.
 *
 * {"features": ["extents", …], "max_readers": 8, "unix_socket": "\u0000/org/ovirt/imageio", …}, all of it optional. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "util/reason.h"

typedef struct ImageioOffer {
        bool extents;       /* it tells extents */
        bool zero, flush;   /* PATCH can do these */
        size_t max_readers, max_writers; /* connections that may read the disk, or write to it, at once: at least 1 */
        char *local;        /* its socket on its host, as imageio_connection_new() wants it; NULL: none that could be used */
} ImageioOffer;

void imageio_offer_clear(ImageioOffer *offer);

/* -EPROTO where it is no JSON object; what in it is not as it should be counts as not said. */
int imageio_offer_parse(const char *text, size_t length, ImageioOffer *ret, Reason *reterr);
