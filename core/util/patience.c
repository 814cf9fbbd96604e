#include "util/patience.h"

#include <stddef.h>

#include "util/clock.h"

static _Thread_local const Patience *current;

void patience_set(const Patience *patience) {
        current = patience;
}

bool patience_is_light(void) {
        return current && current->light;
}

bool patience_is_over(void) {
        return current && current->is_over(current->context);
}

static bool is_past(void *context) {
        const PatienceLimit *limit = context;

        return clock_now_ms() >= limit->deadline || (limit->outer && limit->outer->is_over(limit->outer->context));
}

void patience_limit(PatienceLimit *limit, unsigned milliseconds) {
        *limit = (PatienceLimit) { { is_past, limit, patience_is_light() }, current, clock_now_ms() + milliseconds };
        patience_set(&limit->patience);
}

void patience_unlimit(PatienceLimit *limit) {
        patience_set(limit->outer);
}
