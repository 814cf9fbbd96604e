#include "sources/qmp-client.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "util/bytes.h"
#include "util/clock.h"
#include "util/text.h"

#define GREETING_MS 5000u
#define ANSWER_MS 60000u        /* a transaction waits for the guest's requests in flight */
#define CANCEL_POLL_MS 100u
#define LINE_FIRST (64u << 10)
#define LINE_LIMIT (32u << 20)  /* bytes of an answer: query-block of a thousand disks has about two MiB */
#define WORDS_MAX 300           /* characters of QEMU's that are passed on */

struct QmpClient {
        int fd; /* -1: lost */
        const char *peer;       /* for people */
        bool agent;
        bool agreed;            /* what is read is of this connection: one of an agent begins with another's leavings */
        const atomic_bool *cancel;
        pid_t process;
        char *buffer;           /* what was read and not yet taken */
        size_t length, capacity;
        size_t searched;        /* of it, without an end of line */
        size_t taken;           /* a line at its start that has been handed out */
        uint64_t last_id;
};

static int lose(QmpClient *client, int rc) {
        close_fd(&client->fd);
        client->fd = -1;
        return rc;
}

static int is_gone(const QmpClient *client, Reason *reterr) {
        return fail(reterr, -ENOTCONN, "the connection to %s is gone", client->peer);
}

/* Waits until the descriptor is ready: 0, or -ETIMEDOUT after the deadline. */
static int wait_for(const QmpClient *client, short events, uint64_t deadline, Reason *reterr) {
        for (;;) {
                struct pollfd fd = { .fd = client->fd, .events = events };
                uint64_t now = clock_now_ms();
                int rc;

                if (client->cancel && atomic_load(client->cancel))
                        return fail(reterr, -ECANCELED, "interrupted");
                if (now >= deadline)
                        return fail(reterr, -ETIMEDOUT, "%s does not answer", client->peer);
                rc = poll(&fd, 1, (int) min_u64(deadline - now, CANCEL_POLL_MS));
                if (rc > 0)
                        return 0;
                if (rc < 0 && errno != EINTR)
                        return fail_errno(reterr, -errno, "cannot wait for %s", client->peer);
        }
}

/* Reads what is there: 1, 0 where nothing is, or the loss of the connection. */
static int fill(QmpClient *client, Reason *reterr) {
        ssize_t n;

        if (client->taken > 0) {
                client->length -= client->taken;
                memmove(client->buffer, client->buffer + client->taken, client->length);
                client->taken = 0;
        }
        if (client->length == client->capacity) {
                size_t wanted = client->capacity ? client->capacity * 2 : LINE_FIRST;
                char *grown;

                if (wanted > LINE_LIMIT)
                        return lose(client, fail(reterr, -EPROTO, "%s sends a line without end", client->peer));
                grown = realloc(client->buffer, wanted);
                if (!grown)
                        return fail_oom(reterr);
                client->buffer = grown;
                client->capacity = wanted;
        }
        n = recv(client->fd, client->buffer + client->length, client->capacity - client->length, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) {
                int rc = n < 0 ? errno : 0;

                return lose(client, fail(reterr, -ENOTCONN, "%s has closed the connection%s%s", client->peer, rc ? ": " : "",
                                         rc ? strerror(rc) : ""));
        }
        client->length += (size_t) n;
        return 1;
}

/* The next line that has been read, as JSON (NULL: what an agent had for another): 1, or 0 where there is no whole one. */
static int take_line(QmpClient *client, json_t **ret, Reason *reterr) {
        const char *start = client->buffer + client->taken, *end;
        json_error_t error;
        size_t length = client->length - client->taken;
        json_t *value;

        if (client->searched < client->taken)
                client->searched = client->taken;
        end = length > 0 ? memchr(client->buffer + client->searched, '\n', client->length - client->searched) : NULL;
        if (!end) {
                client->searched = length; /* once the line before has been moved out */
                return 0;
        }
        length = (size_t) (end - start);
        client->taken += length + 1;
        value = json_loadb(start, length, 0, &error);
        if (!json_is_object(value)) {
                json_decref(value);
                if (!client->agreed && client->agent) {
                        *ret = NULL;
                        return 1;
                }
                return lose(client, fail(reterr, -EPROTO, "what answers is not %s: it sends no JSON object", client->peer));
        }
        *ret = value;
        return 1;
}

static int next_line(QmpClient *client, uint64_t deadline, json_t **ret, Reason *reterr) {
        for (;;) {
                int rc;

                if (client->fd < 0)
                        return is_gone(client, reterr);
                rc = take_line(client, ret, reterr);
                if (rc != 0)
                        return rc < 0 ? rc : 0;
                rc = wait_for(client, POLLIN, deadline, reterr);
                if (rc == 0)
                        rc = fill(client, reterr);
                if (rc < 0)
                        return rc;
        }
}

