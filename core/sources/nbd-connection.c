#include "sources/nbd-connection.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "libraries/libnbd-functions.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/text.h"

#define PATIENCE_MS 60000u
#define CANCEL_POLL_MS 200u
#define ADDRESS_MAX 256             /* bytes, NUL included, of what is shown */
#define PIECE_SIZE (256u << 10)     /* requests that a transfer consists of, all in flight at once */
#define PIECES_MAX (NBD_TRANSFER_MAX / PIECE_SIZE)
#define MINIMUM_LIMIT (64u << 10)   /* the protocol allows no larger minimum block */

/* libnbd puts its function's name in front of its words. */
const char *nbd_words(void) {
        const char *words = nbd_get_error() ?: "no reason given", *colon = strstr(words, ": ");

        return colon && strncmp(words, "nbd_", 4) == 0 ? colon + 2 : words;
}

int nbd_code(int otherwise) {
        int code = nbd_get_errno();

        return code > 0 ? -code : otherwise;
}

/* Ends the connection: buffers given to a request that is still open may be reused afterwards. */
static int give_up(NbdConnection *connection, int rc) {
        nbd_close(connection->nbd);
        connection->nbd = NULL;
        return rc;
}

/* Waits once for the server: returns 0 when something has moved. */
static int wait_for_server(NbdConnection *connection, unsigned *silent_ms, Reason *reterr) {
        unsigned direction = nbd_aio_get_direction(connection->nbd);
        struct pollfd fd = { .fd = nbd_aio_get_fd(connection->nbd) };
        unsigned step = (unsigned) min_u64(CANCEL_POLL_MS, connection->patience_ms);
        int rc = 0;

        if (connection->cancel && atomic_load(connection->cancel))
                return give_up(connection, fail(reterr, -ECANCELED, "interrupted"));
        fd.events = (short) ((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                             (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
        rc = poll(&fd, 1, (int) step);
        if (rc < 0 && errno != EINTR)
                return give_up(connection, fail_errno(reterr, -errno, "cannot wait for the NBD server"));
        if (rc <= 0) {
                *silent_ms += rc == 0 ? step : 0;
                if (*silent_ms >= connection->patience_ms)
                        return give_up(connection, fail(reterr, -ETIMEDOUT, "the NBD server has said nothing for %u seconds",
                                                    (connection->patience_ms + 999) / 1000));
                return 0;
        }
        *silent_ms = 0;
        /* A closed connection is found by reading. */
        if ((direction & LIBNBD_AIO_DIRECTION_READ) && (fd.revents & (POLLIN | POLLHUP | POLLERR | POLLNVAL)))
                rc = nbd_aio_notify_read(connection->nbd);
        else
                rc = nbd_aio_notify_write(connection->nbd);
        if (rc < 0) {
                rc = nbd_code(-EIO);
                fail(reterr, rc, "the connection to the NBD server broke: %s", nbd_words());
                return give_up(connection, rc);
        }
        return 0;
}

/* Waits for the answer to the request of this cookie (negative: it was not even sent). */
int nbd_connection_finish(NbdConnection *connection, int64_t cookie, const char *what, Reason *reterr) {
        unsigned silent_ms = 0;
        int rc;

        while (cookie >= 0) {
                rc = nbd_aio_command_completed(connection->nbd, (uint64_t) cookie);
                if (rc > 0)
                        return 0;
                if (rc < 0)
                        break;
                rc = wait_for_server(connection, &silent_ms, reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "%s", what);
        }
        rc = nbd_code(-EIO);
        fail(reterr, rc, "%s: %s", what, nbd_words());
        /* An error that the server answered leaves the connection as good as it was. */
        if (nbd_aio_is_ready(connection->nbd) > 0 || nbd_aio_is_processing(connection->nbd) > 0)
                return rc;
        return give_up(connection, rc);
}

int nbd_connection_lost(Reason *reterr) {
        return fail(reterr, -ENOTCONN, "the connection to the NBD server is gone");
}

/* Reads into one buffer, or, where that is NULL, writes from the other. */
static int transfer(NbdConnection *connection, uint8_t *into, const uint8_t *from, uint64_t length, uint64_t offset,
                    Reason *reterr) {
        uint64_t piece = min_u64(connection->maximum, max_u64(PIECE_SIZE, connection->minimum)), done = 0;
        const char *what = into ? "cannot read" : "cannot write";
        int64_t cookies[PIECES_MAX];

        if (!connection->nbd)
                return nbd_connection_lost(reterr);
        while (done < length) {
                size_t count = 0;
                int first_rc = 0;

                for (; count < PIECES_MAX && done < length && (count == 0 || cookies[count - 1] >= 0); count++) {
                        uint64_t part = min_u64(piece, length - done);

                        cookies[count] = into ? nbd_aio_pread(connection->nbd, into + done, part, offset + done,
                                                              NBD_NULL_COMPLETION, 0)
                                              : nbd_aio_pwrite(connection->nbd, from + done, part, offset + done,
                                                               NBD_NULL_COMPLETION, 0);
                        done += part;
                }
                /* All of them end before the buffer is given back, or the connection does. */
                for (size_t i = 0; i < count && connection->nbd; i++) {
                        Reason reason = REASON_INIT;
                        int rc = nbd_connection_finish(connection, cookies[i], what, &reason);

                        if (rc < 0 && first_rc == 0 && reterr)
                                *reterr = reason;
                        if (rc < 0 && first_rc == 0)
                                first_rc = rc;
                }
                if (first_rc < 0)
                        return first_rc;
        }
        return 0;
}

int nbd_connection_read(NbdConnection *connection, void *buffer, uint64_t length, uint64_t offset, Reason *reterr) {
        return transfer(connection, buffer, NULL, length, offset, reterr);
}

int nbd_connection_write(NbdConnection *connection, const void *buffer, uint64_t length, uint64_t offset, Reason *reterr) {
        return transfer(connection, NULL, buffer, length, offset, reterr);
}

static bool has_authority(const char *directory, const char *below) {
        CLEANUP(freep) char *path = NULL;

        if (text_format(&path, "%s%s/ca-cert.pem", directory, below) < 0)
                return false;
        return access(path, R_OK) == 0;
}

bool nbd_has_certificates(const char *directory) {
        const char *home = getenv("HOME");

        if (directory)
                return has_authority(directory, "");
        if (geteuid() != 0 && home && (has_authority(home, "/.pki/libnbd") || has_authority(home, "/.config/pki/libnbd")))
                return true;
        return has_authority("/etc/pki/libnbd", "");
}

static int start_connecting(NbdConnection *connection, const NbdAddress *address) {
        struct nbd_handle *nbd = connection->nbd;
        char port[16];

        if (address->tls && (nbd_set_tls(nbd, LIBNBD_TLS_REQUIRE) < 0 ||
                             nbd_set_tls_verify_peer(nbd, !address->unverified) < 0 ||
                             (address->certificates && nbd_set_tls_certificates(nbd, address->certificates) < 0) ||
                             (address->psk_file && nbd_set_tls_psk_file(nbd, address->psk_file) < 0) ||
                             (address->user && nbd_set_tls_username(nbd, address->user) < 0)))
                return -1;
        if (address->socket_path)
                return nbd_aio_connect_unix(nbd, address->socket_path);
        snprintf(port, sizeof port, "%u", address->port);
        return nbd_aio_connect_tcp(nbd, address->host, port);
}

/* The address for people. */
static void show_address(const NbdAddress *address, char text[static ADDRESS_MAX]) {
        if (address->socket_path)
                snprintf(text, ADDRESS_MAX, "%s", address->socket_path);
        else
                snprintf(text, ADDRESS_MAX, "%s port %u", address->host, address->port);
}

static int connect_to(NbdConnection *connection, const NbdAddress *address, Reason *reterr) {
        char shown[ADDRESS_MAX];
        unsigned silent_ms = 0;
        int rc;

        show_address(address, shown);
        /* libnbd 1.14 verifies nothing where it finds no authority to verify by (CVE-2024-7383). */
        if (address->tls && !address->unverified && !address->psk_file && !nbd_has_certificates(address->certificates))
                return fail(reterr, -ENOKEY, "cannot verify the NBD server at %s: there is no ca-cert.pem in %s", shown,
                            address->certificates ?: "/etc/pki/libnbd");
        rc = start_connecting(connection, address);
        while (rc >= 0 && nbd_aio_is_connecting(connection->nbd) > 0) {
                rc = wait_for_server(connection, &silent_ms, reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "cannot connect to the NBD server at %s", shown);
        }
        if (rc >= 0 && nbd_aio_is_ready(connection->nbd) > 0)
                return 0;
        rc = nbd_code(-ECONNREFUSED);
        if (rc == -ENOENT) /* callers take that for a VM that is not there */
                rc = -ECONNREFUSED;
        return fail(reterr, rc, "cannot connect to the NBD server at %s: %s", shown, nbd_words());
}

/* What the server said of the export, checked. */
static int learn(NbdConnection *connection, const NbdAddress *address, Reason *reterr) {
        struct nbd_handle *nbd = connection->nbd;
        int64_t size = nbd_get_size(nbd);
        int64_t minimum = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);
        int64_t maximum = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);

        /* libnbd 1.14 passes a size past INT64_MAX on as a negative number that is no error (CVE-2023-5215). */
        if (size < 0)
                return fail(reterr, -EPROTO, "the NBD server says no size of export %s that could be", address->export_name);
        if (minimum <= 0)
                minimum = 1;
        if (maximum <= 0 || maximum > NBD_TRANSFER_MAX)
                maximum = NBD_TRANSFER_MAX;
        if (!is_power_of_2((uint64_t) minimum) || minimum > MINIMUM_LIMIT || maximum < minimum)
                return fail(reterr, -EPROTO, "the NBD server wants requests of at least %lld and at most %lld bytes",
                            (long long) minimum, (long long) maximum);
        connection->minimum = (uint64_t) minimum;
        connection->maximum = round_down((uint64_t) maximum, connection->minimum);
        connection->size = (uint64_t) size;
        connection->multi = nbd_can_multi_conn(nbd) > 0;
        return 0;
}

int nbd_connection_prepare(const NbdAddress *address, const atomic_bool *cancel, NbdConnection *ret, Reason *reterr) {
        struct nbd_handle *nbd;
        int rc = libnbd_load(reterr);

        if (rc < 0)
                return rc;
        nbd = nbd_create();
        if (!nbd)
                return fail(reterr, nbd_code(-ENOMEM), "cannot use libnbd: %s", nbd_words());
        *ret = (NbdConnection) { .nbd = nbd, .cancel = cancel, .patience_ms = address->patience_ms ?: PATIENCE_MS };
        /* Alignment is seen to by who asks: the last bytes of a disk may be less than the server's minimum block. */
        if (nbd_set_export_name(nbd, address->export_name) < 0 || nbd_set_pread_initialize(nbd, false) < 0 ||
            nbd_set_strict_mode(nbd, nbd_get_strict_mode(nbd) & ~(uint32_t) LIBNBD_STRICT_ALIGN) < 0) {
                rc = fail(reterr, nbd_code(-EINVAL), "cannot set up the NBD connection: %s", nbd_words());
                nbd_connection_clear(ret);
        }
        return rc;
}

int nbd_connection_connect(NbdConnection *connection, const NbdAddress *address, Reason *reterr) {
        unsigned patience_ms = connection->patience_ms;
        int rc;

        if (address->connect_ms > 0)
                connection->patience_ms = (unsigned) min_u64(patience_ms, address->connect_ms);
        rc = connect_to(connection, address, reterr);
        connection->patience_ms = patience_ms;
        return rc < 0 ? rc : learn(connection, address, reterr);
}

void nbd_connection_clear(NbdConnection *connection) {
        if (connection->nbd)
                nbd_close(connection->nbd);
        connection->nbd = NULL;
}
