/* SPDX-License-Identifier: MIT */
#ifndef BDRV_LOOP_CONTEXT_H
#define BDRV_LOOP_CONTEXT_H

/* What the loop offers to the layers above it beyond <bdrv/aio.h>. The coroutine layer is its main user. */

#include <bdrv/aio.h>
#include <bdrv/coroutine.h>
#include <sys/uio.h>

/*
 * A coroutine's place in a ready list: the first member of struct Coroutine. The loop links it and
 * hands it back to co_resume(); it knows nothing else about coroutines. It is in one list at most.
 */
typedef struct CoReady {
    struct CoReady *next;
} CoReady;

/** co_resume() - continue the coroutine that @ready is part of. Given by the coroutine layer. */
void co_resume(CoReady *ready);

/**
 * aio_context_make_ready() - have @ctx call co_resume(@ready) at its turn, first come first served
 * Any thread. From @ctx's own thread it is a plain list append; from another one a lock-free push and
 * a wake-up if @ctx sleeps.
 */
void aio_context_make_ready(AioContext *ctx, CoReady *ready);

/* The calling thread. initial-exec: read on every wake-up, and small enough for dlopen()'s reserve. */
typedef struct AioThread {
    AioContext *current;
    AioContext *own; /* private context, freed with the thread */
    bool in_callback;
} AioThread;
extern _Thread_local AioThread aio_thread __attribute__((tls_model("initial-exec"), visibility("hidden")));

/** aio_context_current_or_null() - the calling thread's context; none is made */
static inline AioContext *aio_context_current_or_null(void)
{
    return aio_thread.current;
}

static inline bool aio_context_is_current(AioContext *ctx)
{
    return aio_thread.current == ctx;
}

/**
 * aio_context_run_until() - run rounds of @ctx until *@done, for blocking calls of the library
 * User callbacks (aio_call_user) that become due stay queued. In a deterministic run this steps the
 * whole simulation.
 * @ctx: the calling thread's context
 * @done: set by what runs in @ctx's thread
 *
 * Returns: 0; -EDEADLK from a coroutine or a callback, or if a simulation has nothing left to do
 * and *@done is still false.
 */
int blocking_fn aio_context_run_until(AioContext *ctx, const bool *done);

/**
 * aio_context_submit() - hand over what the rings have queued, before the thread does something that takes long
 * The end of the round would do it anyway. @ctx: the calling thread's context.
 */
void aio_context_submit(AioContext *ctx);

/*
 * How each context begins: what the coroutine layer counts in it, twice in each coroutine's life, without a call, and
 * what rings look at in each round. The owner's thread only.
 */
typedef struct AioContextHead {
    int coroutines;             /* entered and not ended */
    unsigned memory_generation; /* another one after each change of what aio_context_memory() tells; 0: never any */
} AioContextHead;

static inline unsigned aio_context_memory_generation(const AioContext *ctx)
{
    return ((const AioContextHead *)ctx)->memory_generation;
}

/** aio_context_memory() - the pieces that aio_context_add_memory() was told of; valid until the next change */
const struct iovec *aio_context_memory(const AioContext *ctx, unsigned *count);

/** aio_context_count_coroutine() - one more, or one less, that was entered in @ctx and has not ended. Own thread. */
static inline void aio_context_count_coroutine(AioContext *ctx, int change)
{
    ((AioContextHead *)ctx)->coroutines += change;
}

/** aio_context_sim() - the simulation @ctx belongs to, or NULL */
AioSim *aio_context_sim(AioContext *ctx);

/** aio_sim_draw_yield() - draw at the run's yield chance */
bool aio_sim_draw_yield(AioSim *sim);

/*
 * A timer that lives in its user's memory, e.g. on a coroutine's stack. Init makes room in the
 * context's heap, so that arming cannot fail; destroy cancels. Fields are the loop's.
 */
struct AioTimer {
    AioContext *ctx;
    void (*func)(void *opaque);
    void *opaque;
    int64_t deadline_ns;
    uint64_t order; /* arming order, decides between equal deadlines */
    unsigned slot;  /* place in the heap + 1; 0: not armed */
};
void aio_timer_init(AioTimer *timer, AioContext *ctx, void (*func)(void *opaque), void *opaque);
void aio_timer_destroy(AioTimer *timer);

#endif
