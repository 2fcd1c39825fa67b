/* SPDX-License-Identifier: MIT */
#ifndef BLKDEBUG_ENGINE_H
#define BLKDEBUG_ENGINE_H

/*
 * The rules of one node, its state, and its breakpoints. It knows nothing of nodes and I/O: events go
 * in, and the answer to "does this request fail?" comes out.
 */

#include <bdrv/driver.h>

/* Kinds of requests; a rule has a mask of them. */
typedef enum BlkdebugIotype {
    BLKDEBUG_READ = 1 << 0,
    BLKDEBUG_WRITE = 1 << 1,
    BLKDEBUG_WRITE_ZEROES = 1 << 2,
    BLKDEBUG_DISCARD = 1 << 3,
    BLKDEBUG_FLUSH = 1 << 4,
    BLKDEBUG_BLOCK_STATUS = 1 << 5,
} BlkdebugIotype;

/* What a rule means that does not say: all that a guest can ask for. */
#define BLKDEBUG_IOTYPES_DEFAULT                                                                                       \
    (BLKDEBUG_READ | BLKDEBUG_WRITE | BLKDEBUG_WRITE_ZEROES | BLKDEBUG_DISCARD | BLKDEBUG_FLUSH)

typedef struct BlkdebugRule {
    BdrvDebugEvent event;
    int state; /* in which it takes notice of the event; 0: any */
    enum { BLKDEBUG_SET_STATE, BLKDEBUG_INJECT_ERROR } action;
    int new_state; /* SET_STATE */
    /* INJECT_ERROR: */
    unsigned iotypes;
    int error;       /* errno value; 0: matching requests are spared from later rules */
    int64_t sector;  /* whose first byte must be in the request; -1: any request */
    bool once;       /* forgotten when a request has failed by it */
    bool immediately; /* fail without yielding */
    bool active;     /* the latest event that any such rule noticed was noticed by this one */
} BlkdebugRule;

typedef struct BlkdebugEngine {
    BlockDriverState *bs; /* whom to notify about */
    pthread_mutex_t lock; /* protects what follows */
    GArray *rules;        /* BlkdebugRule, in the order given: the first that matches counts */
    int state;
    unsigned drained;     /* while it is, nothing is stopped */
    GQueue breakpoints;   /* newest first */
    GQueue suspended;     /* newest first */
    CoQueue waiters;      /* stopped requests */
} BlkdebugEngine;

void blkdebug_engine_init(BlkdebugEngine *engine, BlockDriverState *bs);
void blkdebug_engine_destroy(BlkdebugEngine *engine); /* no request is stopped */

/** blkdebug_engine_add() - append a rule; before the first event */
void blkdebug_engine_add(BlkdebugEngine *engine, const BlkdebugRule *rule);

/** blkdebug_engine_event() - let the rules notice @event, then stop at its breakpoints */
void coroutine_fn blkdebug_engine_event(BlkdebugEngine *engine, BdrvDebugEvent event);

/** blkdebug_engine_check() - 0, or -errno if a rule makes this request fail */
int coroutine_fn blkdebug_engine_check(BlkdebugEngine *engine, BlkdebugIotype iotype, int64_t offset, int64_t bytes);

/* Breakpoints; see the driver table. Any thread. */
void blkdebug_engine_break(BlkdebugEngine *engine, BdrvDebugEvent event, const char *tag);
int blkdebug_engine_remove_break(BlkdebugEngine *engine, const char *tag);
int blkdebug_engine_resume(BlkdebugEngine *engine, const char *tag);
bool blkdebug_engine_is_suspended(BlkdebugEngine *engine, const char *tag);

/** blkdebug_engine_drain_begin() - let all stopped requests go, and stop none until _drain_end() */
void blkdebug_engine_drain_begin(BlkdebugEngine *engine);
void blkdebug_engine_drain_end(BlkdebugEngine *engine);

#endif
