/* SPDX-License-Identifier: MIT */
/*
 * The queue flavour: submissions and completions are two rings of one thread. blk_queue_ring() starts
 * a runner coroutine, which takes one submission after the other as long as they complete at once;
 * when one has to wait, the next runner takes over. So a request costs a place in each ring and, if
 * it waits, a coroutine from the pool. If there is no memory for one the rest waits until a request
 * of the queue has ended.
 */
#include "block/backend/backend_int.h"
#include "block/loop/context.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define QUEUE_DEPTH_MAX 65536

/* Ring indexes run on; a place is index & mask. All of it belongs to one thread. */
struct BlkQueue {
    BlockBackend *blk;
    AioContext *ctx;
    unsigned depth, mask;
    unsigned in_flight; /* submitted, not yet reaped: neither ring can overflow */
    BlkSubmission *submissions;
    unsigned taken, rung, submitted;
    BlkQueueCompletion *completions;
    unsigned reaped, completed;
    unsigned budget; /* requests that may still start before the loop gets a turn */
    int eventfd;     /* -1 until asked for */
    bool signalled;  /* the eventfd is readable */
    bool wakeup;     /* what blk_queue_wait() waits for */
    bool starved;    /* a request of ours has to end before the next has a stack to run on */
    bool call_queued;
    AioCall call;
};

static void queue_later(void *opaque);

BlkQueue *blk_queue_new(BlockBackend *blk, unsigned depth, GError **errp)
{
    AioContext *ctx = aio_context_current();
    unsigned places = 1;
    BlkQueue *queue;

    if (depth < 1 || depth > QUEUE_DEPTH_MAX) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "queue depth %u is not between 1 and %d", depth, QUEUE_DEPTH_MAX);
        return NULL;
    }
    if (!ctx) {
        g_set_error(errp, BDRV_ERROR, EMFILE, "no event loop can be made for this thread; close some contexts");
        return NULL;
    }
    while (places < depth) {
        places *= 2;
    }
    queue = g_new0(BlkQueue, 1);
    queue->submissions = g_try_new(BlkSubmission, places);
    queue->completions = g_try_new(BlkQueueCompletion, places);
    if (!queue->submissions || !queue->completions) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for a queue of depth %u", depth);
        g_free(queue->submissions);
        g_free(queue->completions);
        g_free(queue);
        return NULL;
    }
    queue->blk = blk;
    queue->ctx = aio_context_ref(ctx);
    queue->depth = depth;
    queue->mask = places - 1;
    queue->eventfd = -1;
    queue->call = (AioCall){ .func = queue_later, .opaque = queue };
    return queue;
}

static void queue_call_later(BlkQueue *queue)
{
    if (!queue->call_queued) {
        queue->call_queued = true;
        aio_call(queue->ctx, &queue->call);
    }
}

static void queue_complete(BlkQueue *queue, uint64_t user_data, int ret)
{
    queue->completions[queue->completed++ & queue->mask] = (BlkQueueCompletion){ user_data, ret };
    queue->wakeup = true;
    if (G_UNLIKELY(queue->eventfd >= 0 && !queue->signalled)) {
        queue->signalled = eventfd_write(queue->eventfd, 1) == 0;
    }
    if (G_UNLIKELY(queue->starved)) {
        queue->starved = false;
        queue_call_later(queue);
    }
}

static void coroutine_fn queue_runner(void *opaque)
{
    BlkQueue *queue = opaque;
    BlockBackend *blk = queue->blk;

    while (queue->taken != queue->rung && queue->budget > 0) {
        BlkSubmission now = queue->submissions[queue->taken++ & queue->mask];
        void *outer;
        int ret;

        queue->budget--;
        outer = bdrv_gate_enter(blk->gate);
        ret = now.reserved ? -EINVAL : blk_co_perform(blk, now.op, now.offset, now.bytes, now.iov, now.flags);
        queue_complete(queue, now.user_data, ret);
        bdrv_gate_leave(blk->gate, outer);
    }
}

