/* core/sources/image-server.h - an image of this machine, served by a qemu-nbd of our own (nbd-server.h) and not written to.
 *
 * Threads: belongs to one, but for image_server_check_untouched(), which may run beside readers. */
#pragma once

#include "sources/image-info.h"
#include "sources/source.h"

typedef struct ImageServer ImageServer;

typedef struct ImageServing {
        const ImageChain *chain; /* the image and what is below it; stays as long as the server */
        const char *socket_path; /* as nbd_server_start() wants it */
        const char *bitmap;      /* of the top image: its name; NULL: none */
        bool top;                /* tells what lies in backing files */
        bool shared;             /* without QEMU's locks, which keep others from writing to it */
} ImageServing;

/* The image is opened by the time that a reader is. -EBUSY: somebody writes to it. */
int image_server_start(const ImageServing *serving, ImageServer **ret, Reason *reterr);
ImageServer *image_server_stop(ImageServer *server); /* always NULL */
DEFINE_CLEANUP(ImageServer, image_server_stop)

/* With a view that the server was started for. patience_ms: 0: a minute. */
int image_server_open_reader(ImageServer *server, const SourceView *view, unsigned patience_ms, const atomic_bool *cancel,
                             SourceReader **ret, Reason *reterr);

/* That the files are still what they were when it was started: -ESTALE. */
int image_server_check_untouched(const ImageServer *server, Reason *reterr);
