#include "sources/imageio-http.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "libraries/libcurl-functions.h"

#define PATIENCE_S 60         /* for a server that says nothing */
#define SLOW 512              /* bytes a second: less is nothing */
#define CONNECT_S 30          /* as far as TLS */
#define POLL_MS 100           /* the cancel flag is looked at so often */
#define BUFFER_SIZE (256l << 10)
#define HEADERS_MAX (64u << 10) /* bytes */
#define ERROR_BODY_MAX (64u << 10) /* of what else a failed answer has; more is not waited for */
#define WORDS_MAX 1024        /* bytes of the server's on why */
#define WORDS_SHOWN 160
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
        size_t header_bytes, error_bytes;
        bool has_range, wrong_range, encoded;
        bool whole_head; /* of the last answer */
        uint64_t first, last, total;
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

static int read_number(const char **text, uint64_t *ret) {
        char *end;

        if (**text < '0' || **text > '9')
                return -EPROTO;
        errno = 0;
        *ret = strtoull(*text, &end, 10);
        *text = end;
        return errno || *ret > INT64_MAX ? -EPROTO : 0;
}

/* "bytes 0-65535/1073741824" or "…/" "*" */
static int read_range(const char *text, ImageioConnection *connection) {
        text += strspn(text, " \t");
        if (strncasecmp(text, "bytes ", 6) != 0)
                return -EPROTO;
        text += 6;
        if (read_number(&text, &connection->first) < 0 || *text++ != '-' || read_number(&text, &connection->last) < 0 ||
            *text++ != '/')
                return -EPROTO;
        connection->total = UINT64_MAX;
        if (*text == '*')
                text++;
        else if (read_number(&text, &connection->total) < 0)
                return -EPROTO;
        return text[strspn(text, " \t\r\n")] ? -EPROTO : 0;
}

static bool is_header(const char *line, const char *name, const char **ret_value) {
        size_t length = strlen(name);

        if (strncasecmp(line, name, length) != 0 || line[length] != ':')
                return false;
        *ret_value = line + length + 1;
        return true;
}

static size_t take_header(char *bytes, size_t size, size_t count, void *context) {
        ImageioConnection *connection = context;
        size_t length = size * count;
        char line[256];
        const char *value;

        connection->header_bytes += length;
        if (connection->header_bytes > HEADERS_MAX)
                return stop(connection, -EPROTO, "the server's answer has headers without end");
        snprintf(line, sizeof line, "%.*s", (int) (length < sizeof line ? length : sizeof line - 1), bytes);
        if (strncmp(line, "HTTP/", 5) == 0) /* there may have been another answer before */
                connection->has_range = connection->wrong_range = connection->encoded = connection->whole_head = false;
        else if (line[strspn(line, "\r\n")] == 0)
                connection->whole_head = true;
        else if (is_header(line, "Content-Range", &value)) {
                connection->wrong_range |= connection->has_range || read_range(value, connection) < 0;
                connection->has_range = true;
        } else if (is_header(line, "Content-Encoding", &value))
                connection->encoded |= strncasecmp(value + strspn(value, " \t"), "identity", 8) != 0;
        return length;
}

/* Whether the body that begins is the one that was asked for. */
static int check_head(ImageioConnection *connection) {
        const ImageioRequest *request = connection->request;

        if (connection->encoded)
                return fail(&connection->reason, -EPROTO, "the server's answer is encoded, which it was not asked to be");
        if (!asks_for_range(request))
                return 0;
        if (!connection->has_range || connection->wrong_range)
                return fail(&connection->reason, -EPROTO, "the server does not say which range its answer has");
        if (connection->first != request->start || connection->last != request->start + request->length - 1 ||
            connection->last >= connection->total)
                return fail(&connection->reason, -EPROTO, "the server answers with another range than asked for");
        return 0;
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

        bad |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1l);
        bad |= curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1l); /* a name server that does not answer is not waited for */
        bad |= curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, connection->curl_words);
        bad |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, uri->tls && !local ? "https" : "http");
        bad |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
        bad |= curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0l);
        bad |= curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1l);
        bad |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1l);
        bad |= curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, BUFFER_SIZE);
        bad |= curl_easy_setopt(easy, CURLOPT_USERAGENT, "virtbackupfs");
        bad |= curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long) (uri->common.timeout_s ?: CONNECT_S));
        bad |= curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long) SLOW);
        bad |= curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long) (uri->common.timeout_s ?: PATIENCE_S));
        bad |= curl_easy_setopt(easy, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
        bad |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1l);
        bad |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2l);
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
        bad |= curl_multi_setopt(connection->multi, CURLMOPT_MAXCONNECTS, 1l);
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
        if (local && asprintf(&connection->url, "http://localhost/images/%s", uri->ticket) < 0)
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