static void queue_start(BlkQueue *queue)
{
    queue->budget = BLK_INLINE_MAX;
    while (queue->taken != queue->rung && queue->budget > 0) {
        Coroutine *co = co_try_new(queue_runner, queue);

        if (G_LIKELY(co)) {
            co_enter(co);
        } else if (queue->taken != queue->completed) {
            queue->starved = true;
            return;
        } else {
            queue_complete(queue, queue->submissions[queue->taken++ & queue->mask].user_data, -ENOMEM);
        }
    }
    if (queue->taken != queue->rung) {
        queue_call_later(queue);
    }
}

static void queue_later(void *opaque)
{
    BlkQueue *queue = opaque;

    queue->call_queued = false;
    queue_start(queue);
    queue->wakeup = true;
}

bool blk_queue_submit(BlkQueue *queue, const BlkSubmission *submission)
{
    if (queue->in_flight == queue->depth) {
        return false;
    }
    queue->in_flight++;
    queue->submissions[queue->submitted++ & queue->mask] = *submission;
    return true;
}

unsigned blk_queue_ring(BlkQueue *queue)
{
    unsigned started = queue->submitted - queue->rung;

    queue->rung = queue->submitted;
    if (started == 0 || queue->call_queued) {
        return started; /* the call takes them along */
    }
    if (co_in_coroutine()) {
        queue_call_later(queue);
    } else {
        queue_start(queue);
    }
    return started;
}

static unsigned queue_take(BlkQueue *queue, BlkQueueCompletion *completions, unsigned max)
{
    unsigned n = 0;

    while (n < max && queue->reaped != queue->completed) {
        completions[n++] = queue->completions[queue->reaped++ & queue->mask];
    }
    queue->in_flight -= n;
    if (G_UNLIKELY(queue->signalled && queue->reaped == queue->completed)) {
        eventfd_t value;

        eventfd_read(queue->eventfd, &value);
        queue->signalled = false;
    }
    return n;
}

unsigned blk_queue_reap(BlkQueue *queue, BlkQueueCompletion *completions, unsigned max)
{
    if (queue->reaped == queue->completed && queue->in_flight > 0) {
        aio_context_run(queue->ctx, false);
    }
    return queue_take(queue, completions, max);
}

/* A completion is there, or nothing is in flight that could bring one. */
static bool queue_has_some(const BlkQueue *queue)
{
    return queue->completed != queue->reaped || queue->in_flight == 0;
}

/* Everything rung has completed, and no deferred call is due that would look at the queue. */
static bool queue_is_done(const BlkQueue *queue)
{
    return !queue->call_queued && queue->completed - queue->reaped == queue->in_flight;
}

/* Run the thread's context until @there. 0; -EDEADLK where that is not allowed. */
static int blocking_fn queue_run(BlkQueue *queue, bool (*there)(const BlkQueue *queue))
{
    int ret = 0;

    while (ret == 0 && !there(queue)) {
        queue->wakeup = false;
        ret = aio_context_run_until(queue->ctx, &queue->wakeup);
    }
    return ret;
}

unsigned blk_queue_wait(BlkQueue *queue, BlkQueueCompletion *completions, unsigned max)
{
    blk_queue_ring(queue);
    queue_run(queue, queue_has_some);
    return queue_take(queue, completions, max);
}

int blk_queue_free(BlkQueue *queue)
{
    int ret;

    if (!queue) {
        return 0;
    }
    blk_queue_ring(queue);
    ret = queue_run(queue, queue_is_done);
    if (ret < 0) {
        return ret;
    }
    if (queue->eventfd >= 0) {
        close(queue->eventfd);
    }
    aio_context_unref(queue->ctx);
    g_free(queue->submissions);
    g_free(queue->completions);
    g_free(queue);
    return 0;
}

int blk_queue_eventfd(BlkQueue *queue)
{
    if (queue->eventfd < 0) {
        queue->signalled = queue->reaped != queue->completed;
        queue->eventfd = eventfd(queue->signalled, EFD_NONBLOCK | EFD_CLOEXEC);
        if (queue->eventfd < 0) {
            queue->signalled = false;
            return -errno;
        }
    }
    return queue->eventfd;
}
