/* SPDX-License-Identifier: MIT */
/*
 * Commits that no request waits for: write-back before a cache is full, and a second after something
 * became dirty. They run in the service context, which always gets on, and are stopped by a drain.
 *
 * A timer belongs to a thread's context, the node to none. So the timer object outlives the node: the
 * context owns it, the node only detaches from it, and it is freed when it fires or its context goes.
 */

#include <sched.h>

#include "drivers/qcow2/meta/meta_int.h"

#define TICK_NS (INT64_C(1000) * 1000 * 1000)

struct Qcow2Timer {
    pthread_mutex_t lock;
    Qcow2Meta *meta; /* lock; NULL: detached */
    AioTimer *aio_timer;
    struct Qcow2Timer *next; /* in its context's list; that thread only */
    struct ContextTimers *owner;
};

/* The timers of one context. */
typedef struct ContextTimers {
    AioContext *ctx;
    Qcow2Timer *first;
} ContextTimers;

static const char context_key;

static void timer_free(Qcow2Timer *timer)
{
    aio_timer_free(timer->aio_timer);
    pthread_mutex_destroy(&timer->lock);
    g_free(timer);
}

static void *context_timers_new(AioContext *ctx)
{
    ContextTimers *timers = g_try_new0(ContextTimers, 1);
    if (timers) {
        timers->ctx = ctx;
    }
    return timers;
}

static void context_timers_free(void *data)
{
    ContextTimers *timers = data;
    while (timers->first) {
        Qcow2Timer *timer = timers->first;
        timers->first = timer->next;
        pthread_mutex_lock(&timer->lock);
        Qcow2Meta *meta = timer->meta;
        if (meta) { /* a node that is still open loses this tick; the next change arms another */
            pthread_mutex_lock(&meta->bg_lock);
            meta->timer = NULL;
            pthread_mutex_unlock(&meta->bg_lock);
            atomic_store(&meta->stirred, false);
        }
        pthread_mutex_unlock(&timer->lock);
        timer_free(timer);
    }
    g_free(timers);
}

/* ---- background coroutines ---- */

static void coroutine_fn background_entry(void *opaque)
{
    Qcow2Meta *meta = opaque;

    qcow2_meta_commit(meta->bs); /* what fails stays dirty: the next flush says so */
    bool more = qcow2_commit_dirty(meta);
    if (more) {
        qcow2_background_stir(meta);
    }
    pthread_mutex_lock(&meta->bg_lock);
    meta->bg_running--;
    meta->bg_commit = false;
    if (!meta->bg_running) {
        co_queue_wake_all(&meta->bg_waiters);
    }
    pthread_mutex_unlock(&meta->bg_lock);
}

void qcow2_background_commit(Qcow2Meta *meta)
{
    pthread_mutex_lock(&meta->bg_lock);
    Coroutine *co = NULL;
    AioContext *ctx = aio_service_context();
    if (ctx && !meta->drained && !meta->bg_commit) {
        co = co_try_new(background_entry, meta);
    }
    if (co) {
        meta->bg_commit = true;
        meta->bg_running++;
    }
    pthread_mutex_unlock(&meta->bg_lock);
    if (co) {
        co_start(ctx, co);
    }
}

void coroutine_fn qcow2_background_wait(Qcow2Meta *meta)
{
    pthread_mutex_lock(&meta->bg_lock);
    while (meta->bg_running) {
        co_queue_wait(&meta->bg_waiters, &meta->bg_lock);
    }
    pthread_mutex_unlock(&meta->bg_lock);
}

/* ---- the timer ---- */

static void unlink_timer(Qcow2Timer *timer)
{
    Qcow2Timer **link = &timer->owner->first;
    while (*link != timer) {
        link = &(*link)->next;
    }
    *link = timer->next;
}

/* In the timer's thread. */
static void tick(void *opaque)
{
    Qcow2Timer *timer = opaque;

    unlink_timer(timer);
    pthread_mutex_lock(&timer->lock);
    Qcow2Meta *meta = timer->meta;
    if (meta) {
        pthread_mutex_lock(&meta->bg_lock);
        meta->timer = NULL;
        pthread_mutex_unlock(&meta->bg_lock);
        atomic_store(&meta->stirred, false);
        qcow2_background_commit(meta);
    }
    pthread_mutex_unlock(&timer->lock);
    timer_free(timer);
}

/* bg_lock held: a timer in the calling thread's context. */
static void arm_locked(Qcow2Meta *meta)
{
    AioContext *ctx = aio_context_current();
    ContextTimers *timers = aio_context_data(ctx, &context_key, context_timers_new, context_timers_free);
    Qcow2Timer *timer = timers ? g_try_new0(Qcow2Timer, 1) : NULL;
    if (!timer) {
        return;
    }
    pthread_mutex_init(&timer->lock, NULL);
    timer->meta = meta;
    timer->owner = timers;
    timer->next = timers->first;
    timers->first = timer;
    timer->aio_timer = aio_timer_new(ctx, tick, timer);
    aio_timer_arm(timer->aio_timer, aio_clock_ns(ctx) + TICK_NS);
    meta->timer = timer;
}

void qcow2_background_stir(Qcow2Meta *meta)
{
    if (G_LIKELY(atomic_load_explicit(&meta->stirred, memory_order_relaxed)) ||
        atomic_exchange(&meta->stirred, true)) {
        return;
    }
    pthread_mutex_lock(&meta->bg_lock);
    if (!meta->drained && !meta->timer) {
        arm_locked(meta);
    }
    pthread_mutex_unlock(&meta->bg_lock);
}

/* The timer fires for nobody, or is freed with its context. Lock order is timer, then node. */
static void detach_timer(Qcow2Meta *meta)
{
    for (;;) {
        pthread_mutex_lock(&meta->bg_lock);
        Qcow2Timer *timer = meta->timer;
        if (!timer) {
            pthread_mutex_unlock(&meta->bg_lock);
            return;
        }
        if (pthread_mutex_trylock(&timer->lock) == 0) {
            timer->meta = NULL;
            meta->timer = NULL;
            pthread_mutex_unlock(&timer->lock);
            pthread_mutex_unlock(&meta->bg_lock);
            return;
        }
        pthread_mutex_unlock(&meta->bg_lock);
        sched_yield();
    }
}

void coroutine_fn qcow2_meta_drain_begin(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);

    pthread_mutex_lock(&meta->bg_lock);
    meta->drained++;
    pthread_mutex_unlock(&meta->bg_lock);
    detach_timer(meta);
    qcow2_background_wait(meta);
}

void coroutine_fn qcow2_meta_drain_end(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);

    pthread_mutex_lock(&meta->bg_lock);
    bool resumed = --meta->drained == 0;
    pthread_mutex_unlock(&meta->bg_lock);
    atomic_store(&meta->stirred, false);
    if (resumed && meta->writable && qcow2_commit_dirty(meta)) {
        qcow2_background_stir(meta);
    }
}

void qcow2_background_init(Qcow2Meta *meta)
{
    pthread_mutex_init(&meta->bg_lock, NULL);
    co_queue_init(&meta->bg_waiters);
}

void qcow2_background_destroy(Qcow2Meta *meta)
{
    detach_timer(meta);
    pthread_mutex_destroy(&meta->bg_lock);
}
