#include "sources/qmp-client.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "temporary.h"
#include "unit.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"
#define READY GREETING "{\"return\": {}, \"id\": 1}\n"

/* Sends a text to who connects, whatever that says; then, where it is wanted, spaces until nobody reads any more. */
typedef struct Peer {
        char path[100];
        int listen_fd;
        pthread_t thread;
        const char *text;
        bool endless, stays;
} Peer;

static void *serve(void *data) {
        Peer *peer = data;
        char spaces[65536], heard[4096];
        int fd = accept(peer->listen_fd, NULL, NULL);

        memset(spaces, ' ', sizeof spaces);
        if (fd < 0)
                return NULL;
        (void) send(fd, peer->text, strlen(peer->text), MSG_NOSIGNAL);
        while (peer->endless && send(fd, spaces, sizeof spaces, MSG_NOSIGNAL) > 0)
                ;
        if (!peer->endless && !peer->stays)
                shutdown(fd, SHUT_WR);
        while (read(fd, heard, sizeof heard) > 0)
                ;
        close(fd);
        return NULL;
}

static void start(Peer *peer, const char *directory) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        snprintf(peer->path, sizeof peer->path, "%s/qmp", directory);
        snprintf(address.sun_path, sizeof address.sun_path, "%s", peer->path);
        unlink(peer->path);
        peer->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK_INT(bind(peer->listen_fd, (const struct sockaddr *) &address, sizeof address), 0);
        CHECK_INT(listen(peer->listen_fd, 1), 0);
        CHECK_INT(pthread_create(&peer->thread, NULL, serve, peer), 0);
}

static void stop(Peer *peer) {
        shutdown(peer->listen_fd, SHUT_RDWR);
        pthread_join(peer->thread, NULL);
        close(peer->listen_fd);
}

static const char *directory;

/* What opening and then one command come to. */
static int try(Peer peer, json_t **ret_value, Reason *reterr) {
        QmpClient *client = NULL;
        int rc;

        start(&peer, directory);
        rc = qmp_client_open(&(QmpAddress) { .socket_path = peer.path, .patience_ms = 200 }, NULL, &client, reterr);
        if (rc == 0)
                rc = qmp_call(client, "query-things", NULL, ret_value, reterr);
        qmp_client_free(client);
        stop(&peer);
        return rc;
}

static void check(const char *text, int expected, const char *words) {
        json_t *value = NULL;
        Reason reason;

        CHECK_INT(try((Peer) { .text = text }, &value, &reason), expected);
        CHECK_SAYS(reason, words);
        CHECK(!value);
}

static void answers_are_found_among_others(void) {
        CLEANUP(json_decrefp) json_t *value = NULL;
        Reason reason;

        CHECK_INT(try((Peer) { .text = GREETING "{\"event\": \"STOP\"}\n{\"return\": {}, \"id\": 1}\r\n"
                                                "{\"return\": 5, \"id\": 1}\n{\"id\": \"x\", \"return\": 4}\n"
                                                "{\"id\": 2, \"return\": [3]}\n" },
                      &value, &reason), 0);
        CHECK_INT(json_integer_value(json_array_get(value, 0)), 3);
}

static void refusals_are_passed_on_in_qemus_words(void) {
        check(READY "{\"id\": 2, \"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}}\n", -EIO,
              "query-things: no such thing");
        check(READY "{\"id\": 2, \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"unknown\"}}\n", -EOPNOTSUPP,
              "unknown");
        check(READY "{\"id\": 2, \"error\": 5}\n", -EIO, "refused without a reason");
        check(READY "{\"error\": {\"desc\": \"Invalid JSON syntax\"}}\n", -EIO, "Invalid JSON syntax");
}

