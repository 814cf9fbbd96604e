/* core/formats/qcow2/member.h - what LayerLocation.member says of a layer in a qcow2 image.
 *
 * "parent=BYTES": the size of the disk that has what is absent here; without it nothing is absent. "snapshot=ID": the
 * internal snapshot, to the end of the text; without it the active state. NULL is neither. */
#pragma once

#include <stdint.h>

#include "util/reason.h"

typedef struct Qcow2Member {
        uint64_t parent_size; /* bytes; 0: there is no parent */
        const char *snapshot; /* id; or NULL */
} Qcow2Member;

/* member is borrowed by *ret. -EBADMSG. */
int qcow2_member_parse(const char *member, Qcow2Member *ret, Reason *reterr);
/* The caller frees *ret, which is NULL where there is nothing to say. -ENOMEM. */
int qcow2_member_format(const Qcow2Member *member, char **ret);
