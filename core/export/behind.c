#include "export/behind.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "util/bytes.h"

#define PIECE (4u << 20)              /* bytes: a multiple of DIRECT_GRAIN */
#define PIECES 4
#define THREADS 2
#define AHEAD (UINT64_C(256) << 20)   /* bytes that are set aside at once */

typedef enum PieceState { PIECE_FREE, PIECE_FILLED, PIECE_ON_ITS_WAY } PieceState;

typedef struct Piece {
        unsigned char *bytes;
        size_t length;
        uint64_t offset; /* in the file */
        PieceState state;
} Piece;

struct Behind {
        DirectFile file;
        const char *name;
        Piece *filling;     /* free, as the threads see it; NULL: none */
        uint64_t end;       /* of all that was filled */
        uint64_t set_aside; /* bytes of the file */
        bool ahead;
        pthread_t threads[THREADS];
        size_t started;
        pthread_mutex_t lock; /* of what follows */
        pthread_cond_t changed;
        Piece pieces[PIECES];
        bool over;
        int error;          /* the first one */
};

/* With the lock. */
static Piece *find(Behind *behind, PieceState state) {
        Piece *found = NULL;

        for (size_t i = 0; i < PIECES; i++)
                if (behind->pieces[i].state == state && (!found || behind->pieces[i].offset < found->offset))
                        found = &behind->pieces[i];
        return found;
}

static void *write_pieces(void *argument) {
        Behind *behind = argument;
        Piece *piece;

        pthread_mutex_lock(&behind->lock);
        while ((piece = find(behind, PIECE_FILLED)) || !behind->over) {
                int rc;

                if (!piece) {
                        pthread_cond_wait(&behind->changed, &behind->lock);
                        continue;
                }
                piece->state = PIECE_ON_ITS_WAY;
                rc = behind->error;
                pthread_mutex_unlock(&behind->lock);
                if (rc == 0)
                        rc = direct_write(&behind->file, piece->bytes, piece->length, piece->offset);
                pthread_mutex_lock(&behind->lock);
                if (behind->error == 0)
                        behind->error = rc;
                piece->state = PIECE_FREE;
                pthread_cond_broadcast(&behind->changed);
        }
        pthread_mutex_unlock(&behind->lock);
        return NULL;
}

int behind_new(const DirectFile *file, const char *name, Behind **ret, Reason *reterr) {
        CLEANUP(behind_freep) Behind *behind = calloc(1, sizeof *behind);
        int rc = 0;

        if (!behind)
                return fail_oom(reterr);
        behind->file = *file;
        behind->name = name;
        behind->ahead = true;
        pthread_mutex_init(&behind->lock, NULL);
        pthread_cond_init(&behind->changed, NULL);
        for (size_t i = 0; i < PIECES; i++) {
                behind->pieces[i].bytes = aligned_alloc(DIRECT_GRAIN, PIECE);
                if (!behind->pieces[i].bytes)
                        return fail_oom(reterr);
        }
        while (behind->started < THREADS && rc == 0) {
                rc = -pthread_create(&behind->threads[behind->started], NULL, write_pieces, behind);
                behind->started += rc == 0;
        }
        if (behind->started == 0)
                return fail_errno(reterr, rc, "cannot start a thread");
        *ret = STEAL_PTR(behind);
        return 0;
}

static void end_threads(Behind *behind) {
        pthread_mutex_lock(&behind->lock);
        behind->over = true;
        pthread_cond_broadcast(&behind->changed);
        pthread_mutex_unlock(&behind->lock);
        while (behind->started > 0)
                pthread_join(behind->threads[--behind->started], NULL);
}

Behind *behind_free(Behind *behind) {
        end_threads(behind);
        for (size_t i = 0; i < PIECES; i++)
                free(behind->pieces[i].bytes);
        pthread_cond_destroy(&behind->changed);
        pthread_mutex_destroy(&behind->lock);
        free(behind);
        return NULL;
}

static int fail_write(const Behind *behind, Reason *reterr) {
        return fail_errno(reterr, behind->error, "cannot write %s", behind->name);
}

static int take_piece(Behind *behind, Reason *reterr) {
        Piece *piece = NULL;
        int rc = 0;

        pthread_mutex_lock(&behind->lock);
        while (behind->error == 0 && !(piece = find(behind, PIECE_FREE)))
                pthread_cond_wait(&behind->changed, &behind->lock);
        if (behind->error < 0)
                rc = fail_write(behind, reterr);
        pthread_mutex_unlock(&behind->lock);
        if (rc < 0)
                return rc;
        piece->length = 0;
        piece->offset = behind->end;
        behind->filling = piece;
        return 0;
}

/* Where there is not enough room to set aside, writes find out when there is none at all. */
static void make_room(Behind *behind, uint64_t end) {
        if (!behind->ahead || end <= behind->set_aside)
                return;
        if (direct_set_aside(&behind->file, behind->set_aside, AHEAD) == 0) {
                behind->set_aside += AHEAD;
                return;
        }
        behind->ahead = false;
        (void) ftruncate(behind->file.fd, (off_t) behind->set_aside); /* what was set aside all the same is given back */
}

static void hand_over(Behind *behind) {
        Piece *piece = behind->filling;

        behind->filling = NULL;
        behind->end += piece->length;
        make_room(behind, behind->end);
        pthread_mutex_lock(&behind->lock);
        piece->state = PIECE_FILLED;
        pthread_cond_broadcast(&behind->changed);
        pthread_mutex_unlock(&behind->lock);
}

int behind_write(Behind *behind, const void *bytes, size_t length, Reason *reterr) {
        const unsigned char *from = bytes;

        while (length > 0) {
                int rc = behind->filling ? 0 : take_piece(behind, reterr);
                size_t part;

                if (rc < 0)
                        return rc;
                part = min_u64(length, PIECE - behind->filling->length);
                memcpy(behind->filling->bytes + behind->filling->length, from, part);
                behind->filling->length += part;
                from += part;
                length -= part;
                if (behind->filling->length == PIECE)
                        hand_over(behind);
        }
        return 0;
}

int behind_finish(Behind *behind, Reason *reterr) {
        if (behind->filling)
                hand_over(behind);
        end_threads(behind);
        if (behind->error < 0)
                return fail_write(behind, reterr);
        if (ftruncate(behind->file.fd, (off_t) behind->end) < 0)
                return fail_errno(reterr, -errno, "cannot give %s its size", behind->name);
        return 0;
}