/* Writes "***" for the ticket in what others say: a server that does not know it says so by name. */
static void hide_ticket(const ImageioConnection *connection, char *words) {
        const char *ticket = connection->uri->ticket;
        size_t length = strlen(ticket), hidden = length < 3 ? length : 3;
        char *at;

        while ((at = strstr(words, ticket))) {
                memcpy(at, "***", hidden);
                memmove(at + hidden, at + length, strlen(at + length) + 1);
                words = at + hidden;
        }
}

static const char *meaning_of(long status) {
        switch (status) {
        case 400: return "the server does not understand the request";
        case 401: return "the server wants more than a ticket";
        case 403: return "the ticket is unknown, has expired or was cancelled: begin another transfer";
        case 404: return "the server has no such thing";
        case 405: return "the server does not know the method";
        case 407: return "the proxy wants more than a ticket";
        case 409: return "the ticket is in use elsewhere";
        case 416: return "the server says that the range is not on the disk";
        }
        return status >= 300 && status < 400   ? "the server sends on to elsewhere, which is not followed"
               : status >= 500 && status < 600 ? "the server cannot do it"
                                               : "that is no answer to it";
}

/* What the server says where it does not do what was asked. */
static int explain_status(ImageioConnection *connection, long status, Reason *reterr) {
        int rc = status == 401 || status == 403 || status == 407 ? -EACCES
                 : status >= 500 || status == 404 || status == 409 ? -EIO
                                                                   : -EPROTO;
        char *words = connection->words;

        if (asks_for_range(connection->request) && status == 200)
                return fail(reterr, -EPROTO, "the server answers with the whole disk instead of a range");
        words[connection->words_length] = 0;
        hide_ticket(connection, words);
        words[strcspn(words, "\r\n")] = 0;
        words[WORDS_SHOWN] = 0;
        for (char *c = words; *c; c++)
                if (*c & 0x80)
                        *c = '?';
        return fail(reterr, rc, "status %ld: %s%s%s%s", status, meaning_of(status), *words ? " (" : "", words,
                    *words ? ")" : "");
}

static int explain_curl(ImageioConnection *connection, CURLcode code, Reason *reterr) {
        char *words = connection->curl_words;
        int rc;

        switch (code) {
        case CURLE_OUT_OF_MEMORY:
                return fail_oom(reterr);
        case CURLE_OPERATION_TIMEDOUT:
                rc = -ETIMEDOUT;
                break;
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY:
                rc = -EHOSTUNREACH;
                break;
        case CURLE_COULDNT_CONNECT:
                rc = -ECONNREFUSED;
                break;
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_CACERT_BADFILE:
                hide_ticket(connection, words);
                return fail(reterr, -EACCES, "the server cannot be trusted: %s (cafile=PATH of the URI names whom to trust)",
                            *words ? words : curl_easy_strerror(code));
        default:
                rc = -EIO;
        }
        hide_ticket(connection, words);
        return fail(reterr, rc, "%s", *words ? words : curl_easy_strerror(code));
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
                bad |= curl_easy_setopt(easy, CURLOPT_HTTPGET, 1l);
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
        connection->header_bytes = connection->error_bytes = connection->words_length = 0;
        connection->has_range = connection->wrong_range = connection->encoded = connection->whole_head = false;
        connection->curl_words[0] = 0;
        connection->total = UINT64_MAX;
        connection->rc = 0;
        if (asprintf(&url, "%s%s", connection->url, request->below ?: "") < 0) {
                url = NULL;
                return fail_oom(reterr);
        }
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
        ret->total = connection->total;
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
        if (code == CURLE_OK && connection->request->body && !connection->whole_head) {
                ret->broken = true;
                return fail(reterr, -EPROTO, "the server's answer broke off");
        }
        if (code == CURLE_OK)
                return 0;
        ret->broken = true;
        return explain_curl(connection, code, reterr);
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
                return fail(reterr, -ECANCELED, "canceled");
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
