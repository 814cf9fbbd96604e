#include "chain/ancestry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "util/parallel.h"

#define ONE_BY_ONE 4 /* most chains that are opened anew end, or meet one that is open, before that */
#define BATCH_FIRST 64 /* each next is twice as long */
#define BATCH 512
#define THREADS 8    /* measured: more gain nothing on a local disk */

struct Ancestry {
        Vm *vm;
        unsigned asked;
        size_t batch; /* how many are read ahead next time */
        Strings names;          /* of all points, sorted; listed when first needed */
        Manifest *ahead[BATCH]; /* read before they were asked for; NULL where that failed */
        size_t ahead_count;
        size_t ahead_end;       /* index in names of the point behind the first of them: they go down from there */
};

int ancestry_new(Vm *vm, Ancestry **ret) {
        Ancestry *ancestry = calloc(1, sizeof *ancestry);

        if (!ancestry)
                return -ENOMEM;
        ancestry->vm = vm;
        ancestry->batch = BATCH_FIRST;
        *ret = ancestry;
        return 0;
}

static void forget_ahead(Ancestry *ancestry) {
        while (ancestry->ahead_count > 0)
                manifest_unref(ancestry->ahead[--ancestry->ahead_count]);
}

Ancestry *ancestry_free(Ancestry *ancestry) {
        if (!ancestry)
                return NULL;
        forget_ahead(ancestry);
        strings_free(&ancestry->names);
        free(ancestry);
        return NULL;
}

static void read_one(void *context, size_t index) {
        Ancestry *ancestry = context;
        const char *name = ancestry->names.items[ancestry->ahead_end - 1 - index];

        if (manifest_read(ancestry->vm, name, &ancestry->ahead[index], NULL) < 0)
                ancestry->ahead[index] = NULL;
}

/* Reads that point and those before it. What fails is read again by who asks for it, and so told. */
static void read_ahead(Ancestry *ancestry, const char *name) {
        char **found;

        if (ancestry->names.count == 0 && vm_list_points(ancestry->vm, &ancestry->names, NULL) < 0)
                return;
        found = strings_find(&ancestry->names, name);
        if (!found)
                return;
        forget_ahead(ancestry);
        ancestry->ahead_end = (size_t) (found - ancestry->names.items) + 1;
        ancestry->ahead_count = min_u64(ancestry->ahead_end, ancestry->batch);
        ancestry->batch = min_u64(ancestry->batch * 2, BATCH);
        parallel_for(ancestry->ahead_count, THREADS, read_one, ancestry);
}

static Manifest *find(const Ancestry *ancestry, const char *name) {
        for (size_t i = 0; i < ancestry->ahead_count; i++)
                if (ancestry->ahead[i] && strcmp(ancestry->ahead[i]->name, name) == 0)
                        return ancestry->ahead[i];
        return NULL;
}

int ancestry_read(Ancestry *ancestry, const char *name, Manifest **ret, Reason *reterr) {
        Manifest *manifest = find(ancestry, name);

        if (!manifest && ancestry->asked++ >= ONE_BY_ONE) {
                read_ahead(ancestry, name);
                manifest = find(ancestry, name);
        }
        if (!manifest)
                return manifest_read(ancestry->vm, name, ret, reterr);
        *ret = manifest_ref(manifest);
        return 0;
}
