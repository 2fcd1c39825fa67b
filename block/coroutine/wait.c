/* SPDX-License-Identifier: MIT */

/* Waiting for a turn, for the clock, and, outside of coroutines, for a coroutine. */

#include "block/coroutine/coroutine_int.h"
#include <errno.h>

void coroutine_fn co_reschedule(void)
{
    co_wake(co_current());
    co_yield_reason("its turn");
}

void coroutine_fn co_maybe_yield(void)
{
    AioSim *sim = aio_context_sim(co_context(co_current()));

    if (sim && aio_sim_draw_yield(sim)) {
        co_reschedule();
    }
}

static void sleep_is_over(void *opaque)
{
    co_wake(opaque);
}

void coroutine_fn co_sleep_until(int64_t deadline_ns)
{
    Coroutine *self = co_current();
    AioTimer timer;

    aio_timer_init(&timer, co_context(self), sleep_is_over, self);
    aio_timer_arm(&timer, deadline_ns);
    co_yield_reason("the clock");
    aio_timer_destroy(&timer);
}

typedef struct BlockingRun {
    CoroutineEntry *entry;
    void *opaque;
    bool done;
} BlockingRun;

static void blocking_run_entry(void *opaque)
{
    BlockingRun *run = opaque;

    run->entry(run->opaque);
    run->done = true;
}

int blocking_fn co_run_blocking(CoroutineEntry *entry, void *opaque)
{
    BlockingRun run = { .entry = entry, .opaque = opaque };
    AioContext *ctx;
    Coroutine *co;

    if (co_in_coroutine() || aio_in_callback()) {
        return -EDEADLK;
    }
    ctx = aio_context_current();
    co = ctx ? co_try_new(blocking_run_entry, &run) : NULL;
    if (!co) {
        return -ENOMEM;
    }
    /* A deterministic run that has come to a standstill makes the second one fail; the coroutine is lost. */
    co_enter(co);
    return run.done ? 0 : aio_context_run_until(ctx, &run.done);
}
