/* core/sources/qmp-client.h - QEMU's monitor protocol: a connection, commands and their answers, events. A guest's agent
 * speaks it too, but for the greeting, which is made up for by guest-sync.
 *
 * QEMU serves one client of a monitor at a time; others connect and are not greeted. Each command carries an id: answers to
 * one that was given up earlier are passed over. The peer is not trusted: lines are bounded, whatever is not of the form
 * that is expected ends the connection (-EPROTO).
 * Threads: one at a time. */
#pragma once

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "util/cleanup.h"
#include "util/reason.h"

typedef struct QmpClient QmpClient;

typedef struct QmpAddress {
        const char *socket_path; /* of a Unix socket; NULL: by TCP */
        const char *host;        /* name or address */
        unsigned port;
        bool agent;              /* a guest's agent is behind the socket, not QEMU */
        unsigned patience_ms;    /* how long a greeting may take; 0: five seconds */
} QmpAddress;

/* -EHOSTDOWN: nobody listens there; -ETIMEDOUT: no greeting, as another client has the monitor; -EACCES; -EPROTO: what is
 * there is no QEMU. cancel is borrowed and may be NULL. */
int qmp_client_open(const QmpAddress *address, const atomic_bool *cancel, QmpClient **ret, Reason *reterr);
QmpClient *qmp_client_free(QmpClient *client); /* always NULL */
DEFINE_CLEANUP(QmpClient, qmp_client_free)

/* The process that listens at the Unix socket; 0: not known. */
pid_t qmp_client_process(const QmpClient *client);
/* Whether it has broken: all calls fail from now on. */
bool qmp_client_is_lost(const QmpClient *client);

/* Runs a command. arguments are the call's from here on; NULL: none. *ret_value is what it returned, the caller's; may be
 * NULL. -EIO: QEMU refuses, in its words; -EOPNOTSUPP: it does not know the command; -ENOTCONN: it is gone; -ETIMEDOUT: it
 * does not answer; -ECANCELED. */
int qmp_call(QmpClient *client, const char *command, json_t *arguments, json_t **ret_value, Reason *reterr);
/* The same with a descriptor that goes along, which a Unix socket alone can do. It stays the caller's. */
int qmp_call_with_fd(QmpClient *client, const char *command, json_t *arguments, int fd, json_t **ret_value, Reason *reterr);

/* The next event that is there already, without waiting: 1, 0 where there is none, negative where the connection is lost.
 * Events that come while a command runs are not kept. */
int qmp_next_event(QmpClient *client, json_t **ret, Reason *reterr);
