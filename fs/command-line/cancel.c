#include "command-line/cancel.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

static const int ends[] = { SIGINT, SIGTERM, SIGHUP };
static atomic_bool cancelled;

static void cancel(int signal_number) {
        (void) signal_number;
        atomic_store(&cancelled, true);
}

const atomic_bool *cancel_on_signals(void) {
        struct sigaction action = { .sa_handler = cancel }, old;

        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
                if (sigaction(ends[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
                        sigaction(ends[i], &action, NULL);
        signal(SIGPIPE, SIG_IGN);
        return &cancelled;
}
