/* SPDX-License-Identifier: MIT */
/*
 * How work reaches a context. Its own thread appends to plain lists. Other threads push to the inbox,
 * two lock-free stacks that the owner empties as a whole, and write the eventfd only if the owner
 * sleeps and nobody has done so since it last woke.
 */

#include "block/loop/loop.h"
#include <unistd.h>

void co_ready_list_init(CoReadyList *list)
{
    list->first = NULL;
    list->last = &list->first;
}

void aio_call_list_init(AioCallList *list)
{
    list->first = NULL;
    list->last = &list->first;
}

void aio_notify(AioContext *ctx)
{
    uint64_t one = 1;
    ssize_t ret;

    if (atomic_exchange(&ctx->notified, true)) {
        return;
    }
    do {
        ret = write(ctx->event_fd, &one, sizeof(one));
    } while (ret < 0 && errno == EINTR);
}

/* The item is already in the inbox: one of us and the owner sees what the other stored. */
static void wake_sleeper(AioContext *ctx)
{
    if (atomic_load(&ctx->sleeping)) {
        aio_notify(ctx);
    }
}

/*
 * Once its item is pushed, a pusher has no claim on the context any more: the owner may run the item
 * and drop the last reference. @pushers keeps the memory and the eventfd until the pusher has left.
 */
static void push_begin(AioContext *ctx)
{
    atomic_fetch_add_explicit(&ctx->pushers, 1, memory_order_relaxed);
}

static void push_end(AioContext *ctx)
{
    wake_sleeper(ctx);
    atomic_fetch_sub_explicit(&ctx->pushers, 1, memory_order_release);
}

void aio_context_make_ready(AioContext *ctx, CoReady *ready)
{
    CoReady *old;

    if (G_LIKELY(ctx == aio_thread.current)) {
        ready->next = NULL;
        *ctx->ready.last = ready;
        ctx->ready.last = &ready->next;
        aio_became_due(ctx);
        return;
    }
    push_begin(ctx);
    old = atomic_load_explicit(&ctx->inbox_ready, memory_order_relaxed);
    do {
        ready->next = old;
    } while (!atomic_compare_exchange_weak(&ctx->inbox_ready, &old, ready));
    push_end(ctx);
}

void aio_call(AioContext *ctx, AioCall *call)
{
    AioCall *old;

    if (ctx == aio_thread.current) {
        call->next = NULL;
        *ctx->calls.last = call;
        ctx->calls.last = &call->next;
        aio_became_due(ctx);
        return;
    }
    push_begin(ctx);
    old = atomic_load_explicit(&ctx->inbox_calls, memory_order_relaxed);
    do {
        call->next = old;
    } while (!atomic_compare_exchange_weak(&ctx->inbox_calls, &old, call));
    push_end(ctx);
}

void aio_call_user(AioContext *ctx, AioCall *call)
{
    call->next = NULL;
    *ctx->user_calls.last = call;
    ctx->user_calls.last = &call->next;
    aio_became_due(ctx);
}

bool aio_inbox_empty(AioContext *ctx)
{
    return !atomic_load(&ctx->inbox_ready) && !atomic_load(&ctx->inbox_calls);
}

bool aio_work_left(AioContext *ctx)
{
    return ctx->ready.first || ctx->calls.first || ctx->user_calls.first || !aio_inbox_empty(ctx);
}

static void collect_ready(AioContext *ctx)
{
    CoReady *newest = atomic_exchange_explicit(&ctx->inbox_ready, NULL, memory_order_acquire);
    CoReady **end = &newest->next; /* the first of the turned list ends up last */
    CoReady *oldest = NULL;

    for (CoReady *next; newest; newest = next) {
        next = newest->next;
        newest->next = oldest;
        oldest = newest;
    }
    *ctx->ready.last = oldest;
    ctx->ready.last = end;
}

static void collect_calls(AioContext *ctx)
{
    AioCall *newest = atomic_exchange_explicit(&ctx->inbox_calls, NULL, memory_order_acquire);
    AioCall **end = &newest->next;
    AioCall *oldest = NULL;

    for (AioCall *next; newest; newest = next) {
        next = newest->next;
        newest->next = oldest;
        oldest = newest;
    }
    *ctx->calls.last = oldest;
    ctx->calls.last = end;
}

void aio_inbox_collect(AioContext *ctx)
{
    /* Only the owner empties the lists: what is seen here stays. */
    if (atomic_load_explicit(&ctx->inbox_ready, memory_order_relaxed)) {
        collect_ready(ctx);
    }
    if (atomic_load_explicit(&ctx->inbox_calls, memory_order_relaxed)) {
        collect_calls(ctx);
    }
}
