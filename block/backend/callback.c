/* SPDX-License-Identifier: MIT */
/*
 * The callback flavour. Each request is a coroutine started by the submission. Request objects come
 * from a list that the thread keeps for this handle; finished ones are collected and their callbacks
 * made by one deferred call of the embedder's next run. A request for which there is no stack waits, inside the gate,
 * until one of the handle's in this thread has ended.
 */
#include "block/backend/backend_int.h"

#include <errno.h>

struct BlkRequest {
    BlockBackend *blk;
    BlkLocal *local;
    BlkRequest *next; /* in a list of @local */
    BlkOp op;
    BdrvRequestFlags flags;
    int64_t offset, bytes;
    const BdrvIov *iov;
    BlkCompletion *cb;
    void *opaque;
    void *slot; /* the gate was passed at submission */
    BdrvGateWait wait;
    bool started, submitting;
    int ret;
};

/* Everything but @refs belongs to the thread that has the context. */
struct BlkLocal {
    _Atomic unsigned refs; /* the handle's, and one while requests are outstanding */
    unsigned outstanding;  /* until the callback has run */
    unsigned inline_run;   /* completed inside their submission since the loop's last turn */
    unsigned running;      /* have a stack */
    AioContext *ctx;
    BlkRequest *unused;
    BlkRequest *done, **done_last;
    bool call_queued;
    AioCall call;
    BlkRequest *starved, **starved_last; /* wait for a stack, in order */
    bool start_queued;
    AioCall start;
};

static void start_starved(void *opaque);

