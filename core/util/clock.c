#include "util/clock.h"

#define NS_PER_S 1000000000l
#define NS_PER_MS 1000000l

static struct timespec now(void) {
        struct timespec moment;

        clock_gettime(CLOCK_MONOTONIC, &moment);
        return moment;
}

uint64_t clock_now_ns(void) {
        struct timespec moment = now();

        return (uint64_t) moment.tv_sec * NS_PER_S + (uint64_t) moment.tv_nsec;
}

uint64_t clock_now_ms(void) {
        return clock_now_ns() / NS_PER_MS;
}

struct timespec clock_in_ms(unsigned ms) {
        struct timespec moment = now();

        moment.tv_sec += ms / 1000;
        moment.tv_nsec += ms % 1000 * NS_PER_MS;
        if (moment.tv_nsec >= NS_PER_S) {
                moment.tv_nsec -= NS_PER_S;
                moment.tv_sec++;
        }
        return moment;
}

void clock_condition_init(pthread_cond_t *condition) {
        pthread_condattr_t attributes;

        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(condition, &attributes);
        pthread_condattr_destroy(&attributes);
}