static void what_is_no_qemu_is_refused(void) {
        check("hello\n", -EPROTO, "is not QEMU");
        check("[]\n", -EPROTO, "is not QEMU");
        check("{}\n", -EPROTO, "is no QMP monitor");
        check("{\"QMP\": 3}\n", -EPROTO, "is no QMP monitor");
        check(READY "{\"id\": 2}\n", -EPROTO, "neither a value nor an error");
        check(READY "{\"return\": {}}\n", -EPROTO, "neither a value nor an error");
        check(READY "{\"return\": {}, \"id\": 2} {}\n", -EPROTO, "no JSON object");
        check("", -ENOTCONN, "closed the connection");
        check(GREETING, -ENOTCONN, "closed the connection");
        check(READY, -ENOTCONN, "query-things: QEMU has closed the connection");
}

static void a_monitor_that_is_in_use_does_not_greet(void) {
        json_t *value = NULL;
        Reason reason;

        CHECK_INT(try((Peer) { .text = "", .stays = true }, &value, &reason), -ETIMEDOUT);
        CHECK_SAYS(reason, "another program uses this monitor");
}

static void a_line_without_end_has_one(void) {
        json_t *value = NULL;
        Reason reason;

        CHECK_INT(try((Peer) { .text = READY, .endless = true }, &value, &reason), -EPROTO);
        CHECK_SAYS(reason, "a line without end");
}

static void nobody_is_there(void) {
        QmpClient *client = NULL;
        char path[200];
        Reason reason;

        snprintf(path, sizeof path, "%s/nobody", directory);
        CHECK_INT(qmp_client_open(&(QmpAddress) { .socket_path = path }, NULL, &client, &reason), -EHOSTDOWN);
        CHECK_SAYS(reason, "QEMU does not run: nothing listens at");
        CHECK_INT(qmp_client_open(&(QmpAddress) { .host = "127.0.0.1", .port = 1 }, NULL, &client, &reason), -EHOSTDOWN);
        CHECK_SAYS(reason, "127.0.0.1:1");
        memset(path, 'x', sizeof path - 1);
        path[sizeof path - 1] = 0;
        CHECK_INT(qmp_client_open(&(QmpAddress) { .socket_path = path }, NULL, &client, &reason), -ENAMETOOLONG);
}

static void waiting_can_be_canceled(void) {
        const atomic_bool cancel = true;
        QmpClient *client = NULL;
        Peer peer = { .text = "", .stays = true };
        Reason reason;

        start(&peer, directory);
        CHECK_INT(qmp_client_open(&(QmpAddress) { .socket_path = peer.path }, &cancel, &client, &reason), -ECANCELED);
        stop(&peer);
}

static void events_are_told_without_waiting(void) {
        CLEANUP(json_decrefp) json_t *event = NULL;
        QmpClient *client = NULL;
        Peer peer = { .text = READY "{\"id\": 2, \"return\": {}}\n{\"id\": 9, \"return\": {}}\n{\"event\": \"STOP\"}\n{\"ev",
                      .stays = true };
        json_t *none = NULL;
        Reason reason;

        start(&peer, directory);
        CHECK_INT(qmp_client_open(&(QmpAddress) { .socket_path = peer.path }, NULL, &client, &reason), 0);
        CHECK_INT(qmp_call(client, "x", NULL, NULL, &reason), 0);
        while (!event)
                CHECK(qmp_next_event(client, &event, &reason) >= 0);
        CHECK_TEXT(json_string_value(json_object_get(event, "event")), "STOP");
        CHECK_INT(qmp_next_event(client, &none, &reason), 0);
        CHECK(!qmp_client_is_lost(client));
        CHECK_INT(qmp_client_process(client), getpid());
        qmp_client_free(client);
        stop(&peer);
}

int main(void) {
        WITH_DIRECTORY(temporary);

        directory = temporary.path;
        RUN(answers_are_found_among_others);
        RUN(refusals_are_passed_on_in_qemus_words);
        RUN(what_is_no_qemu_is_refused);
        RUN(a_monitor_that_is_in_use_does_not_greet);
        RUN(a_line_without_end_has_one);
        RUN(nobody_is_there);
        RUN(waiting_can_be_canceled);
        RUN(events_are_told_without_waiting);
        return unit_result();
}
