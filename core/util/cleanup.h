/* core/util/cleanup.h - scope-bound cleanup: acquire, attach, go on; hand out with a steal. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(function) __attribute__((cleanup(function)))

/* Takes a pointer or descriptor out of its variable, so that the cleanup finds nothing. */
#define STEAL_PTR(variable)                        \
        ({                                         \
                __typeof__(variable) *_p = &(variable); \
                __typeof__(variable) _v = *_p;     \
                *_p = NULL;                        \
                _v;                                \
        })
#define STEAL_FD(variable)       \
        ({                       \
                int *_p = &(variable); \
                int _v = *_p;    \
                *_p = -1;        \
                _v;              \
        })

/* Defines NAMEp() for a NAME() that frees a pointer of TYPE and accepts NULL. */
#define DEFINE_CLEANUP(type, name)                \
        static inline void name##p(type **p) {    \
                if (*p)                           \
                        name(*p);                 \
        }

static inline void freep(void *p) {
        free(*(void **) p);
}

static inline void close_fd(int *fd) {
        if (*fd >= 0)
                close(*fd);
}

static inline void close_file(FILE **f) {
        if (*f)
                fclose(*f);
}
