/* core/util/reason.h - the words that go with an error code.
 *
 * Functions return 0 (or a count) or a negative errno, and write the words into a Reason on the caller's
 * stack, so that reporting cannot fail. A Reason is written only on failure; NULL is always allowed.
 * The text is one line, says what failed and why, and has neither a program name in front nor a full stop
 * at the end. */
#pragma once

#define REASON_MAX 512

typedef struct Reason {
        char text[REASON_MAX]; /* longer texts are cut; control characters become '?' */
} Reason;

#define REASON_INIT ((Reason) { "" })

/* Writes the words and returns rc, so that `return fail(reterr, -EIO, …)` is one line. */
int fail(Reason *reterr, int rc, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As fail() for a failed call: ": " and the text of -rc are appended. */
int fail_errno(Reason *reterr, int rc, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "SUBJECT: " in front of words that are already there, and returns rc. */
int fail_within(Reason *reterr, int rc, const char *format, ...) __attribute__((format(printf, 3, 4)));

int fail_oom(Reason *reterr);
