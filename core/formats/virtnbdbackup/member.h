/* core/formats/virtnbdbackup/member.h - what a layer's location says in the format's own words: "[SIZE]:[NAME]".
 *
 * Threads: any. */
#pragma once

#include <stdint.h>

typedef struct Member {
        uint64_t grown_from; /* of an increment onto a smaller disk, the size of that: what no frame tells of behind it is
                              * zeroes, as QEMU does not mark what a disk grows by. UINT64_MAX: it has not grown */
        const char *name;    /* in a zip file; NULL: the file itself */
} Member;

/* The text, NULL where neither is to be said. The caller frees *ret. -ENOMEM. */
int member_format(const Member *member, char **ret);
/* text may be NULL; the name points into it. -EBADMSG. */
int member_parse(const char *text, Member *ret);