/* QEMU takes a descriptor with the first byte of a command. */
static int send_line(QmpClient *client, const char *line, size_t length, int fd, uint64_t deadline, Reason *reterr) {
        union {
                struct cmsghdr header;
                char room[CMSG_SPACE(sizeof(int))];
        } control = { .header = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };

        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
        while (length > 0) {
                struct iovec bytes = { .iov_base = (char *) line, .iov_len = length };
                struct msghdr message = { .msg_iov = &bytes, .msg_iovlen = 1 };
                ssize_t n;

                if (fd >= 0) {
                        message.msg_control = &control;
                        message.msg_controllen = sizeof control.room;
                }
                n = sendmsg(client->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n > 0) {
                        line += n;
                        length -= (size_t) n;
                        fd = -1;
                        continue;
                }
                if (errno == EAGAIN) {
                        int rc = wait_for(client, POLLOUT, deadline, reterr);

                        if (rc < 0)
                                return lose(client, rc); /* half a line */
                } else if (errno != EINTR)
                        return lose(client, fail_errno(reterr, -ENOTCONN, "cannot send to %s", client->peer));
        }
        return 0;
}

/* What QEMU says against a command. */
static int refused(const char *command, const json_t *error, Reason *reterr) {
        const char *class = json_string_value(json_object_get(error, "class"));
        const char *words = json_string_value(json_object_get(error, "desc"));

        return fail(reterr, class && strcmp(class, "CommandNotFound") == 0 ? -EOPNOTSUPP : -EIO, "%s: %.*s", command,
                    WORDS_MAX, words ?: "refused without a reason");
}

/* Waits for the answer to the command of the last id. */
static int await_answer(QmpClient *client, const char *command, uint64_t deadline, json_t **ret_value, Reason *reterr) {
        for (;;) {
                CLEANUP(json_decrefp) json_t *line = NULL;
                const json_t *id, *error;
                json_t *value;
                int rc;

                rc = next_line(client, deadline, &line, reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "%s", command);
                if (!line || json_object_get(line, "event"))
                        continue;
                id = json_object_get(line, "id");
                error = json_object_get(line, "error");
                value = json_object_get(line, "return");
                /* A line that it could not read at all is answered without an id. */
                if (id && !(json_is_integer(id) && (uint64_t) json_integer_value(id) == client->last_id))
                        continue;
                if (error)
                        return refused(command, error, reterr);
                if (!value || (!id && !client->agent)) /* an old agent knows no ids */
                        return lose(client, fail(reterr, -EPROTO, "%s: %s answers with neither a value nor an error",
                                                 command, client->peer));
                if (ret_value)
                        *ret_value = json_incref(value);
                return 0;
        }
}

int qmp_call_with_fd(QmpClient *client, const char *command, json_t *arguments, int fd, json_t **ret_value, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *request = NULL;
        CLEANUP(freep) char *text = NULL;
        uint64_t deadline = clock_now_ms() + ANSWER_MS;
        size_t length;
        int rc;

        request = json_pack("{s:s, s:I, s:o*}", "execute", command, "id", (json_int_t) ++client->last_id, "arguments",
                            arguments);
        if (!request)
                return fail_oom(reterr);
        if (client->fd < 0)
                return is_gone(client, reterr);
        text = json_dumps(request, JSON_COMPACT | JSON_ENSURE_ASCII);
        if (!text)
                return fail_oom(reterr);
        length = strlen(text);
        text[length] = '\n'; /* in the place of the NUL */
        rc = send_line(client, text, length + 1, fd, deadline, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "%s", command);
        return await_answer(client, command, deadline, ret_value, reterr);
}

int qmp_call(QmpClient *client, const char *command, json_t *arguments, json_t **ret_value, Reason *reterr) {
        return qmp_call_with_fd(client, command, arguments, -1, ret_value, reterr);
}

int qmp_next_event(QmpClient *client, json_t **ret, Reason *reterr) {
        for (;;) {
                CLEANUP(json_decrefp) json_t *line = NULL;
                int rc;

                if (client->fd < 0)
                        return is_gone(client, reterr);
                rc = take_line(client, &line, reterr);
                if (rc < 0)
                        return rc;
                if (rc > 0 && json_is_string(json_object_get(line, "event"))) {
                        *ret = STEAL_PTR(line);
                        return 1;
                }
                if (rc == 0) {
                        rc = fill(client, reterr);
                        if (rc <= 0)
                                return rc;
                }
        }
}

/* Nobody is there: the path does not exist, or nothing listens. */
static int no_one(const QmpClient *client, int error, const char *shown, Reason *reterr) {
        switch (error) {
        case ENOENT:
        case ECONNREFUSED:
        case ENOTDIR:
                return fail(reterr, -EHOSTDOWN, "%snothing listens at %s", client->agent ? "" : "QEMU does not run: ",
                            shown);
        case EAGAIN:
                return fail(reterr, -ETIMEDOUT, "%s takes no connection at %s: other programs wait there already",
                            client->peer, shown);
        default:
                return fail_errno(reterr, -error, "cannot connect to %s at %s", client->peer, shown);
        }
}

