#include "sources/libvirt-private.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "util/clock.h"

#define STATS_PERIOD_S 1
#define WORTH_A_WORD (UINT64_C(1) << 30) /* bytes of scratch files */

/* Shared with libvirt's event thread and with the one that asks for figures; who leaves last frees it. */
struct Meanwhile {
        virDomainPtr domain;
        int callback;           /* -1: none is registered */
        atomic_bool started, stopped_by_error;
        atomic_uint_fast64_t scratch_used;

        pthread_mutex_t lock;   /* of what follows */
        pthread_cond_t wake;
        unsigned holders;
        bool over;
};

static void leave(void *context) {
        Meanwhile *meanwhile = context;
        unsigned left;

        pthread_mutex_lock(&meanwhile->lock);
        left = --meanwhile->holders;
        pthread_mutex_unlock(&meanwhile->lock);
        if (left > 0)
                return;
        pthread_cond_destroy(&meanwhile->wake);
        pthread_mutex_destroy(&meanwhile->lock);
        virDomainFree(meanwhile->domain);
        free(meanwhile);
}

static int take_event(virConnectPtr connection, virDomainPtr domain, int event, int detail, void *context) {
        Meanwhile *meanwhile = context;

        if (event == VIR_DOMAIN_EVENT_STARTED)
                atomic_store(&meanwhile->started, true);
        if (event == VIR_DOMAIN_EVENT_SUSPENDED && detail == VIR_DOMAIN_EVENT_SUSPENDED_IOERROR)
                atomic_store(&meanwhile->stopped_by_error, true);
        return 0;
}

static bool wait_for_turn(Meanwhile *meanwhile) {
        struct timespec until = clock_in_ms(STATS_PERIOD_S * 1000);
        bool late = false, over;

        pthread_mutex_lock(&meanwhile->lock);
        while (!meanwhile->over && !late)
                late = pthread_cond_timedwait(&meanwhile->wake, &meanwhile->lock, &until) == ETIMEDOUT;
        over = meanwhile->over;
        pthread_mutex_unlock(&meanwhile->lock);
        return !over;
}

static void *ask_for_figures(void *context) {
        Meanwhile *meanwhile = context;

        while (wait_for_turn(meanwhile)) {
                virTypedParameterPtr figures = NULL;
                unsigned long long used = 0;
                int count = 0, type;

                if (virDomainGetJobStats(meanwhile->domain, &type, &figures, &count, 0) == 0 &&
                    virTypedParamsGetULLong(figures, count, VIR_DOMAIN_JOB_DISK_TEMP_USED, &used) > 0)
                        atomic_store(&meanwhile->scratch_used, used);
                virTypedParamsFree(figures, count);
        }
        leave(meanwhile);
        return NULL;
}

int libvirt_meanwhile_start(LibvirtSource *source, virDomainPtr domain, Reason *reterr) {
        Meanwhile *meanwhile = calloc(1, sizeof *meanwhile);

        if (!meanwhile || virDomainRef(domain) < 0) {
                free(meanwhile);
                return fail_oom(reterr);
        }
        meanwhile->domain = domain;
        meanwhile->holders = 2;
        pthread_mutex_init(&meanwhile->lock, NULL);
        clock_condition_init(&meanwhile->wake);
        meanwhile->callback = virConnectDomainEventRegisterAny(source->connection, domain, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                                               VIR_DOMAIN_EVENT_CALLBACK(take_event), meanwhile, leave);
        if (meanwhile->callback < 0) {
                int rc = fail_libvirt(reterr, -EIO, "cannot be told of what happens to the VM");

                meanwhile->holders = 1;
                leave(meanwhile);
                return rc;
        }
        source->meanwhile = meanwhile;
        if (!source->uri.local) {
                pthread_mutex_lock(&meanwhile->lock);
                meanwhile->holders++;
                pthread_mutex_unlock(&meanwhile->lock);
                if (libvirt_start_thread(ask_for_figures, meanwhile) < 0)
                        leave(meanwhile);
        }
        return 0;
}

void libvirt_meanwhile_end(LibvirtSource *source) {
        Meanwhile *meanwhile = STEAL_PTR(source->meanwhile);

        if (!meanwhile)
                return;
        pthread_mutex_lock(&meanwhile->lock);
        meanwhile->over = true;
        pthread_cond_signal(&meanwhile->wake);
        pthread_mutex_unlock(&meanwhile->lock);
        virConnectDomainEventDeregisterAny(virDomainGetConnect(meanwhile->domain), meanwhile->callback);
        leave(meanwhile);
}

bool libvirt_was_started(const LibvirtSource *source) {
        return source->meanwhile && atomic_load(&source->meanwhile->started);
}

int libvirt_watch_meanwhile(const LibvirtSource *source, Reason *reterr) {
        const Meanwhile *meanwhile = source->meanwhile;

        if (meanwhile && atomic_load(&meanwhile->stopped_by_error))
                return fail(reterr, -ENOSPC, "a write of the guest failed and the VM was stopped, perhaps since the scratch "
                                             "files in %s fill their file system: the job was ended so that the guest can "
                                             "go on", source->place.scratch_directory);
        return 0;
}

void libvirt_tell_scratch(const LibvirtSource *source) {
        const JobPlace *place = &source->place;
        uint64_t used = source->meanwhile ? atomic_load(&source->meanwhile->scratch_used) : 0;

        if (used >= WORTH_A_WORD)
                source_warn(&source->source.owner, "its scratch files in %s on the other host, whose space cannot be "
                                                   "watched from here, grew to %llu MiB",
                            place->scratch_directory, (unsigned long long) (used >> 20));
        if (job_place_was_tight(place))
                source_warn(&source->source.owner, "its scratch files left but %llu MiB of %s: a roomier directory is safer",
                            (unsigned long long) (place->free_least >> 20), place->scratch_directory);
}
