/* fs/mount/holding.h - what a mount that is held for somebody (-o hold=) keeps from being deleted: the points of each
 * VM of which an image was opened, until it ends. Between two of these the one it is held for may be shut off, and needs
 * them still.
 *
 * Threads: any; a lock is taken where such a mount opens an image. */
#pragma once

#include <pthread.h>
#include <stddef.h>

#include "repository/vm.h"

typedef struct Held {
        uint32_t vm; /* serial */
        int fd;      /* of the lock; -1: none is to be had */
} Held;

typedef struct Holding {
        pthread_mutex_t lock;
        Held *items;
        size_t count;
} Holding;
#define HOLDING_INIT { .lock = PTHREAD_MUTEX_INITIALIZER }

/* -ESTALE: the points are being deleted. */
int holding_add(Holding *holding, Vm *vm);
void holding_end(Holding *holding);
