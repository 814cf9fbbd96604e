#define FUSE_USE_VERSION 314
#include "mount/waiting.h"

#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <stdatomic.h>
#include <stddef.h>

#include "util/patience.h"

static atomic_uint waiting_count;
static _Thread_local Patience patience;

static bool is_over(void *context) {
        Waiting *waiting = context;

        if (!waiting->waits) {
                waiting->waits = true;
                waiting->refused = atomic_fetch_add(&waiting_count, 1) >= waiting->limit;
        }
        return waiting->refused || fuse_req_interrupted(waiting->req) || fuse_session_exited(waiting->session);
}

void waiting_begin(Waiting *waiting, struct fuse_req *req, struct fuse_session *session, unsigned threads, bool light) {
        *waiting = (Waiting) { .req = req, .session = session, .limit = threads / 2 };
        patience = (Patience) { is_over, waiting, light };
        patience_set(&patience);
}

int waiting_end(Waiting *waiting, int rc) {
        bool given_up = rc < 0 && waiting->waits && is_over(waiting);

        patience_set(NULL);
        if (waiting->waits)
                atomic_fetch_sub(&waiting_count, 1);
        return !given_up ? rc : waiting->refused ? -EAGAIN : -EINTR;
}

static bool always(void *context) {
        return true;
}

void waiting_never(void) {
        static const Patience none = { always, NULL, true };

        patience_set(&none);
}
