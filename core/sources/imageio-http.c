#include "sources/imageio-http.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "libraries/libcurl-functions.h"
#include "sources/imageio-failure.h"
#include "sources/imageio-head.h"
#include "util/text.h"

#define PATIENCE_S 60         /* for a server that says nothing */
#define SLOW 512              /* bytes a second: less is nothing */
#define CONNECT_S 30          /* as far as TLS */
#define POLL_MS 100           /* the cancel flag is looked at so often */
#define BUFFER_SIZE (256L << 10)
#define ERROR_BODY_MAX (64u << 10) /* of what else a failed answer has; more is not waited for */
#define WORDS_MAX 1024        /* bytes of the server's on why */
#define SYSTEM_UID_MAX 999    /* Debian's, and most others' */

struct ImageioConnection {
        const ImageioUri *uri;
        const atomic_bool *cancel;
        char *url;
        CURL *easy;
        CURLM *multi;
        struct curl_slist *headers; /* of the request */
        int local_fd;         /* libcurl's, of a Unix socket; -1: none */
        char curl_words[CURL_ERROR_SIZE];

        /* Of the request under way. */
        const ImageioRequest *request;
        bool running;
        ImageioHead head;
        size_t error_bytes;
        char words[WORDS_MAX + 1]; /* of a failed answer's body */
        size_t words_length;
        int rc;                    /* of what stopped it from our side */
        Reason reason;
};

static pthread_once_t library_once = PTHREAD_ONCE_INIT;
static bool library_ready;

static void start_library(void) {
        library_ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

static long status_of(const ImageioConnection *connection) {
        long status = 0;

        curl_easy_getinfo(connection->easy, CURLINFO_RESPONSE_CODE, &status);
        return status;
}

/* Whether bytes of the disk are the answer. */
static bool asks_for_range(const ImageioRequest *request) {
        return request->length > 0 && !request->body;
}

static bool is_success(const ImageioConnection *connection) {
        long status = status_of(connection);

        if (asks_for_range(connection->request))
                return status == 206;
        return status == 200 || (status == 204 && connection->request->body);
}

/* From libcurl's callbacks: ends the request for this reason. */
static size_t stop(ImageioConnection *connection, int rc, const char *words) {
        connection->rc = fail(&connection->reason, rc, "%s", words);
        return 0;
}

static size_t take_header(char *line, size_t size, size_t count, void *context) {
        ImageioConnection *connection = context;

        connection->rc = imageio_head_take(&connection->head, line, size * count, &connection->reason);
        return connection->rc == 0 ? size * count : 0;
}

static int check_head(ImageioConnection *connection) {
        const ImageioRequest *request = connection->request;
        uint64_t length = asks_for_range(request) ? request->length : 0;

        return imageio_head_check(&connection->head, request->start, length, &connection->reason);
}

static size_t take_body(char *bytes, size_t size, size_t count, void *context) {
        ImageioConnection *connection = context;
        const ImageioRequest *request = connection->request;
        size_t length = size * count, part = WORDS_MAX - connection->words_length;

        if (is_success(connection)) {
                connection->rc = check_head(connection);
                if (connection->rc == 0 && request->take)
                        connection->rc = request->take(request->context, bytes, length, &connection->reason);
                return connection->rc == 0 ? length : 0;
        }
        part = length < part ? length : part;
        memcpy(connection->words + connection->words_length, bytes, part);
        connection->words_length += part;
        connection->error_bytes += length;
        return connection->error_bytes <= ERROR_BODY_MAX ? length : 0;
}

static curl_socket_t open_local_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address) {
        ImageioConnection *connection = context;

        connection->local_fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
        return connection->local_fd < 0 ? CURL_SOCKET_BAD : connection->local_fd;
}

