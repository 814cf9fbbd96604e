#include "capture/rate.h"

#include <pthread.h>
#include <stdlib.h>

#include "util/bytes.h"
#include "util/clock.h"

#define BURST_NS 100000000ull /* what nobody took for so long may be taken at once */
#define SECOND_NS 1000000000ull

struct Rate {
        uint64_t bytes_per_second;
        pthread_mutex_t lock;
        uint64_t free_at; /* ns, of clock_now_ns(): all that has been given out is paid for */
};

Rate *rate_new(uint64_t bytes_per_second) {
        Rate *rate = calloc(1, sizeof *rate);

        if (rate) {
                rate->bytes_per_second = bytes_per_second;
                pthread_mutex_init(&rate->lock, NULL);
        }
        return rate;
}

Rate *rate_free(Rate *rate) {
        if (rate)
                pthread_mutex_destroy(&rate->lock);
        free(rate);
        return NULL;
}

int rate_take(Rate *rate, uint64_t bytes, const Stop *stop) {
        uint64_t now, start;

        if (!rate)
                return 0;
        now = clock_now_ns();
        pthread_mutex_lock(&rate->lock);
        start = max_u64(rate->free_at, now > BURST_NS ? now - BURST_NS : 0);
        rate->free_at = start + (uint64_t) ((double) bytes * (double) SECOND_NS / (double) rate->bytes_per_second);
        pthread_mutex_unlock(&rate->lock);
        return start > now ? stop_pause(stop, (start - now) / 1000000) : 0;
}
