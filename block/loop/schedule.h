/* SPDX-License-Identifier: MIT */
#ifndef BDRV_LOOP_SCHEDULE_H
#define BDRV_LOOP_SCHEDULE_H

/*
 * Everything of the loop that is not determined by its input: what time it is, which of the things
 * that could run comes next, and when a worker's job is carried out. Two of these exist:
 * aio_schedule_real (CLOCK_MONOTONIC, first come first served, threads) and aio_schedule_sim (virtual
 * time, everything drawn from a seed, one OS thread).
 */

#include "block/loop/context.h"

/* A job for a worker, on the stack of the coroutine that waits for it. */
typedef struct AioJob {
    int (*func)(void *opaque);
    void *opaque;
    int result;
    AioWorkKind kind;
    Coroutine *co;       /* woken when @result is set; @job is gone then */
    struct AioJob *next; /* the queue it waits in */
} AioJob;

/* Who asked for a round decides whether the embedder's callbacks may run in it. */
typedef enum AioCaller {
    AIO_CALLER_EMBEDDER,
    AIO_CALLER_LIBRARY, /* a blocking call */
} AioCaller;

typedef struct AioSchedule {
    int64_t (*clock_ns)(AioContext *ctx);
    /* Do something of what is due; wait for it if @may_block. Returns whether anything was done. */
    bool (*run)(AioContext *ctx, bool may_block, AioCaller caller);
    /* Carry @job out, set its result and wake its coroutine; never fails, -EAGAIN is a result too. */
    void (*start_job)(AioContext *ctx, AioJob *job);
} AioSchedule;

extern const AioSchedule aio_schedule_real;
extern const AioSchedule aio_schedule_sim;

#endif