/* Before anything is sent. The ticket is as good as the disk. */
static int check_peer(void *context, char *peer_ip, char *own_ip, int peer_port, int own_port) {
        ImageioConnection *connection = context;
        struct ucred peer;
        socklen_t length = sizeof peer;

        if (getsockopt(connection->local_fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
                stop(connection, -EACCES, "who serves the local socket cannot be told");
        else if (peer.uid > SYSTEM_UID_MAX && peer.uid != geteuid())
                stop(connection, -EACCES, "the local socket is another user's");
        return connection->rc == 0 ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

static int set_options(ImageioConnection *connection, const char *local) {
        CURL *easy = connection->easy;
        const ImageioUri *uri = connection->uri;
        int bad = 0;

        bad |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
        bad |= curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* a name server that does not answer is not waited for */
        bad |= curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, connection->curl_words);
        bad |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, uri->tls && !local ? "https" : "http");
        bad |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
        bad |= curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
        bad |= curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
        bad |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
        bad |= curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, BUFFER_SIZE);
        bad |= curl_easy_setopt(easy, CURLOPT_USERAGENT, "virtbackupfs");
        bad |= curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long) (uri->common.timeout_s ?: CONNECT_S));
        bad |= curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long) SLOW);
        bad |= curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long) (uri->common.timeout_s ?: PATIENCE_S));
        bad |= curl_easy_setopt(easy, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
        bad |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
        bad |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
        if (uri->cafile) {
                bad |= curl_easy_setopt(easy, CURLOPT_CAINFO, uri->cafile);
                bad |= curl_easy_setopt(easy, CURLOPT_CAPATH, NULL); /* whom the system trusts is trusted no more */
        }
        if (local) {
                bad |= curl_easy_setopt(easy, *local == '@' ? CURLOPT_ABSTRACT_UNIX_SOCKET : CURLOPT_UNIX_SOCKET_PATH,
                                        *local == '@' ? local + 1 : local);
                bad |= curl_easy_setopt(easy, CURLOPT_PROXY, "");
                bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_local_socket);
                bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, connection);
                bad |= curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, check_peer);
                bad |= curl_easy_setopt(easy, CURLOPT_PREREQDATA, connection);
        }
        bad |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
        bad |= curl_easy_setopt(easy, CURLOPT_HEADERDATA, connection);
        bad |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
        bad |= curl_easy_setopt(easy, CURLOPT_WRITEDATA, connection);
        bad |= curl_multi_setopt(connection->multi, CURLMOPT_MAXCONNECTS, 1L);
        return bad ? -EINVAL : 0;
}

static void end_transfer(ImageioConnection *connection) {
        if (connection->running)
                curl_multi_remove_handle(connection->multi, connection->easy);
        connection->running = false;
}

ImageioConnection *imageio_connection_free(ImageioConnection *connection) {
        if (!connection)
                return NULL;
        end_transfer(connection);
        curl_easy_cleanup(connection->easy);
        curl_multi_cleanup(connection->multi);
        curl_slist_free_all(connection->headers);
        free(connection->url);
        free(connection);
        return NULL;
}

int imageio_connection_new(const ImageioUri *uri, const char *local, const atomic_bool *cancel, ImageioConnection **ret,
                           Reason *reterr) {
        CLEANUP(imageio_connection_freep) ImageioConnection *connection = NULL;
        int rc = libcurl_load(reterr);

        if (rc < 0)
                return rc;
        pthread_once(&library_once, start_library);
        if (!library_ready)
                return fail(reterr, -ENOMEM, "libcurl cannot be used");
        connection = calloc(1, sizeof *connection);
        if (!connection)
                return fail_oom(reterr);
        connection->uri = uri;
        connection->cancel = cancel;
        connection->local_fd = -1;
        if (local && text_format(&connection->url, "http://localhost/images/%s", uri->ticket) < 0)
                connection->url = NULL;
        else if (!local)
                connection->url = strdup(uri->url);
        connection->easy = curl_easy_init();
        connection->multi = curl_multi_init();
        if (!connection->url || !connection->easy || !connection->multi)
                return fail_oom(reterr);
        if (set_options(connection, local) < 0)
                return fail(reterr, -EINVAL, "libcurl cannot do what is needed");
        *ret = STEAL_PTR(connection);
        return 0;
}

bool imageio_connection_is_local(const ImageioConnection *connection) {
        char *own = NULL, *peer = NULL;

        curl_easy_getinfo(connection->easy, CURLINFO_LOCAL_IP, &own);
        curl_easy_getinfo(connection->easy, CURLINFO_PRIMARY_IP, &peer);
        return own && peer && *own && strcmp(own, peer) == 0;
}

/* What the server says where it does not do what was asked. */
static int explain_status(ImageioConnection *connection, long status, Reason *reterr) {
        if (asks_for_range(connection->request) && status == 200)
                return fail(reterr, -EPROTO, "the server answers with the whole disk instead of a range");
        connection->words[connection->words_length] = 0;
        return imageio_fail_status(status, connection->words, connection->uri->ticket, reterr);
}

static bool add_header(ImageioConnection *connection, const char *header) {
        struct curl_slist *longer = curl_slist_append(connection->headers, header);

        if (longer)
                connection->headers = longer;
        return longer;
}

/* Its own headers, and what it sends. */
static bool prepare_body(ImageioConnection *connection, const ImageioRequest *request, const char *range) {
        CURL *easy = connection->easy;
        char type[64], of_disk[80];
        int bad = 0;

        curl_slist_free_all(STEAL_PTR(connection->headers));
        if (request->body) {
                snprintf(type, sizeof type, "Content-Type: %s", request->body_type);
                snprintf(of_disk, sizeof of_disk, "Content-Range: bytes %s/*", range);
                /* Nothing is waited for before it is sent. */
                if (!add_header(connection, "Expect:") || !add_header(connection, type) ||
                    (request->length > 0 && !add_header(connection, of_disk)))
                        return false;
                bad |= curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) request->body_length);
                bad |= curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
        } else {
                bad |= curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
        }
        bad |= curl_easy_setopt(easy, CURLOPT_HTTPHEADER, connection->headers);
        return !bad;
}

