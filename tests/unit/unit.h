/* tests/unit/unit.h - the little that a unit test needs.
 *
 * A test is a function named CONDITION_RESULT; main() runs them with RUN() and returns unit_result(). A failed
 * CHECK names the place and both values, and ends the program: what follows would rest on it. */
#pragma once

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                       \
        do {                                                                                   \
                if (!(condition)) {                                                            \
                        fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
                        exit(1);                                                               \
                }                                                                              \
        } while (0)

#define CHECK_INT(got, expected)                                                                              \
        do {                                                                                                  \
                intmax_t _g = (intmax_t) (got), _e = (intmax_t) (expected);                                   \
                if (_g != _e) {                                                                               \
                        fprintf(stderr, "%s:%d: %s is %" PRIdMAX ", not %" PRIdMAX "\n", __FILE__, __LINE__, #got, _g, _e); \
                        exit(1);                                                                              \
                }                                                                                             \
        } while (0)

#define CHECK_TEXT(got, expected)                                                                                   \
        do {                                                                                                        \
                const char *_g = (got), *_e = (expected);                                                           \
                if (!_g || strcmp(_g, _e) != 0) {                                                                   \
                        fprintf(stderr, "%s:%d: %s is \"%s\", not \"%s\"\n", __FILE__, __LINE__, #got, _g ?: "(null)", _e); \
                        exit(1);                                                                                    \
                }                                                                                                   \
        } while (0)

/* That the text of a reason says something: refusals are tested by their words as well. */
#define CHECK_SAYS(reason, words)                                                                                 \
        do {                                                                                                      \
                if (!strstr((reason).text, (words))) {                                                            \
                        fprintf(stderr, "%s:%d: \"%s\" does not say \"%s\"\n", __FILE__, __LINE__, (reason).text, (words)); \
                        exit(1);                                                                                  \
                }                                                                                                 \
        } while (0)

static int unit_ran;

#define RUN(test)                              \
        do {                                   \
                test();                        \
                unit_ran++;                    \
                printf("ok %s\n", #test);      \
                fflush(stdout);                \
        } while (0)

static inline int unit_result(void) {
        return unit_ran > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
