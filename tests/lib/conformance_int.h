/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_CONFORMANCE_INT_H
#define BDRV_TEST_CONFORMANCE_INT_H

/* Shared by the files of the conformance runner only. */

#include <stdatomic.h>

#include <bdrv/bitmap.h>

#include "tests/lib/conformance.h"
#include "tests/lib/history.h"

#define MAX_VEC 12
#define CONFORMANCE_KEY_SLOTS 8
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

#define CONFORMANCE_BITMAPS 4

/* A dirty bitmap, and what it must hold. */
typedef struct ConformanceBitmap {
    int64_t granularity; /* 0: there is none */
    bool enabled;
    uint8_t *must, *may; /* for each granule of the longest disk: the bit is set, can be set */
} ConformanceBitmap;

/* The change of a bitmap in this round, in the order of its requests. */
typedef struct ConformanceBeside {
    const HistoryOp *what;
    uint64_t began, ended;
    bool done;           /* it worked */
    bool was_enabled;
    BdrvDirtyBits *bits; /* that were read; NULL: none */
    unsigned read_from;  /* of which bitmap */
    uint64_t read_began, read_ended;
} ConformanceBeside;

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
    unsigned base;           /* of the stack's bases, the one below; past the last: none */
    ConformanceBitmap bitmaps[CONFORMANCE_BITMAPS];
    ConformanceBeside beside;
    uint8_t keys[CONFORMANCE_KEY_SLOTS]; /* which secret opens each slot, from 1 on; 0: it is free */
    unsigned key;                        /* the one that the image was opened with */
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

/** conformance_options() - what to open the image with; caller frees */
BdrvOptions *conformance_options(const Runner *r);
void blocking_fn conformance_open(Runner *r);
/** conformance_close() - and look at what is there while it is closed */
void blocking_fn conformance_close(Runner *r);
/** conformance_let_others_on() - beside requests, one of which stands in the way */
void blocking_fn conformance_let_others_on(Runner *r);
/** conformance_resize() - between rounds; @by_amend: as an amend does */
void blocking_fn conformance_resize(Runner *r, int64_t length, bool by_amend);

/* conformance_op.c */

/** conformance_prepare_op() - buffers and data of an operation that was drawn */
void conformance_prepare_op(Runner *r, Op *op, const HistoryOp *what);
void conformance_clear_op(Op *op);
/** conformance_carry_out() - in a coroutine of the op's context; sets began, ended, ret, done */
void coroutine_fn conformance_carry_out(Op *op);
#define CONFORMANCE_NODE "conformance-root" /* node-name of what the run is about */

/* conformance_state.c */

/** conformance_change_state() - HISTORY_SAVE, _GOTO, _EMPTY; what the format does not have is left out */
void blocking_fn conformance_change_state(Runner *r, HistoryKind kind);
/** conformance_change_beside() - beside requests: HISTORY_VMSTATE .. _AMEND, which leave the content as it is */
void blocking_fn conformance_change_beside(Runner *r, const HistoryOp *op);
/** conformance_delete_saved() - the snapshot that stays, if there is one */
void blocking_fn conformance_delete_saved(Runner *r);
/** conformance_check_saved() - with the image closed: its snapshot holds what was saved */
void blocking_fn conformance_check_saved(Runner *r);
void conformance_forget_saved(Runner *r);

/* conformance_keys.c */

/** conformance_change_keys() - add a key, or erase some, by an amend; beside requests */
void blocking_fn conformance_change_keys(Runner *r, const HistoryOp *op);
/** conformance_pick_key() - one of those that open the image, for the next opening */
void conformance_pick_key(Runner *r);
/** conformance_key_name() - ID of a secret, NULL: the image has no keys */
const char *conformance_key_name(const Runner *r, unsigned key);
/** conformance_add_keys() - all secrets to the graph; the first one opens what setup() makes */
void conformance_add_keys(Runner *r);

/* conformance_bitmaps.c */

/** conformance_change_bitmap() - one of HISTORY_BITMAP_…, beside requests */
void blocking_fn conformance_change_bitmap(Runner *r, const HistoryOp *op);
/** conformance_bitmaps_learn() - what the requests of the round set; before conformance_bitmaps_learn_change() */
void conformance_bitmaps_learn(Runner *r);
void conformance_bitmaps_learn_change(Runner *r, int64_t offset, int64_t bytes, const uint8_t *before,
                                      const uint8_t *now);
/** conformance_bitmaps_note() - a change between rounds; @sure: else it may have been left out */
void conformance_bitmaps_note(Runner *r, int64_t offset, int64_t bytes, bool sure);
void conformance_bitmaps_resize(Runner *r, int64_t length);
/** conformance_check_bitmaps() - between rounds, with any handle: they are what they must be, and known from now on */
void blocking_fn conformance_check_bitmaps(Runner *r, BlockBackend *blk);
/** conformance_remove_bitmaps() - all of them */
void blocking_fn conformance_remove_bitmaps(Runner *r);
void conformance_forget_bitmaps(Runner *r);

/* conformance_chain.c */

/** conformance_change_chain() - HISTORY_COMMIT, _REBASE, _BACKING */
void blocking_fn conformance_change_chain(Runner *r, const HistoryOp *op);
unsigned conformance_count_bases(const ConformanceStack *stack);

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
