/* core/sources/imageio-connect.h - the first connection to an imageio server, and what the server offers. */
#pragma once

#include "sources/imageio-http.h"
#include "sources/imageio-offer.h"

/* Over the server's own socket where it is on this host: ret_offer->local is how further connections are to be made. uri is
 * borrowed as imageio_connection_new() does. */
int imageio_connect(const ImageioUri *uri, const atomic_bool *cancel, ImageioConnection **ret, ImageioOffer *ret_offer,
                    Reason *reterr);

/* Asks again, over any connection. */
int imageio_get_offer(const ImageioUri *uri, ImageioConnection *connection, ImageioOffer *ret, Reason *reterr);
