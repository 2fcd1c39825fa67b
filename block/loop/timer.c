/* SPDX-License-Identifier: MIT */
/*
 * Timers: a binary heap of pointers. Room for every known timer is made when the timer is, so arming
 * never allocates. Equal deadlines fire in arming order.
 */

#include "block/loop/loop.h"

static bool earlier(const AioTimer *a, const AioTimer *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns : a->order < b->order;
}

static void place(AioContext *ctx, AioTimer *timer, unsigned i)
{
    ctx->timers[i] = timer;
    timer->slot = i + 1;
}

/* Find the place of @timer, starting from the hole @i. */
static void sift(AioContext *ctx, AioTimer *timer, unsigned i)
{
    while (i > 0 && earlier(timer, ctx->timers[(i - 1) / 2])) {
        place(ctx, ctx->timers[(i - 1) / 2], i);
        i = (i - 1) / 2;
    }
    for (;;) {
        unsigned child = 2 * i + 1;
        if (child + 1 < ctx->timers_armed && earlier(ctx->timers[child + 1], ctx->timers[child])) {
            child++;
        }
        if (child >= ctx->timers_armed || !earlier(ctx->timers[child], timer)) {
            break;
        }
        place(ctx, ctx->timers[child], i);
        i = child;
    }
    place(ctx, timer, i);
}

void aio_timer_init(AioTimer *timer, AioContext *ctx, void (*func)(void *opaque), void *opaque)
{
    *timer = (AioTimer){ .ctx = ctx, .func = func, .opaque = opaque };
    if (++ctx->timers_known > ctx->timers_room) {
        ctx->timers_room = MAX(16, ctx->timers_room * 2);
        ctx->timers = g_renew(AioTimer *, ctx->timers, ctx->timers_room);
    }
}

void aio_timer_destroy(AioTimer *timer)
{
    aio_timer_cancel(timer);
    timer->ctx->timers_known--;
}

AioTimer *aio_timer_new(AioContext *ctx, void (*func)(void *opaque), void *opaque)
{
    AioTimer *timer = g_new(AioTimer, 1);

    aio_timer_init(timer, ctx, func, opaque);
    return timer;
}

void aio_timer_free(AioTimer *timer)
{
    if (timer) {
        aio_timer_destroy(timer);
        g_free(timer);
    }
}

static void remove_from_heap(AioTimer *timer)
{
    AioContext *ctx = timer->ctx;
    unsigned i = timer->slot - 1;
    AioTimer *last = ctx->timers[--ctx->timers_armed];

    timer->slot = 0;
    if (last != timer) {
        sift(ctx, last, i);
    }
}

void aio_timer_arm(AioTimer *timer, int64_t deadline_ns)
{
    AioContext *ctx = timer->ctx;

    timer->deadline_ns = deadline_ns;
    timer->order = ctx->timer_order++;
    sift(ctx, timer, timer->slot ? timer->slot - 1 : ctx->timers_armed++);
    if (G_UNLIKELY(ctx->external && !ctx->running)) {
        aio_external_timer(ctx);
    }
}

void aio_timer_cancel(AioTimer *timer)
{
    if (timer->slot) {
        remove_from_heap(timer);
    }
}

int64_t aio_timers_next(AioContext *ctx)
{
    return ctx->timers_armed ? ctx->timers[0]->deadline_ns : INT64_MAX;
}

bool aio_timers_run(AioContext *ctx, int64_t now, unsigned max)
{
    bool any = false;

    while (max-- && aio_timers_next(ctx) <= now) {
        AioTimer *timer = ctx->timers[0];

        remove_from_heap(timer);
        timer->func(timer->opaque); /* may free the timer */
        any = true;
    }
    return any;
}

int64_t aio_clock_ns(AioContext *ctx)
{
    return ctx->schedule->clock_ns(ctx);
}
