/* SPDX-License-Identifier: MIT */
/*
 * A timer of a node in the service context: armed from anywhere, it calls back once, or again and again.
 *
 * The timer is the service thread's, so the node cannot cancel it: it detaches from it, and the timer
 * is freed over there.
 */

#include "block/loop/context.h"
#include "drivers/qcow2/meta/meta_int.h"

struct Qcow2Ticker {
    pthread_mutex_t lock;
    Qcow2Meta *meta; /* lock; NULL: the node is gone */
    AioContext *ctx;
    int64_t delay_ns;
    Qcow2TickFunc *func;
    AioTimer *timer; /* service thread */
    bool queued;     /* lock: call is on its way */
    AioCall call;    /* arms, or frees when the node is gone */
};

static void arm(Qcow2Ticker *ticker)
{
    aio_timer_arm(ticker->timer, aio_clock_ns(ticker->ctx) + ticker->delay_ns);
}

static void tick(void *opaque)
{
    Qcow2Ticker *ticker = opaque;

    pthread_mutex_lock(&ticker->lock);
    if (ticker->meta && ticker->func(ticker->meta)) {
        arm(ticker);
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
        arm(ticker);
        return;
    }
    if (ticker->timer) {
        aio_timer_free(ticker->timer);
    }
    pthread_mutex_destroy(&ticker->lock);
    aio_context_unref(ticker->ctx);
    g_free(ticker);
}

/* ticker->lock held. */
static void queue_call_locked(Qcow2Ticker *ticker)
{
    if (!ticker->queued) {
        ticker->queued = true;
        aio_call(ticker->ctx, &ticker->call);
    }
}

bool qcow2_is_deterministic(void)
{
    AioContext *ctx = aio_service_context();

    return !ctx || aio_context_sim(ctx);
}

Qcow2Ticker *qcow2_ticker_new(Qcow2Meta *meta, int64_t delay_ns, Qcow2TickFunc *func)
{
    AioContext *ctx = aio_service_context();
    Qcow2Ticker *ticker = ctx ? g_try_new0(Qcow2Ticker, 1) : NULL;

    if (ticker) {
        pthread_mutex_init(&ticker->lock, NULL);
        ticker->meta = meta;
        ticker->ctx = aio_context_ref(ctx);
        ticker->delay_ns = delay_ns;
        ticker->func = func;
        ticker->call = (AioCall){ .func = arm_or_free, .opaque = ticker };
    }
    return ticker;
}

void qcow2_ticker_arm(Qcow2Ticker *ticker)
{
    pthread_mutex_lock(&ticker->lock);
    queue_call_locked(ticker);
    pthread_mutex_unlock(&ticker->lock);
}

void qcow2_ticker_detach(Qcow2Ticker *ticker)
{
    if (ticker) {
        pthread_mutex_lock(&ticker->lock);
        ticker->meta = NULL;
        queue_call_locked(ticker);
        pthread_mutex_unlock(&ticker->lock);
    }
}
