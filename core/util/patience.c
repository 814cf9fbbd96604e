#include "util/patience.h"

#include <stddef.h>

static _Thread_local const Patience *current;

void patience_set(const Patience *patience) {
        current = patience;
}

bool patience_is_over(void) {
        return current && current->is_over(current->context);
}
