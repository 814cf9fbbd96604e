/* core/restore/rescue.h - reads a disk of which some may not be readable: an error that names the range, or zeroes in its
 * place, of which account is kept.
 *
 * Threads: reads from any; the rest belongs to one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chain/chain.h"

typedef struct Rescue Rescue;

/* path: VM/POINT/DISK, for messages. skip: what cannot be read becomes zeroes. before: bytes of which this is known already.
 * Borrows chain and path. */
int rescue_new(Chain *chain, const char *path, bool skip, uint64_t before, Rescue **ret, Reason *reterr);
Rescue *rescue_free(Rescue *rescue); /* always NULL; NULL is allowed */

/* As chain_read(). -EIO: not all can be read, and it is not to be skipped. */
int rescue_read(Rescue *rescue, void *buffer, size_t length, uint64_t offset, Reason *reterr);
/* The same for a range that was read before: no account is kept. */
int rescue_read_again(Rescue *rescue, void *buffer, size_t length, uint64_t offset, Reason *reterr);

/* Never succeeds: the reason why a range cannot be read, which the map knows. */
int rescue_explain(Rescue *rescue, uint64_t offset, uint64_t length, Reason *reterr);

/* Tells of the ranges before `to` that were skipped and not told of yet, in the order of the disk; tell may be NULL. Reads
 * that are under way are all behind it. */
void rescue_tell(Rescue *rescue, uint64_t to, const char *disk,
                 void (*tell)(void *context, const char *disk, uint64_t start, uint64_t length, const Reason *why),
                 void *context);

uint64_t rescue_told(const Rescue *rescue);  /* bytes, with those from before */
uint64_t rescue_total(const Rescue *rescue); /* the same with those not told of yet */
