/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_CONFORMANCE_INT_H
#define BDRV_TEST_CONFORMANCE_INT_H

/* Shared by the files of the conformance runner only. */

#include <stdatomic.h>

#include "tests/lib/conformance.h"
#include "tests/lib/history.h"

#define MAX_VEC 12
#define SECTOR 512

typedef struct Runner Runner;

/* One request of the round and what became of it. */
typedef struct Op {
    HistoryOp what;
    Runner *runner;
    uint8_t *buffer, *data; /* what is written, or was read; @data lies in @buffer, not always aligned */
    struct iovec vec[MAX_VEC];
    unsigned vec_count;
    BlockExtent extent;
    uint64_t began, ended; /* in the order of the round: one that ended before another began came first */
    int ret;
    bool done;  /* ret is set */
    bool begun; /* if it is an error: a part may be done all the same */
} Op;

/* The snapshot that stays. */
typedef struct ConformanceSaved {
    char *id;
    uint8_t *model;
    int64_t length;
} ConformanceSaved;

/* A context and its coroutines. */
typedef struct Worker {
    Runner *runner;
    unsigned index;
    AioContext *ctx;
    GThread *thread;
    unsigned left; /* lanes of this worker that still run; its own thread only */
    AioCall call;  /* to start a round, or to quit */
    bool wanted;   /* runner's lock; idle threads: start the round, or quit */
    bool quit;
} Worker;

struct Runner {
    const ConformanceStack *stack;
    const History *history;
    char *id, *dir, *options;
    BdrvGraph *graph;
    BlockBackend *blk;
    uint8_t *model;
    int64_t length; /* now */
    uint8_t *below;          /* the model of an empty image: what shows then */
    ConformanceSaved *saved; /* the snapshot that stays; NULL: none */
    uint64_t random;         /* of states */
    bool resizing;  /* the length changes in this round */
    bool shrunk;    /* it was less after this round than before: requests may have come too late */
    unsigned unit, round, lanes;
    Op ops[CONFORMANCE_MAX_REQUESTS];
    unsigned count;
    _Atomic uint64_t clock; /* of began and ended */
    AioSim *sim;
    Worker workers[CONFORMANCE_MAX_CONTEXTS];
    pthread_mutex_t lock;
    pthread_cond_t all_done, start;
    unsigned busy;        /* lock: workers whose round is not over */
    uint64_t *boundaries; /* scratch */
    ConformanceResult result;
};

/** conformance_fail() - tell what the round was, how to replay it, and what is wrong; abort */
void G_GNUC_NORETURN G_GNUC_PRINTF(2, 3) conformance_fail(Runner *r, const char *format, ...);
BdrvOpenFlags conformance_flags(const ConformanceStack *stack);

/* conformance_op.c */

/** conformance_prepare_op() - buffers and data of an operation that was drawn */
void conformance_prepare_op(Runner *r, Op *op, const HistoryOp *what);
void conformance_clear_op(Op *op);
/** conformance_carry_out() - in a coroutine of the op's context; sets began, ended, ret, done */
void coroutine_fn conformance_carry_out(Op *op);
#define CONFORMANCE_NODE "conformance-root" /* node-name of what the run is about */

/* conformance_state.c */

/** conformance_change_state() - one of HISTORY_SAVE .. HISTORY_REPAIR; what the format does not have is left out */
void blocking_fn conformance_change_state(Runner *r, HistoryKind kind);
/** conformance_check_saved() - with the image closed: its snapshot holds what was saved */
void blocking_fn conformance_check_saved(Runner *r);
void conformance_forget_saved(Runner *r);

/* conformance_model.c */

/** conformance_check_content() - may [offset, +bytes) hold @found; @reader: for this one; NULL: after the round */
void conformance_check_content(Runner *r, const char *what, int64_t offset, int64_t bytes, const uint8_t *found,
                               const Op *reader);
void conformance_check_status(Runner *r, const Op *op);
/** conformance_learn() - all answers of the round are checked, and the model becomes what the image holds now */
void blocking_fn conformance_learn(Runner *r);
/** conformance_compare_all() - content and status of the whole image, between rounds */
void blocking_fn conformance_compare_all(Runner *r);

#endif
