/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_HISTORY_H
#define BDRV_TEST_HISTORY_H

/*
 * What a conformance run does, drawn before it is done: so it can be written down, replayed from a file,
 * and made smaller as long as it still fails.
 *
 * A history is a list of rounds. The requests of a round run at once, in lanes: those of one lane one
 * after the other. A round of one of the last kinds stands alone and is done by the thread of the run.
 */

#include <bdrv/types.h>

typedef struct ConformanceStack ConformanceStack;
typedef struct ConformanceRun ConformanceRun;

typedef enum HistoryKind {
    HISTORY_READ,
    HISTORY_WRITE,
    HISTORY_ZERO,
    HISTORY_DISCARD,
    HISTORY_FLUSH,
    HISTORY_STATUS,
    HISTORY_COPY,
    /* beside requests */
    HISTORY_DRAIN,  /* for @turns */
    HISTORY_REOPEN, /* read-only (even seed) or with other options (odd), for @turns; then as before */
    HISTORY_HANDLE, /* open another handle, read with callbacks, close it at once */
    /* beside requests, done by the thread of the run: one of a round at most */
    HISTORY_GROW,   /* to the length @offset, while the requests run */
    HISTORY_SHRINK, /* likewise; requests past the new end fail if they come too late */
    HISTORY_CHECK,  /* find no corruption */
    HISTORY_SNAPSHOT, /* make one and delete it again: requests before, between and behind */
    HISTORY_VMSTATE,  /* save some of a VM's state and load it; @seed: which */
    HISTORY_REPAIR,   /* check with repair: there is nothing to do */
    HISTORY_INVALIDATE, /* forget all that is cached */
    HISTORY_AMEND,      /* to version 2 and back, refcounts of another width, lazy ones; @seed: to what */
    HISTORY_KEYS,       /* add a key to a free slot, or erase some; @seed: which */
    /* dirty bitmaps; @seed: which one, and how it is made or what is merged */
    HISTORY_BITMAP_ADD,
    HISTORY_BITMAP_REMOVE,
    HISTORY_BITMAP_ENABLE,
    HISTORY_BITMAP_DISABLE,
    HISTORY_BITMAP_CLEAR,
    HISTORY_BITMAP_MERGE,
    HISTORY_BITMAP_READ,
    /* alone */
    HISTORY_CLOSE,        /* and open again */
    HISTORY_REOPEN_ALONE, /* with the same flags */
    HISTORY_RESIZE,       /* to the length @offset */
    HISTORY_AMEND_SIZE,   /* the same by an amend */
    HISTORY_COMPARE,      /* all of the content and of the block status */
    HISTORY_SAVE,         /* a snapshot that stays, instead of the one before */
    HISTORY_GOTO,         /* apply it, if there is one */
    HISTORY_EMPTY,        /* drop all data: what is below shows */
    HISTORY_COMMIT,       /* write what the image has into its backing file; @seed: empty it then, or not */
    HISTORY_REBASE,       /* over another backing file, so that it reads as before; @seed: which one */
    HISTORY_BACKING,      /* the name of another backing file alone; @seed: which one */
    HISTORY_KINDS,
} HistoryKind;

typedef struct HistoryOp {
    HistoryKind kind;
    unsigned lane;
    int64_t offset, bytes;
    int64_t source; /* COPY */
    BdrvRequestFlags flags;
    uint64_t seed; /* of the data and of how it is scattered; of what else there is to choose */
    unsigned turns;
    bool cancel; /* made with a callback, and cancelled after @turns */
} HistoryOp;

typedef struct HistoryRound {
    GArray *ops; /* HistoryOp */
} HistoryRound;

typedef struct History {
    char *stack;       /* its name */
    unsigned contexts; /* 1 .. 8; a lane runs in the context lane % contexts */
    bool threads;      /* each context has its thread, else a deterministic run */
    bool idle;         /* threads: contexts run only while they have requests */
    unsigned yield;    /* deterministic: percent */
    uint64_t schedule; /* deterministic: seed of the scheduler */
    char *origin;      /* arguments of scripts/history that give it again; NULL: unknown */
    GPtrArray *rounds; /* HistoryRound */
} History;

const char *history_kind_name(HistoryKind kind);
static inline bool history_is_alone(HistoryKind kind)
{
    return kind >= HISTORY_CLOSE;
}
/** history_is_beside() - done by the thread of the run beside the requests of the round */
static inline bool history_is_beside(HistoryKind kind)
{
    return kind >= HISTORY_GROW && kind < HISTORY_CLOSE;
}
/** history_resizes() - to the length @offset */
static inline bool history_resizes(HistoryKind kind)
{
    return kind == HISTORY_GROW || kind == HISTORY_SHRINK || kind == HISTORY_RESIZE || kind == HISTORY_AMEND_SIZE;
}
static inline bool history_changes(HistoryKind kind)
{
    return kind == HISTORY_WRITE || kind == HISTORY_ZERO || kind == HISTORY_DISCARD || kind == HISTORY_COPY;
}
static inline bool history_is_of_bitmaps(HistoryKind kind)
{
    return kind >= HISTORY_BITMAP_ADD && kind <= HISTORY_BITMAP_READ;
}
static inline bool history_changes_chain(HistoryKind kind)
{
    return kind >= HISTORY_COMMIT && kind <= HISTORY_BACKING;
}
/** history_has_range() - kinds for which offset and bytes are a range of the disk */
static inline bool history_has_range(HistoryKind kind)
{
    return kind != HISTORY_FLUSH && kind != HISTORY_DRAIN && kind != HISTORY_REOPEN && kind < HISTORY_GROW;
}

History *history_new(const char *stack);
History *history_copy(const History *history);
void history_free(History *history);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(History, history_free)
HistoryRound *history_add_round(History *history);
unsigned history_count_ops(const History *history);

/** history_draw() - from the run's seed; @run is not changed and nothing is done */
History *history_draw(const ConformanceStack *stack, const ConformanceRun *run);
/** history_fits() - whether every range lies on the disk as long as it is then, and keeps to the rules of a round */
bool history_fits(const History *history, const ConformanceStack *stack);

/** history_print() - as text, for history_parse(); caller frees */
char *history_print(const History *history);
History *history_parse(const char *text, GError **errp);

/**
 * history_reduce() - a smaller history that still fails
 * @fails: tries a candidate; may change its schedule to the seed that failed
 * @progress: told of each smaller one; may be NULL
 */
typedef bool HistoryFails(void *opaque, History *candidate);
typedef void HistoryProgress(void *opaque, const History *smaller);
History *history_reduce(const History *history, const ConformanceStack *stack, HistoryFails *fails,
                        HistoryProgress *progress, void *opaque);

#endif
