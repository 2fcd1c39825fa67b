/* SPDX-License-Identifier: MIT */
/* The blocking flavour: each call is a coroutine that the calling thread's context runs to its end. */
#include "block/backend/backend_int.h"

#include <errno.h>

typedef struct BlockingCall {
    BlockBackend *blk;
    BlkBlockingFunc *func;
    void *opaque;
    int ret;
} BlockingCall;

static void coroutine_fn blocking_entry(void *opaque)
{
    BlockingCall *call = opaque;

    call->ret = call->func(call->blk, call->opaque);
}

int blk_run_blocking(BlockBackend *blk, BlkBlockingFunc *func, void *opaque)
{
    BlockingCall call = { blk, func, opaque, -EINPROGRESS };
    int ret = co_run_blocking(blocking_entry, &call);

    return ret < 0 ? ret : call.ret;
}

int blk_run_surely(BlockBackend *blk, BlkBlockingFunc *func, void *opaque)
{
    BlockingCall call = { blk, func, opaque, -EINPROGRESS };
    int ret;

    /* A coroutine that ends in this thread leaves its stack behind, or another thread frees some memory. */
    while ((ret = co_run_blocking(blocking_entry, &call)) == -ENOMEM) {
        aio_context_run(aio_context_current(), false);
        g_usleep(1000);
    }
    return ret < 0 ? ret : call.ret;
}

bool blk_has_run(int ret, GError **errp)
{
    if (ret == -ENOMEM) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for the stack of a coroutine");
    } else if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret,
                    "a blocking call was made from a coroutine or a callback; use the coroutine form there");
    }
    return ret >= 0;
}

/* ---- requests ---- */

typedef struct IoCall {
    BlkOp op;
    int64_t offset, bytes;
    const BdrvIov *iov;
    BdrvRequestFlags flags;
} IoCall;

static int coroutine_fn run_io(BlockBackend *blk, void *opaque)
{
    const IoCall *call = opaque;
    void *outer = bdrv_gate_enter(blk->gate);
    int ret = blk_co_perform(blk, call->op, call->offset, call->bytes, call->iov, call->flags);

    bdrv_gate_leave(blk->gate, outer);
    return ret;
}

int blk_preadv(BlockBackend *blk, int64_t offset, const BdrvIov *iov, BdrvRequestFlags flags)
{
    IoCall call = { .op = BLK_OP_READ, .offset = offset, .iov = iov, .flags = flags };

    return blk_run_blocking(blk, run_io, &call);
}

int blk_pwritev(BlockBackend *blk, int64_t offset, const BdrvIov *iov, BdrvRequestFlags flags)
{
    IoCall call = { .op = BLK_OP_WRITE, .offset = offset, .iov = iov, .flags = flags };

    return blk_run_blocking(blk, run_io, &call);
}

int blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf, BdrvRequestFlags flags)
{
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, (size_t)bytes);

    return bytes < 0 ? -EIO : blk_preadv(blk, offset, &iov, flags);
}

int blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf, BdrvRequestFlags flags)
{
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, (size_t)bytes);

    return bytes < 0 ? -EIO : blk_pwritev(blk, offset, &iov, flags);
}

int blk_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    IoCall call = { .op = BLK_OP_WRITE_ZEROES, .offset = offset, .bytes = bytes, .flags = flags };

    return blk_run_blocking(blk, run_io, &call);
}

int blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    IoCall call = { .op = BLK_OP_DISCARD, .offset = offset, .bytes = bytes };

    return blk_run_blocking(blk, run_io, &call);
}

int blk_flush(BlockBackend *blk)
{
    IoCall call = { .op = BLK_OP_FLUSH };

    return blk_run_blocking(blk, run_io, &call);
}

typedef struct StatusCall {
    int64_t offset, bytes;
    BlockExtent *extent;
} StatusCall;

static int coroutine_fn run_status(BlockBackend *blk, void *opaque)
{
    const StatusCall *call = opaque;

    return blk_co_block_status(blk, call->offset, call->bytes, call->extent);
}

static int coroutine_fn run_status_above(BlockBackend *blk, void *opaque)
{
    const StatusCall *call = opaque;

    return blk_co_block_status_above(blk, call->offset, call->bytes, call->extent);
}

int blk_block_status(BlockBackend *blk, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    StatusCall call = { offset, bytes, extent };

    return blk_run_blocking(blk, run_status, &call);
}

int blk_block_status_above(BlockBackend *blk, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    StatusCall call = { offset, bytes, extent };

    return blk_run_blocking(blk, run_status_above, &call);
}

typedef struct CopyCall {
    BlockBackend *dst;
    int64_t src_offset, dst_offset, bytes;
    BdrvRequestFlags flags;
} CopyCall;

static int coroutine_fn run_copy(BlockBackend *src, void *opaque)
{
    const CopyCall *call = opaque;

    return blk_co_copy_range(src, call->src_offset, call->dst, call->dst_offset, call->bytes, call->flags);
}

int blk_copy_range(BlockBackend *src, int64_t src_offset, BlockBackend *dst, int64_t dst_offset, int64_t bytes,
                   BdrvRequestFlags flags)
{
    CopyCall call = { dst, src_offset, dst_offset, bytes, flags };

    return blk_run_blocking(src, run_copy, &call);
}
