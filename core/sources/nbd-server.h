/* core/sources/nbd-server.h - a program that serves NBD, started and ended by us.
 *
 * It is handed a Unix socket that listens already (socket activation: LISTEN_FDS), so that it can be connected to at once
 * and nobody else can be in its place. It dies with the thread that started it, also by kill -9.
 * Threads: belongs to one, which must be there as long as the server. */
#pragma once

#include "util/cleanup.h"
#include "util/reason.h"

typedef struct NbdServer NbdServer;

/* argv: the program, looked up in PATH, with its arguments; ends with NULL. socket_path is made, in a directory that only
 * this user may enter, and must not be there. */
int nbd_server_start(const char *const *argv, const char *socket_path, NbdServer **ret, Reason *reterr);

/* -ECHILD where it has ended: its own words. For a connection that failed: the true cause. */
int nbd_server_check(NbdServer *server, Reason *reterr);

NbdServer *nbd_server_stop(NbdServer *server); /* always NULL; the socket is removed */
DEFINE_CLEANUP(NbdServer, nbd_server_stop)
