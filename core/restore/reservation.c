#include "restore/reservation.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "util/bytes.h"

#define WINDOW (UINT64_C(256) << 20) /* bytes: what is looked at once */
#define LONG (UINT64_C(4) << 20)     /* data that are worth it */

struct Reservation {
        Chain *chain;
        DiskTarget *target;
        pthread_mutex_t lock; /* of making */
        atomic_uint_fast64_t done; /* made up to here */
        atomic_bool stopped, made;
};

int reservation_new(Chain *chain, DiskTarget *target, Reservation **ret) {
        Reservation *reservation;

        *ret = NULL;
        if (!target->ops->reserve)
                return 0;
        reservation = calloc(1, sizeof *reservation);
        if (!reservation)
                return -ENOMEM;
        reservation->chain = chain;
        reservation->target = target;
        pthread_mutex_init(&reservation->lock, NULL);
        *ret = reservation;
        return 0;
}

Reservation *reservation_free(Reservation *reservation) {
        pthread_mutex_destroy(&reservation->lock);
        free(reservation);
        return NULL;
}

static void reserve_run(Reservation *reservation, uint64_t start, uint64_t end) {
        if (end - start < LONG)
                return;
        atomic_store(&reservation->made, true);
        if (disk_target_reserve(reservation->target, end - start, start) < 0)
                atomic_store(&reservation->stopped, true);
}

/* What cannot be told is left to who reads it. */
static void reserve_window(Reservation *reservation, uint64_t start, uint64_t end) {
        uint64_t run = start;

        for (uint64_t at = start; at < end && !atomic_load(&reservation->stopped);) {
                ChainExtent extent;

                if (chain_extent_at(reservation->chain, at, &extent, NULL) < 0)
                        return;
                if (extent.state != EXTENT_DATA) {
                        reserve_run(reservation, run, at);
                        run = min_u64(extent.start + extent.length, end);
                }
                at = min_u64(extent.start + extent.length, end);
        }
        if (!atomic_load(&reservation->stopped))
                reserve_run(reservation, run, end);
}

void reservation_make(Reservation *reservation, uint64_t end) {
        uint64_t size = reservation ? chain_size(reservation->chain) : 0;

        if (!reservation || atomic_load(&reservation->done) >= end || atomic_load(&reservation->stopped))
                return;
        pthread_mutex_lock(&reservation->lock);
        for (uint64_t at; (at = atomic_load(&reservation->done)) < end && !atomic_load(&reservation->stopped);) {
                uint64_t next = min_u64(round_down(at, WINDOW) + WINDOW, size);

                if (next + WINDOW > end) /* those far behind have been passed over, or were written before */
                        reserve_window(reservation, at, next);
                atomic_store(&reservation->done, next);
        }
        pthread_mutex_unlock(&reservation->lock);
}

void reservation_stop(Reservation *reservation) {
        if (reservation)
                atomic_store(&reservation->stopped, true);
}

bool reservation_is_made(const Reservation *reservation) {
        return reservation && atomic_load(&reservation->made);
}