static void local_unref(BlkLocal *local)
{
    if (atomic_fetch_sub_explicit(&local->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (BlkRequest *request = local->unused, *next; request; request = next) {
        next = request->next;
        g_free(request);
    }
    g_free(local);
}

void blk_locals_free(BlockBackend *blk)
{
    for (unsigned i = 0; i < AIO_CONTEXT_MAX; i++) {
        BlkLocal *local = atomic_load_explicit(&blk->locals[i], memory_order_acquire);

        if (local) {
            local_unref(local);
        }
    }
}

/* One deferred call for all that finished meanwhile; what finishes during it waits for the next. */
static void call_back(void *opaque)
{
    BlkLocal *local = opaque;
    BlkRequest *request = local->done, *next;

    local->done = NULL;
    local->done_last = &local->done;
    local->call_queued = false;
    local->inline_run = 0;
    for (; request; request = next) {
        next = request->next;
        request->cb(request->opaque, request->ret);
        request->next = local->unused;
        local->unused = request;
        if (--local->outstanding == 0) {
            local_unref(local);
        }
    }
}

static BlkLocal *local_get(BlockBackend *blk)
{
    AioContext *ctx = aio_context_current();
    _Atomic(BlkLocal *) *place;
    BlkLocal *local;

    if (G_UNLIKELY(!ctx)) {
        return NULL;
    }
    place = &blk->locals[aio_context_index(ctx)];
    local = atomic_load_explicit(place, memory_order_relaxed);
    if (!local) {
        local = g_new0(BlkLocal, 1);
        atomic_init(&local->refs, 1);
        local->done_last = &local->done;
        local->call = (AioCall){ .func = call_back, .opaque = local };
        local->starved_last = &local->starved;
        local->start = (AioCall){ .func = start_starved, .opaque = local };
        atomic_store_explicit(place, local, memory_order_release);
    }
    local->ctx = ctx;
    return local;
}

static void finish(BlkRequest *request, int ret)
{
    BlkLocal *local = request->local;

    request->ret = ret;
    request->started = true; /* too late to cancel */
    request->next = NULL;
    local->inline_run += request->submitting;
    *local->done_last = request;
    local->done_last = &request->next;
    if (!local->call_queued) {
        local->call_queued = true;
        aio_call_user(local->ctx, &local->call);
    }
    if (G_UNLIKELY(local->starved && !local->start_queued)) {
        local->start_queued = true;
        aio_call(local->ctx, &local->start);
    }
}

/* From its coroutine, whose stack is free soon. */
static void coroutine_fn run_ends(BlkRequest *request, int ret)
{
    request->local->running--;
    finish(request, ret);
}

static void coroutine_fn request_entry(void *opaque)
{
    BlkRequest *request = opaque;
    BlockBackend *blk = request->blk;
    void *outer = NULL;
    int ret = 0;

    if (request->slot) {
        bdrv_gate_adopt(request->slot);
    } else {
        ret = bdrv_gate_enter_or_cancel(blk->gate, &request->wait, &outer);
        if (ret < 0) {
            run_ends(request, ret);
            return;
        }
    }
    if (request->wait.cancelled) {
        ret = -ECANCELED;
    } else {
        request->started = true;
        ret = blk_co_perform(blk, request->op, request->offset, request->bytes, request->iov, request->flags);
    }
    run_ends(request, ret);
    bdrv_gate_leave(blk->gate, outer);
}

static void run(BlkRequest *request, Coroutine *co)
{
    BlkLocal *local = request->local;

    local->running++;
    if (request->slot && (co_in_coroutine() || local->inline_run >= BLK_INLINE_MAX)) {
        co_wake(co);
    } else {
        request->submitting = true;
        co_enter(co);
        request->submitting = false;
    }
}

static void refuse(BlkRequest *request)
{
    if (request->slot) {
        bdrv_gate_leave_entered(request->slot);
    }
    finish(request, -ENOMEM);
}

/* Not in front of a closed gate: who closes the handle would not know of it. */
static void wait_for_stack(BlkRequest *request)
{
    BlkLocal *local = request->local;

    if (request->slot && (local->running > 0 || local->starved)) {
        *local->starved_last = request;
        local->starved_last = &request->next;
    } else {
        refuse(request);
    }
}

static BlkRequest *take_starved(BlkLocal *local)
{
    BlkRequest *request = local->starved;

    local->starved = request->next;
    if (!local->starved) {
        local->starved_last = &local->starved;
    }
    return request;
}

/* Those that end meanwhile queue no other call: their stacks are taken here. */
static void start_starved(void *opaque)
{
    BlkLocal *local = opaque;

    while (local->starved) {
        Coroutine *co = co_try_new(request_entry, local->starved);

        if (co) {
            run(take_starved(local), co);
        } else if (local->running > 0) {
            break;
        } else {
            refuse(take_starved(local));
        }
    }
    local->start_queued = false;
}

static BlkRequest *submit(BlockBackend *blk, BlkOp op, int64_t offset, int64_t bytes, const BdrvIov *iov,
                          BdrvRequestFlags flags, BlkCompletion *cb, void *opaque)
{
    BlkLocal *local = local_get(blk);
    BlkRequest *request;
    Coroutine *co;

    if (G_UNLIKELY(!local)) {
        return NULL;
    }
    request = local->unused;
    if (request) {
        local->unused = request->next;
    } else {
        request = g_new(BlkRequest, 1);
    }
    *request = (BlkRequest){
        .blk = blk, .local = local, .op = op, .flags = flags, .offset = offset, .bytes = bytes, .iov = iov,
        .cb = cb, .opaque = opaque,
    };
    if (local->outstanding++ == 0) {
        atomic_fetch_add_explicit(&local->refs, 1, memory_order_relaxed);
    }
    co = G_UNLIKELY(local->starved) ? NULL : co_try_new(request_entry, request);
    /*
     * Inside the gate from now on, so that closing the handle waits for it even if it starts later.
     * A closed gate: enter the coroutine at once, it only parks.
     */
    request->slot = bdrv_gate_try_enter(blk->gate);
    if (G_LIKELY(co)) {
        run(request, co);
    } else {
        wait_for_stack(request);
    }
    return request;
}

BlkRequest *blk_aio_preadv(BlockBackend *blk, int64_t offset, const BdrvIov *iov, BdrvRequestFlags flags,
                           BlkCompletion *cb, void *opaque)
{
    return submit(blk, BLK_OP_READ, offset, 0, iov, flags, cb, opaque);
}

BlkRequest *blk_aio_pwritev(BlockBackend *blk, int64_t offset, const BdrvIov *iov, BdrvRequestFlags flags,
                            BlkCompletion *cb, void *opaque)
{
    return submit(blk, BLK_OP_WRITE, offset, 0, iov, flags, cb, opaque);
}

BlkRequest *blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, BdrvRequestFlags flags,
                                  BlkCompletion *cb, void *opaque)
{
    return submit(blk, BLK_OP_WRITE_ZEROES, offset, bytes, NULL, flags, cb, opaque);
}

BlkRequest *blk_aio_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes, BlkCompletion *cb, void *opaque)
{
    return submit(blk, BLK_OP_DISCARD, offset, bytes, NULL, 0, cb, opaque);
}

BlkRequest *blk_aio_flush(BlockBackend *blk, BlkCompletion *cb, void *opaque)
{
    return submit(blk, BLK_OP_FLUSH, 0, 0, NULL, 0, cb, opaque);
}

void blk_aio_cancel(BlkRequest *request)
{
    if (request->started) {
        return; /* it is with the driver: let it end */
    }
    if (request->slot) {
        request->wait.cancelled = true; /* queued to start */
    } else {
        bdrv_gate_cancel(request->blk->gate, &request->wait);
    }
}
