#include "mount/completeness.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "repository/lineage.h"
#include "util/clock.h"
#include "util/strings.h"

#define LIFETIME_MS 1000

/* The judgement on one VM's points: of as many as are looked into at once, which is seldom more than one. */
struct Completeness {
        pthread_mutex_t lock; /* of all that follows; held while a VM is judged, so that others wait rather than judge too */
        SharedVm *vm;         /* NULL: none yet */
        uint64_t until;       /* ms, of clock_now_ms() */
        Strings points;       /* sorted */
        char **problems;      /* of each; NULL where it is complete */
};

int completeness_new(Completeness **ret) {
        Completeness *completeness = calloc(1, sizeof *completeness);

        if (!completeness)
                return -ENOMEM;
        pthread_mutex_init(&completeness->lock, NULL);
        *ret = completeness;
        return 0;
}

static void drop(Completeness *completeness) {
        for (size_t i = 0; completeness->problems && i < completeness->points.count; i++)
                free(completeness->problems[i]);
        free(completeness->problems);
        completeness->problems = NULL;
        strings_free(&completeness->points);
        completeness->vm = shared_vm_unref(completeness->vm);
}

Completeness *completeness_free(Completeness *completeness) {
        if (completeness) {
                drop(completeness);
                pthread_mutex_destroy(&completeness->lock);
        }
        free(completeness);
        return NULL;
}

static bool is_fresh(const Completeness *completeness, const SharedVm *vm) {
        return completeness->vm && vm_serial(completeness->vm->vm) == vm_serial(vm->vm) &&
               clock_now_ms() < completeness->until;
}

static int judge(Completeness *completeness, SharedVm *vm, Reason *reterr) {
        CLEANUP(lineage_clear) Lineage lineage = { 0 };
        int rc = lineage_of_vm(vm->vm, &lineage, reterr);

        drop(completeness);
        if (rc < 0)
                return rc;
        completeness->problems = calloc(lineage.count + 1, sizeof *completeness->problems);
        for (size_t i = 0; completeness->problems && i < lineage.count; i++) {
                const char *problem = lineage_problem(&lineage.points[i]);

                if (strings_add(&completeness->points, lineage.points[i].name) < 0)
                        return fail_oom(reterr);
                if (problem && !(completeness->problems[i] = strdup(problem)))
                        return fail_oom(reterr);
        }
        if (!completeness->problems)
                return fail_oom(reterr);
        completeness->vm = shared_vm_ref(vm);
        completeness->until = clock_now_ms() + LIFETIME_MS;
        return 0;
}

int completeness_problem(Completeness *completeness, SharedVm *vm, const char *point, char **ret, Reason *reterr) {
        char **found = NULL;
        int rc = 0;

        pthread_mutex_lock(&completeness->lock);
        if (is_fresh(completeness, vm))
                found = strings_find(&completeness->points, point);
        if (!found) { /* old, or older than the point */
                rc = judge(completeness, vm, reterr);
                if (rc == 0)
                        found = strings_find(&completeness->points, point);
        }
        if (rc == 0 && !found)
                rc = fail(reterr, -ENOENT, "%s has no point %s", vm_name(vm->vm), point);
        if (rc == 0) {
                const char *problem = completeness->problems[found - completeness->points.items];

                *ret = problem ? strdup(problem) : NULL;
                if (problem && !*ret)
                        rc = fail_oom(reterr);
        }
        pthread_mutex_unlock(&completeness->lock);
        return rc;
}
