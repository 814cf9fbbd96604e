/* core/sources/imageio-uri.h - the URI of an image transfer of oVirt, with our parameters. Needs no libcurl.
 *
 * https://HOST:54322/images/TICKET?cafile=PATH&bitmap=ID&checkpoint=ID&image=ID&timeout=SECONDS, all of the query optional.
 * Who knows the ticket can read the disk: it is shown to nobody. The server gets the URL without the query. */
#pragma once

#include <stdbool.h>

#include "sources/disk-uri.h"
#include "util/reason.h"

typedef struct ImageioUri {
        char *url;          /* for the server: ends with the ticket */
        const char *ticket; /* in the url */
        char *shown;        /* the url for people */
        bool tls;
        char *cafile;       /* whom to trust, an absolute path; NULL: whom the system trusts */
        DiskUriCommon common; /* bitmap: the checkpoint that the backup starts from; checkpoint: the one that it makes */
} ImageioUri;
void imageio_uri_clear(ImageioUri *uri);

/* https://, http:// */
bool imageio_uri_claims(const char *text);
/* A relative cafile becomes absolute. -EINVAL; the reason does not show the ticket. */
int imageio_uri_parse(const char *text, ImageioUri *ret, Reason *reterr);
/* The text that says the same. The caller frees *ret. -ENOMEM. */
int imageio_uri_format(ImageioUri *uri, char **ret);
