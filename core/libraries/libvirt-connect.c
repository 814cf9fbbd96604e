#include "libraries/libvirt-connect.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

#define EVENTS_PAUSE_MS 50
#define KEEPALIVE_SECONDS 5     /* a libvirtd that does not answer this often … */
#define KEEPALIVE_COUNT 6       /* … so many times is given up */

static void say_nothing(void *data, virErrorPtr error) {
}

const char *libvirt_words(void) {
        return virGetLastErrorMessage();
}

int libvirt_code(int otherwise) {
        const virError *error = virGetLastError();

        switch (error ? error->code : VIR_ERR_OK) {
        case VIR_ERR_NO_MEMORY:
                return -ENOMEM;
        case VIR_ERR_NO_DOMAIN:
                return -ENOENT;
        case VIR_ERR_NO_DOMAIN_CHECKPOINT:
        case VIR_ERR_CHECKPOINT_INCONSISTENT:
                return -ESTALE;
        case VIR_ERR_AUTH_FAILED:
        case VIR_ERR_AUTH_CANCELLED:
        case VIR_ERR_AUTH_UNAVAILABLE:
        case VIR_ERR_ACCESS_DENIED:
                return -EACCES;
        case VIR_ERR_OPERATION_TIMEOUT:    /* another operation on the domain has its lock */
        case VIR_ERR_BLOCK_COPY_ACTIVE:
                return -EBUSY;
        case VIR_ERR_RPC:
        case VIR_ERR_INVALID_CONN:
        case VIR_ERR_NO_CONNECT:
                return -ENOTCONN;
        case VIR_ERR_SYSTEM_ERROR:
        case VIR_ERR_INTERNAL_ERROR:
                return error->domain == VIR_FROM_RPC ? -ENOTCONN : otherwise;
        default:
                return otherwise;
        }
}

int fail_libvirt(Reason *reterr, int otherwise, const char *what) {
        return fail(reterr, libvirt_code(otherwise), "%s: %s", what, libvirt_words());
}

/* libvirt's keepalive, without which a libvirtd that hangs would hang us for ever, needs an event loop that runs. */
static void *run_events(void *data) {
        for (;;)
                if (virEventRunDefaultImpl() < 0)
                        usleep(EVENTS_PAUSE_MS * 1000);
        return NULL;
}

static bool events_run;

int libvirt_start_thread(void *(*run)(void *context), void *context) {
        sigset_t all, before;
        pthread_t thread;
        int rc;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        rc = -pthread_create(&thread, NULL, run, context);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (rc == 0)
                pthread_detach(thread);
        return rc;
}

static void start_libvirt(void) {
        virSetErrorFunc(NULL, say_nothing);
        if (virInitialize() == 0 && virEventRegisterDefaultImpl() == 0)
                events_run = libvirt_start_thread(run_events, NULL) == 0;
}

int libvirt_open_connection(const char *uri, const char *shown, virConnectPtr *ret, Reason *reterr) {
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        virConnectPtr connection;
        int rc = libvirt_load(reterr);

        if (rc < 0)
                return rc;
        pthread_once(&once, start_libvirt);
        connection = virConnectOpen(uri);
        if (!connection)
                return fail(reterr, libvirt_code(-ENOTCONN), "cannot connect to libvirt at %s: %s", shown, libvirt_words());
        if (events_run)
                virConnectSetKeepAlive(connection, KEEPALIVE_SECONDS, KEEPALIVE_COUNT);
        *ret = connection;
        return 0;
}
