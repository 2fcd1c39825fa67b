/* SPDX-License-Identifier: MIT */
/*
 * One round of a context, as it is outside of simulations.
 *
 * Work that is ready costs no system call: rings are looked at in their mapped memory, other threads'
 * pushes in the inbox, and file descriptors only when nothing was ready or AIO_ROUNDS_PER_FD_POLL
 * rounds went by. Each kind of work gets a bounded batch a round, so none starves another.
 *
 * Sleeping: announce it (sleeping = true), look at the inbox once more, then epoll_wait(). A pusher
 * stores its item first and looks at @sleeping afterwards, so that either it sees the announcement
 * and writes the eventfd, or the owner sees the item. An embedder that polls aio_context_fd() itself
 * is a sleep that lasts from the end of one run to the start of the next.
 */

#include "block/loop/loop.h"
#include <time.h>

bool aio_rings_poll(AioContext *ctx)
{
    bool any = false;

    for (AioRing *next, *ring = ctx->rings; ring; ring = next) {
        next = ring->next; /* a completion may remove its ring */
        any |= ring->poll(ring);
    }
    return any;
}

void aio_context_submit(AioContext *ctx)
{
    for (AioRing *next, *ring = ctx->rings; ring; ring = next) {
        next = ring->next;
        ring->submit(ring);
    }
}

bool aio_rings_busy(AioContext *ctx)
{
    for (AioRing *ring = ctx->rings; ring; ring = ring->next) {
        if (ring->busy(ring)) {
            return true;
        }
    }
    return false;
}

void aio_ring_add(AioContext *ctx, AioRing *ring)
{
    ring->next = ctx->rings;
    ctx->rings = ring;
}

void aio_ring_remove(AioContext *ctx, AioRing *ring)
{
    for (AioRing **p = &ctx->rings; *p; p = &(*p)->next) {
        if (*p == ring) {
            *p = ring->next;
            return;
        }
    }
}

void aio_ring_queued(AioContext *ctx)
{
    aio_became_due(ctx);
}

static bool run_ready(AioContext *ctx)
{
    bool any = false;

    for (unsigned n = AIO_BATCH; n && ctx->ready.first; n--) {
        co_resume(co_ready_list_pop(&ctx->ready));
        any = true;
    }
    return any;
}

static bool run_calls(AioCallList *list, unsigned max)
{
    bool any = false;

    for (; max && list->first; max--) {
        AioCall *call = aio_call_list_pop(list);

        call->func(call->opaque); /* @call may be gone now */
        any = true;
    }
    return any;
}

bool aio_user_calls_run(AioContext *ctx, unsigned max)
{
    return run_calls(&ctx->user_calls, max);
}

/* Everything that can be found out without a system call. */
static bool run_due(AioContext *ctx, AioCaller caller)
{
    bool any;

    any = aio_rings_poll(ctx);
    aio_inbox_collect(ctx);
    any |= run_ready(ctx);
    any |= run_calls(&ctx->calls, AIO_BATCH);
    if (ctx->timers_armed) {
        any |= aio_timers_run(ctx, aio_clock_ns(ctx), AIO_BATCH);
    }
    aio_context_submit(ctx);
    any |= ctx->ready.first || ctx->calls.first; /* a submission that failed at once woke its coroutine */
    if (caller == AIO_CALLER_EMBEDDER) {
        any |= aio_user_calls_run(ctx, AIO_BATCH);
    }
    return any;
}

static bool sleep_for_fds(AioContext *ctx)
{
    int64_t deadline, timeout = -1;
    bool any;

    if (aio_rings_poll(ctx)) { /* what the submission found done already */
        return true;
    }
    deadline = aio_timers_next(ctx);
    if (deadline != INT64_MAX) {
        int64_t now = aio_clock_ns(ctx);

        timeout = deadline > now ? deadline - now : 0;
    }
    atomic_store(&ctx->sleeping, true);
    if (!aio_inbox_empty(ctx)) {
        timeout = 0;
    }
    any = aio_fds_poll(ctx, timeout);
    atomic_store_explicit(&ctx->sleeping, false, memory_order_relaxed);
    return any;
}

static bool real_run(AioContext *ctx, bool may_block, AioCaller caller)
{
    bool any;

    if (ctx->external) {
        atomic_store_explicit(&ctx->sleeping, false, memory_order_relaxed);
    }
    do {
        any = run_due(ctx, caller);
        if (any) {
            if (++ctx->busy_rounds >= AIO_ROUNDS_PER_FD_POLL) {
                ctx->busy_rounds = 0;
                aio_fds_poll(ctx, 0);
            }
            break;
        }
        ctx->busy_rounds = 0;
        any = may_block ? sleep_for_fds(ctx) : aio_fds_poll(ctx, 0);
        /* What the fds, the end of the sleep or the submission made due: waiting a round would let it lie. */
        any |= run_due(ctx, caller);
    } while (may_block && !any);
    return any;
}

static int64_t real_clock_ns(AioContext *ctx)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

const AioSchedule aio_schedule_real = {
    .clock_ns = real_clock_ns,
    .run = real_run,
    .start_job = aio_worker_start_job,
};

static bool run_round(AioContext *ctx, bool may_block, AioCaller caller)
{
    bool any;

    aio_thread.in_callback = true; /* or in a coroutine; what is run here ends before the round does */
    any = ctx->schedule->run(ctx, may_block, caller);
    aio_thread.in_callback = false;
    return any;
}

static void run_begin(AioContext *ctx)
{
    ctx->running = true;
}

static void run_end(AioContext *ctx)
{
    ctx->running = false;
    if (G_UNLIKELY(ctx->external)) {
        aio_external_publish(ctx);
    }
}

bool blocking_fn aio_context_run(AioContext *ctx, bool may_block)
{
    /* A private context gives way, as it does to aio_context_enter(). */
    bool entered = aio_thread.current != ctx && aio_thread.current == aio_thread.own;
    bool any;

    if (aio_thread.in_callback || co_in_coroutine() || (!entered && aio_thread.current != ctx)) {
        return false;
    }
    if (entered) {
        aio_context_enter(ctx);
    }
    run_begin(ctx);
    any = run_round(ctx, may_block, AIO_CALLER_EMBEDDER);
    run_end(ctx);
    if (entered) {
        aio_context_leave(ctx);
    }
    return any;
}

int blocking_fn aio_context_run_until(AioContext *ctx, const bool *done)
{
    int ret = 0;

    if (aio_thread.in_callback || co_in_coroutine()) {
        return -EDEADLK;
    }
    run_begin(ctx);
    while (!*done) {
        if (!run_round(ctx, true, AIO_CALLER_LIBRARY) && ctx->sim && !*done) {
            ret = -EDEADLK; /* a real run would hang here */
            break;
        }
    }
    run_end(ctx);
    return ret;
}
