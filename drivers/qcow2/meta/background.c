/* SPDX-License-Identifier: MIT */
/*
 * What no request waits for: commits, as write-back before a cache is full and a second after something became dirty,
 * which are stopped by a drain; and dropping slices that were not used for a while. Both run in the service context,
 * which always gets on. In a deterministic run nothing is committed by time: it would only pass when all is done.
 */

#include "block/loop/context.h" /* aio_service_context() */
#include "drivers/qcow2/meta/meta_int.h"

#define TICK_NS (INT64_C(1000) * 1000 * 1000)

static bool commit_tick(Qcow2Meta *meta)
{
    atomic_store(&meta->stirred, false);
    qcow2_background_commit(meta);
    return false;
}

/* bg_lock held; NULL in a deterministic run and without memory. */
static Qcow2Ticker *get_ticker_locked(Qcow2Meta *meta)
{
    if (!meta->ticker && !qcow2_is_deterministic()) {
        meta->ticker = qcow2_ticker_new(meta, TICK_NS, commit_tick);
    }
    return meta->ticker;
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
        qcow2_ticker_arm(ticker);
    }
}

/* ---- slices that nobody uses ---- */

static bool clean_tick(Qcow2Meta *meta)
{
    atomic_store(&meta->aging, false);
    pthread_mutex_lock(&meta->rc.lock);
    bool left = qcow2_cache_age_locked(&meta->rc);
    pthread_mutex_unlock(&meta->rc.lock);
    pthread_mutex_lock(&meta->l2.lock);
    left |= qcow2_cache_age_locked(&meta->l2);
    pthread_mutex_unlock(&meta->l2.lock);
    if (left) {
        atomic_store(&meta->aging, true);
    }
    return left;
}

/* bg_lock held. In a deterministic run only if asked for: time would pass where nobody waits for it. */
static Qcow2Ticker *get_cleaner_locked(Qcow2Meta *meta)
{
    bool wanted = meta->clean.interval_s && (meta->clean.given || !qcow2_is_deterministic());
    if (!meta->cleaner && wanted) {
        meta->cleaner = qcow2_ticker_new(meta, meta->clean.interval_s * TICK_NS, clean_tick);
    }
    return meta->cleaner;
}

void qcow2_background_loaded(Qcow2Meta *meta)
{
    if (G_LIKELY(atomic_load_explicit(&meta->aging, memory_order_relaxed)) || atomic_exchange(&meta->aging, true)) {
        return;
    }
    pthread_mutex_lock(&meta->bg_lock);
    Qcow2Ticker *cleaner = get_cleaner_locked(meta);
    pthread_mutex_unlock(&meta->bg_lock);
    if (cleaner) {
        qcow2_ticker_arm(cleaner);
    }
}

void qcow2_background_set_clean(Qcow2Meta *meta, Qcow2CleanConfig clean)
{
    pthread_mutex_lock(&meta->bg_lock);
    bool same = meta->clean.interval_s == clean.interval_s && meta->clean.given == clean.given;
    Qcow2Ticker *old = same ? NULL : g_steal_pointer(&meta->cleaner);
    meta->clean = clean;
    pthread_mutex_unlock(&meta->bg_lock);
    qcow2_ticker_detach(old);
    if (!same) {
        atomic_store(&meta->aging, false);
        qcow2_background_loaded(meta);
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
    qcow2_ticker_detach(meta->ticker);
    qcow2_ticker_detach(meta->cleaner);
    pthread_mutex_destroy(&meta->bg_lock);
}
