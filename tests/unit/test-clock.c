#include <errno.h>

#include "unit.h"
#include "util/clock.h"

static void time_passes_in_both_units_alike(void) {
        uint64_t ms = clock_now_ms(), ns = clock_now_ns();

        CHECK(ns / 1000000 >= ms);
        CHECK(clock_now_ns() >= ns);
}

static void a_moment_is_as_far_ahead_as_was_asked(void) {
        const unsigned far[] = { 0, 1, 999, 1000, 1999, 3600 * 1000 };

        for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
                uint64_t before = clock_now_ns();
                struct timespec then = clock_in_ms(far[i]);
                uint64_t after = clock_now_ns();
                uint64_t at = (uint64_t) then.tv_sec * 1000000000 + (uint64_t) then.tv_nsec;

                CHECK(then.tv_nsec >= 0 && then.tv_nsec < 1000000000);
                CHECK(at >= before + far[i] * UINT64_C(1000000));
                CHECK(at <= after + far[i] * UINT64_C(1000000));
        }
}

/* By another clock, that moment would be long past, or never come. */
static void a_wait_ends_when_its_moment_has_come(void) {
        pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        pthread_cond_t condition;
        uint64_t began = clock_now_ms();
        struct timespec until = clock_in_ms(20);
        int rc = 0;

        clock_condition_init(&condition);
        pthread_mutex_lock(&lock);
        while (rc == 0)
                rc = pthread_cond_timedwait(&condition, &lock, &until);
        pthread_mutex_unlock(&lock);
        pthread_cond_destroy(&condition);
        CHECK_INT(rc, ETIMEDOUT);
        CHECK(clock_now_ms() - began >= 20);
}

int main(void) {
        RUN(time_passes_in_both_units_alike);
        RUN(a_moment_is_as_far_ahead_as_was_asked);
        RUN(a_wait_ends_when_its_moment_has_come);
        return unit_result();
}
