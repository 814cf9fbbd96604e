#include "libraries/library.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

static int load(const Library *library, Reason *reterr) {
        void *handle = dlopen(library->file, RTLD_NOW | RTLD_LOCAL);

        if (!handle)
                return fail(reterr, -ENOPKG, "cannot load %s: %s: the package %s has it", library->file, dlerror(),
                            library->package);
        /* The last one is set last: it tells that all are. */
        for (size_t i = 0; i < library->count; i++) {
                void *address = dlsym(handle, library->symbols[i]);

                if (!address)
                        return fail(reterr, -ENOPKG, "%s is too old: it has no %s", library->file, library->symbols[i]);
                library->addresses[i] = address;
        }
        return 0;
}

int library_load(const Library *library, Reason *reterr) {
        static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        int rc = 0;

        pthread_mutex_lock(&lock);
        if (!library->addresses[library->count - 1])
                rc = load(library, reterr);
        pthread_mutex_unlock(&lock);
        return rc;
}
