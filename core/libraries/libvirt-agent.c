#include "libraries/libvirt-agent.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "libraries/libvirt-connect.h"
#include "util/clock.h"

#define CANCEL_POLL_MS 100u

/* Shared by the asker and the thread that asks; who leaves last frees it. */
typedef struct Question {
        virDomainPtr domain;
        AgentRequest request;
        pthread_mutex_t lock; /* of all that follows */
        pthread_cond_t answered;
        unsigned holders;
        bool done;
        int rc;
        Reason reason;
} Question;

static void question_leave(Question *question) {
        unsigned left;

        pthread_mutex_lock(&question->lock);
        left = --question->holders;
        pthread_mutex_unlock(&question->lock);
        if (left > 0)
                return;
        pthread_cond_destroy(&question->answered);
        pthread_mutex_destroy(&question->lock);
        virDomainFree(question->domain);
        free(question);
}

static int ask(virDomainPtr domain, AgentRequest request) {
        long long seconds;
        unsigned nanoseconds;

        virResetLastError();
        switch (request) {
        case AGENT_PING:
                return virDomainGetTime(domain, &seconds, &nanoseconds, 0);
        case AGENT_FREEZE:
                return virDomainFSFreeze(domain, NULL, 0, 0);
        case AGENT_THAW:
                return virDomainFSThaw(domain, NULL, 0, 0);
        }
        return -1;
}

static void *run_question(void *context) {
        Question *question = context;
        Reason reason = REASON_INIT;
        int rc = ask(question->domain, question->request);

        if (rc < 0)
                rc = fail(&reason, libvirt_code(-EIO), "%s", libvirt_words());
        pthread_mutex_lock(&question->lock);
        question->rc = rc;
        question->reason = reason;
        question->done = true;
        pthread_cond_signal(&question->answered);
        pthread_mutex_unlock(&question->lock);
        question_leave(question);
        return NULL;
}

static int question_new(virDomainPtr domain, AgentRequest request, Question **ret) {
        Question *question = calloc(1, sizeof *question);

        if (!question || virDomainRef(domain) < 0) {
                free(question);
                return -ENOMEM;
        }
        question->domain = domain;
        question->request = request;
        question->holders = 1;
        pthread_mutex_init(&question->lock, NULL);
        clock_condition_init(&question->answered);
        *ret = question;
        return 0;
}

static bool wait_a_little(Question *question) {
        struct timespec until = clock_in_ms(CANCEL_POLL_MS);

        return pthread_cond_timedwait(&question->answered, &question->lock, &until) != ETIMEDOUT;
}

int libvirt_ask_agent(virDomainPtr domain, AgentRequest request, unsigned patience_ms, const atomic_bool *cancel,
                      Reason *reterr) {
        Question *question;
        int rc;

        if (question_new(domain, request, &question) < 0)
                return fail_oom(reterr);
        question->holders++;
        rc = libvirt_start_thread(run_question, question);
        if (rc < 0) {
                question_leave(question);
                question_leave(question);
                return fail_errno(reterr, rc, "cannot start a thread");
        }
        pthread_mutex_lock(&question->lock);
        rc = 0;
        for (unsigned waited = 0; !question->done && rc == 0;) {
                if (cancel && atomic_load(cancel))
                        rc = fail(reterr, -ECANCELED, "interrupted");
                else if (waited >= patience_ms)
                        rc = fail(reterr, -ETIMEDOUT, "the guest agent does not answer");
                else if (!wait_a_little(question))
                        waited += CANCEL_POLL_MS;
        }
        if (rc == 0 && question->rc < 0)
                rc = fail(reterr, question->rc, "%s", question->reason.text);
        pthread_mutex_unlock(&question->lock);
        question_leave(question);
        return rc;
}
