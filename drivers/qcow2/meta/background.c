/* SPDX-License-Identifier: MIT */
/*
 * Commits that no request waits for: write-back before a cache is full, and a second after something
 * became dirty. They run in the service context, which always gets on, and are stopped by a drain.
 *
 * The timer is the service thread's, so the node cannot cancel it: it detaches from it, and the timer
 * is freed over there. In a deterministic run there is no timer: time would only pass when all is done.
 */

#include "block/loop/context.h"
#include "drivers/qcow2/meta/meta_int.h"

#define TICK_NS (INT64_C(1000) * 1000 * 1000)

struct Qcow2Ticker {
    pthread_mutex_t lock;
    Qcow2Meta *meta; /* lock; NULL: the node is gone */
    AioContext *ctx;
    AioTimer *timer; /* service thread */
    bool queued;     /* lock: call is on its way */
    AioCall call;    /* arms, or frees when the node is gone */
};

/* ---- the ticker, in the service thread ---- */

static void tick(void *opaque)
{
    Qcow2Ticker *ticker = opaque;

    pthread_mutex_lock(&ticker->lock);
    if (ticker->meta) {
        atomic_store(&ticker->meta->stirred, false);
        qcow2_background_commit(ticker->meta);
    }
    pthread_mutex_unlock(&ticker->lock);
}

static void arm_or_free(void *opaque)
{
    Qcow2Ticker *ticker = opaque;

    pthread_mutex_lock(&ticker->lock);
    ticker->queued = false;
    bool gone = !ticker->meta;
    pthread_mutex_unlock(&ticker->lock);
    if (!gone) {
        if (!ticker->timer) {
            ticker->timer = aio_timer_new(ticker->ctx, tick, ticker);
        }
        aio_timer_arm(ticker->timer, aio_clock_ns(ticker->ctx) + TICK_NS);
        return;
    }
    if (ticker->timer) {
        aio_timer_free(ticker->timer);
    }
    pthread_mutex_destroy(&ticker->lock);
    aio_context_unref(ticker->ctx);
    g_free(ticker);
}

/* ---- the ticker, from the node ---- */

/* ticker->lock held. */
static void queue_call_locked(Qcow2Ticker *ticker)
{
    if (!ticker->queued) {
        ticker->queued = true;
        aio_call(ticker->ctx, &ticker->call);
    }
}

/* bg_lock held; NULL in a deterministic run and without memory. */
static Qcow2Ticker *get_ticker_locked(Qcow2Meta *meta)
{
    AioContext *ctx = aio_service_context();
    if (meta->ticker || !ctx || aio_context_sim(ctx)) {
        return meta->ticker;
    }
    Qcow2Ticker *ticker = g_try_new0(Qcow2Ticker, 1);
    if (ticker) {
        pthread_mutex_init(&ticker->lock, NULL);
        ticker->meta = meta;
        ticker->ctx = aio_context_ref(ctx);
        ticker->call = (AioCall){ .func = arm_or_free, .opaque = ticker };
        meta->ticker = ticker;
    }
    return ticker;
}

static void detach_ticker(Qcow2Ticker *ticker)
{
    if (ticker) {
        pthread_mutex_lock(&ticker->lock);
        ticker->meta = NULL;
        queue_call_locked(ticker);
        pthread_mutex_unlock(&ticker->lock);
    }
}

void qcow2_background_stir(Qcow2Meta *meta)
{
    if (G_LIKELY(atomic_load_explicit(&meta->stirred, memory_order_relaxed)) ||
        atomic_exchange(&meta->stirred, true)) {
        return;
    }
    pthread_mutex_lock(&meta->bg_lock);
    Qcow2Ticker *ticker = meta->drained ? NULL : get_ticker_locked(meta);
    pthread_mutex_unlock(&meta->bg_lock);
    if (ticker) {
        pthread_mutex_lock(&ticker->lock);
        queue_call_locked(ticker);
        pthread_mutex_unlock(&ticker->lock);
    }
}

/* ---- commits ---- */

static void coroutine_fn background_entry(void *opaque)
{
    Qcow2Meta *meta = opaque;

    qcow2_meta_commit(meta->bs); /* what fails stays dirty: the next flush says so */
    if (qcow2_commit_due(meta)) {
        qcow2_background_stir(meta);
    }
    pthread_mutex_lock(&meta->bg_lock);
    meta->bg_running = false;
    co_queue_wake_all(&meta->bg_waiters);
    pthread_mutex_unlock(&meta->bg_lock);
}

void qcow2_background_commit(Qcow2Meta *meta)
{
    AioContext *ctx = aio_service_context();
    Coroutine *co = NULL;

    pthread_mutex_lock(&meta->bg_lock);
    if (ctx && !meta->drained && !meta->bg_running) {
        co = co_try_new(background_entry, meta);
        meta->bg_running = co != NULL;
    }
    pthread_mutex_unlock(&meta->bg_lock);
    if (co) {
        co_start(ctx, co);
    }
}

/* ---- drain ---- */

void coroutine_fn qcow2_meta_drain_begin(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);

    pthread_mutex_lock(&meta->bg_lock);
    meta->drained++;
    while (meta->bg_running) {
        co_queue_wait(&meta->bg_waiters, &meta->bg_lock);
    }
    pthread_mutex_unlock(&meta->bg_lock);
    qcow2_pack_stop(meta); /* whatever becomes of the clusters while nobody writes */
}

void coroutine_fn qcow2_meta_drain_end(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);

    qcow2_pack_stop(meta); /* a request may still have been inside when the drain began */
    pthread_mutex_lock(&meta->bg_lock);
    bool resumed = --meta->drained == 0;
    pthread_mutex_unlock(&meta->bg_lock);
    atomic_store(&meta->stirred, false);
    if (resumed && meta->writable && qcow2_commit_due(meta)) {
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
    detach_ticker(meta->ticker);
    pthread_mutex_destroy(&meta->bg_lock);
}