static int prepare(ImageioConnection *connection, const ImageioRequest *request, Reason *reterr) {
        CLEANUP(freep) char *url = NULL;
        char range[48];
        bool get = strcmp(request->method, "GET") == 0;
        int bad = 0;

        connection->request = request;
        connection->head = IMAGEIO_HEAD_INIT;
        connection->error_bytes = connection->words_length = 0;
        connection->curl_words[0] = 0;
        connection->rc = 0;
        if (text_format(&url, "%s%s", connection->url, request->below ?: "") < 0)
                return fail_oom(reterr);
        snprintf(range, sizeof range, "%llu-%llu", (unsigned long long) request->start,
                 (unsigned long long) (request->start + request->length - 1));
        bad |= !prepare_body(connection, request, range);
        bad |= curl_easy_setopt(connection->easy, CURLOPT_URL, url);
        bad |= curl_easy_setopt(connection->easy, CURLOPT_CUSTOMREQUEST, get ? NULL : request->method);
        bad |= curl_easy_setopt(connection->easy, CURLOPT_RANGE, asks_for_range(request) ? range : NULL);
        return bad ? fail_oom(reterr) : 0;
}

/* The transfer is over. */
static int conclude(ImageioConnection *connection, CURLcode code, ImageioAnswer *ret, Reason *reterr) {
        long status = status_of(connection);

        ret->status = (unsigned) status;
        ret->total = connection->head.total;
        if (connection->rc == 0 && code == CURLE_OK && is_success(connection))
                connection->rc = check_head(connection); /* there may have been no body */
        if (connection->rc < 0) {
                if (reterr)
                        *reterr = connection->reason;
                return connection->rc;
        }
        /* What the server told is what failed, however its words broke off. */
        if (status >= 200 && !is_success(connection))
                return explain_status(connection, status, reterr);
        /* An answer to a change has no body that would be missed. */
        if (code == CURLE_OK && connection->request->body && !connection->head.whole) {
                ret->broken = true;
                return fail(reterr, -EPROTO, "the server's answer broke off");
        }
        if (code == CURLE_OK)
                return 0;
        ret->broken = true;
        return imageio_fail_transfer(code, connection->curl_words, connection->uri->ticket, reterr);
}

int imageio_request_start(ImageioConnection *connection, const ImageioRequest *request, Reason *reterr) {
        CURLMcode code;
        int rc;

        rc = prepare(connection, request, reterr);
        if (rc < 0)
                return rc;
        code = curl_multi_add_handle(connection->multi, connection->easy);
        if (code != CURLM_OK)
                return fail(reterr, -EIO, "%s", curl_multi_strerror(code));
        connection->running = true;
        return 0;
}

int imageio_request_go_on(ImageioConnection *connection, unsigned wait_ms, ImageioAnswer *ret, Reason *reterr) {
        int running = 0;
        CURLMcode code = curl_multi_perform(connection->multi, &running);
        const CURLMsg *message;
        CURLcode result;

        *ret = (ImageioAnswer) { .total = UINT64_MAX };
        if (code == CURLM_OK && running > 0 && wait_ms > 0)
                code = curl_multi_poll(connection->multi, NULL, 0, (int) wait_ms, NULL);
        if (connection->cancel && atomic_load(connection->cancel)) {
                end_transfer(connection);
                return fail(reterr, -ECANCELED, "interrupted");
        }
        if (code != CURLM_OK) {
                end_transfer(connection);
                return fail(reterr, -EIO, "%s", curl_multi_strerror(code));
        }
        if (running > 0)
                return 1;
        message = curl_multi_info_read(connection->multi, &(int) { 0 });
        result = message && message->msg == CURLMSG_DONE ? message->data.result : CURLE_FAILED_INIT;
        end_transfer(connection);
        return conclude(connection, result, ret, reterr);
}

int imageio_request(ImageioConnection *connection, const ImageioRequest *request, ImageioAnswer *ret, Reason *reterr) {
        int rc;

        *ret = (ImageioAnswer) { .total = UINT64_MAX };
        rc = imageio_request_start(connection, request, reterr);
        if (rc < 0)
                return rc;
        do {
                rc = imageio_request_go_on(connection, POLL_MS, ret, reterr);
        } while (rc > 0);
        return rc;
}

int imageio_body_take(void *context, const char *bytes, size_t length, Reason *reterr) {
        ImageioBody *body = context;

        if (length > body->size - body->length)
                return fail(reterr, -EPROTO, "the server answers with more than was asked for");
        memcpy(body->bytes + body->length, bytes, length);
        body->length += length;
        return 0;
}

ImageioRequest imageio_body_ask(ImageioBody *body, uint64_t offset) {
        return (ImageioRequest) {
                .method = "GET",
                .start = offset,
                .length = body->size,
                .take = imageio_body_take,
                .context = body,
        };
}
