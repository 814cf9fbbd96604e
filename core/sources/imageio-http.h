/* core/sources/imageio-http.h - a connection to an imageio server, and requests on it, by libcurl.
 *
 * HTTP/1.1, kept open between requests. The server's certificate is always verified; redirects are not followed; a proxy is
 * used where the environment names one (https_proxy, no_proxy), but for a Unix socket. No reason shows the ticket.
 * Threads: each connection belongs to one thread at a time. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sources/imageio-uri.h"
#include "util/cleanup.h"
#include "util/reason.h"

typedef struct ImageioConnection ImageioConnection;

/* Connects with the first request. local: a socket of the server's on this host, "@NAME" for an abstract one; NULL: as the
 * URI says. It must be served by root, a system user or ourselves: else anybody could wait there for a ticket. uri and local
 * are borrowed. */
int imageio_connection_new(const ImageioUri *uri, const char *local, const atomic_bool *cancel, ImageioConnection **ret,
                           Reason *reterr);
ImageioConnection *imageio_connection_free(ImageioConnection *connection); /* always NULL */
DEFINE_CLEANUP(ImageioConnection, imageio_connection_free)

typedef struct ImageioRequest {
        const char *method; /* "GET", "OPTIONS", "PUT", "PATCH" */
        const char *below;  /* what follows the ticket: "/extents?context=zero"; NULL: nothing */
        uint64_t start, length; /* the range of bytes that is asked for, or that the body is; length 0: no range */
        const void *body;       /* what is sent, with its type; or NULL */
        size_t body_length;
        const char *body_type;  /* "application/json" */
        /* Takes the body as it arrives, if the request succeeds. A negative errno, with its reason, ends the request. */
        int (*take)(void *context, const char *bytes, size_t length, Reason *reterr);
        void *context;
} ImageioRequest;

typedef struct ImageioAnswer {
        unsigned status; /* 0: there was none */
        bool broken;     /* the connection, rather than what the server says, is why it failed */
        uint64_t total;  /* bytes there are, as the answer to a range says; UINT64_MAX: it does not */
} ImageioAnswer;

/* 0 for status 200 (204 where something was sent), and where a range is asked for, 206 and that range, to which the body is
 * then known to belong; its length is for take() to check. -EACCES: the ticket is not (or no longer) good, or TLS fails;
 * -EPROTO: the server does not keep to the API; -ETIMEDOUT: it says nothing; -ECANCELED; … *ret is filled in any case. */
int imageio_request(ImageioConnection *connection, const ImageioRequest *request, ImageioAnswer *ret, Reason *reterr);

/* A body that is short: for take(), which is -EPROTO for more than there is room for. */
typedef struct ImageioBody {
        char *bytes;
        size_t size, length; /* of the room, and what is in it */
} ImageioBody;
int imageio_body_take(void *body, const char *bytes, size_t length, Reason *reterr);
/* The request for as much of the disk as there is room for. */
ImageioRequest imageio_body_ask(ImageioBody *body, uint64_t offset);

/* The same in steps, for who must not wait: the request is borrowed until go_on returns no more 1, which means that it is
 * not over yet. go_on waits as long as it is told at most. */
int imageio_request_start(ImageioConnection *connection, const ImageioRequest *request, Reason *reterr);
int imageio_request_go_on(ImageioConnection *connection, unsigned wait_ms, ImageioAnswer *ret, Reason *reterr);

/* Whether the server of the last answer has the address that we have: it is on this host. */
bool imageio_connection_is_local(const ImageioConnection *connection);