static int connect_unix(QmpClient *client, const char *path, Reason *reterr) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct ucred peer;
        socklen_t length = sizeof peer;

        if (strlen(path) >= sizeof address.sun_path)
                return fail(reterr, -ENAMETOOLONG, "%s is too long for a socket's path", path);
        memcpy(address.sun_path, path, strlen(path));
        client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (client->fd < 0)
                return fail_errno(reterr, -errno, "cannot make a socket");
        if (connect(client->fd, (const struct sockaddr *) &address, sizeof address) < 0)
                return no_one(client, errno, path, reterr);
        if (getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0)
                client->process = peer.pid;
        return 0;
}

/* One of a host's addresses: 0, or why not. */
static int try_address(QmpClient *client, const struct addrinfo *address, uint64_t deadline, const char *shown,
                       Reason *reterr) {
        socklen_t length = sizeof(int);
        int rc, error = 0;

        client->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (client->fd < 0)
                return fail_errno(reterr, -errno, "cannot make a socket");
        (void) setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &(int) { 1 }, sizeof(int));
        if (connect(client->fd, address->ai_addr, address->ai_addrlen) == 0)
                return 0;
        if (errno != EINPROGRESS)
                return lose(client, no_one(client, errno, shown, reterr));
        rc = wait_for(client, POLLOUT, deadline, reterr);
        if (rc == 0 && getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
                error = errno;
        if (error)
                rc = no_one(client, error, shown, reterr);
        return rc < 0 ? lose(client, rc) : 0;
}

static int connect_tcp(QmpClient *client, const QmpAddress *to, uint64_t deadline, const char *shown, Reason *reterr) {
        const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV };
        struct addrinfo *found;
        char port[16];
        int rc;

        snprintf(port, sizeof port, "%u", to->port);
        rc = getaddrinfo(to->host, port, &hints, &found);
        if (rc != 0)
                return fail(reterr, -EHOSTUNREACH, "%s cannot be found: %s", to->host, gai_strerror(rc));
        rc = -EHOSTUNREACH;
        for (const struct addrinfo *each = found; each && rc < 0 && rc != -ECANCELED; each = each->ai_next)
                rc = try_address(client, each, deadline, shown, reterr);
        freeaddrinfo(found);
        return rc;
}

/* Whoever was connected before may have left half a request there and an answer here: what comes before that of our own
 * number is not ours. */
static int synchronize(QmpClient *client, uint64_t deadline, Reason *reterr) {
        const json_int_t number = (json_int_t) (clock_now_ms() & 0xffffffff);
        char request[96];
        int rc;

        snprintf(request, sizeof request, "\xff{\"execute\":\"guest-sync\",\"arguments\":{\"id\":%lld}}\n",
                 (long long) number);
        rc = send_line(client, request, strlen(request), -1, deadline, reterr);
        while (rc == 0) {
                CLEANUP(json_decrefp) json_t *line = NULL;

                rc = next_line(client, deadline, &line, reterr);
                if (rc == 0 && json_integer_value(json_object_get(line, "return")) == number)
                        break;
        }
        client->agreed = rc == 0;
        return rc;
}

static int negotiate(QmpClient *client, uint64_t deadline, const char *shown, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *greeting = NULL;
        Reason why;
        int rc;

        rc = next_line(client, deadline, &greeting, &why);
        if (rc == -ETIMEDOUT)
                return fail(reterr, rc, "QEMU does not greet at %s: another program uses this monitor, and one at a time "
                                        "can; give QEMU a -qmp of its own for backups", shown);
        if (rc < 0)
                return fail(reterr, rc, "%s: %.*s", shown, WORDS_MAX, why.text);
        if (!json_is_object(json_object_get(greeting, "QMP")))
                return fail(reterr, -EPROTO, "what listens at %s is no QMP monitor", shown);
        client->agreed = true;
        return qmp_call(client, "qmp_capabilities", NULL, NULL, reterr);
}

int qmp_client_open(const QmpAddress *address, const atomic_bool *cancel, QmpClient **ret, Reason *reterr) {
        CLEANUP(qmp_client_freep) QmpClient *client = calloc(1, sizeof *client);
        uint64_t deadline = clock_now_ms() + (address->patience_ms ?: GREETING_MS);
        CLEANUP(freep) char *shown = NULL;
        int rc;

        if (!client)
                return fail_oom(reterr);
        client->fd = -1;
        client->cancel = cancel;
        client->agent = address->agent;
        client->peer = address->agent ? "the guest's agent" : "QEMU";
        if (address->socket_path)
                shown = strdup(address->socket_path);
        else if (text_format(&shown, "%s:%u", address->host, address->port) < 0)
                shown = NULL;
        if (!shown)
                return fail_oom(reterr);
        rc = address->socket_path ? connect_unix(client, shown, reterr) :
                                    connect_tcp(client, address, deadline, shown, reterr);
        if (rc == 0)
                rc = client->agent ? synchronize(client, deadline, reterr) : negotiate(client, deadline, shown, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(client);
        return 0;
}

QmpClient *qmp_client_free(QmpClient *client) {
        if (client) {
                close_fd(&client->fd);
                free(client->buffer);
                free(client);
        }
        return NULL;
}

pid_t qmp_client_process(const QmpClient *client) {
        return client->process;
}

bool qmp_client_is_lost(const QmpClient *client) {
        return client->fd < 0;
}
