#include "mount/holding.h"

#include <errno.h>
#include <stdlib.h>

#include "repository/points-lock.h"
#include "util/cleanup.h"

/* With the lock held. */
static int add(Holding *holding, Vm *vm) {
        Held *grown;
        int fd;

        for (size_t i = 0; i < holding->count; i++)
                if (holding->items[i].vm == vm_serial(vm))
                        return 0;
        grown = reallocarray(holding->items, holding->count + 1, sizeof *grown);
        if (!grown)
                return -ENOMEM;
        holding->items = grown;
        if (points_lock_share(vm, &fd, NULL) < 0)
                return -ESTALE;
        grown[holding->count++] = (Held) { vm_serial(vm), fd };
        return 0;
}

int holding_add(Holding *holding, Vm *vm) {
        int rc;

        pthread_mutex_lock(&holding->lock);
        rc = add(holding, vm);
        pthread_mutex_unlock(&holding->lock);
        return rc;
}

void holding_end(Holding *holding) {
        for (size_t i = 0; i < holding->count; i++)
                close_fd(&holding->items[i].fd);
        free(holding->items);
}
