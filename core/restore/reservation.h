/* core/restore/reservation.h - room in the target for data that are about to be written.
 *
 * ext4 lets one write at a time go into a hole; into room that was set aside before, they go side by side. Room is set aside
 * for long data, a good part of the disk at once: doing so waits for all writes that are under way.
 * Threads: any. */
#pragma once

#include <stdbool.h>

#include "chain/chain.h"
#include "restore/target.h"

typedef struct Reservation Reservation;

/* Both are borrowed. *ret is NULL where the target knows no such thing, which the others take as well. */
int reservation_new(Chain *chain, DiskTarget *target, Reservation **ret);
Reservation *reservation_free(Reservation *reservation); /* always NULL */
DEFINE_CLEANUP(Reservation, reservation_free)

/* Sees to it for what lies before end, and some way ahead. That there is no room is for the writes to find out. */
void reservation_make(Reservation *reservation, uint64_t end);

/* Among the data are zeroes, which are not to take room: no more is set aside. */
void reservation_stop(Reservation *reservation);
/* Whether any was made: a hole has to be punched where zeroes are among the data. */
bool reservation_is_made(const Reservation *reservation);
