/* SPDX-License-Identifier: MIT */
/* A guest's request: range check, what the handle adds to it, the gate around it. */
#include "block/backend/backend_int.h"

#include <errno.h>
#include <limits.h>

/* Guests get EIO for anything out of range. */
static int check_range(BlockBackend *blk, int64_t offset, int64_t bytes, bool may_grow)
{
    if (G_UNLIKELY(offset < 0 || bytes < 0 || offset > INT64_MAX - bytes)) {
        return -EIO;
    }
    if (G_UNLIKELY(offset + bytes > blk_length(blk)) &&
        !(may_grow && atomic_load_explicit(&blk->beyond_eof, memory_order_relaxed))) {
        return -EIO;
    }
    return 0;
}

static BdrvRequestFlags write_flags(BlockBackend *blk, BdrvRequestFlags flags)
{
    return atomic_load_explicit(&blk->writethrough, memory_order_relaxed) ? flags | BDRV_REQ_FUA : flags;
}

int coroutine_fn blk_co_perform(BlockBackend *blk, BlkOp op, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                BdrvRequestFlags flags)
{
    BdrvChild *root = &blk->root->child;
    int ret = 0;

    if (G_UNLIKELY(flags & ~BLK_REQUEST_FLAGS)) {
        return -EINVAL;
    }
    if (op <= BLK_OP_WRITE) {
        if (G_UNLIKELY(iov->bytes > SSIZE_MAX)) {
            return -EINVAL;
        }
        bytes = (int64_t)iov->bytes;
    }
    if (op != BLK_OP_FLUSH) {
        ret = check_range(blk, offset, bytes, op == BLK_OP_WRITE || op == BLK_OP_WRITE_ZEROES);
    }
    if (G_UNLIKELY(ret < 0)) {
        return ret;
    }
    switch (op) {
    case BLK_OP_READ:
        return bdrv_co_preadv(root, offset, bytes, iov, 0, flags);
    case BLK_OP_WRITE:
        return bdrv_co_pwritev(root, offset, bytes, iov, 0, write_flags(blk, flags));
    case BLK_OP_WRITE_ZEROES:
        return bdrv_co_pwrite_zeroes(root, offset, bytes, write_flags(blk, flags));
    case BLK_OP_DISCARD:
        return bdrv_co_pdiscard(root, offset, bytes);
    case BLK_OP_FLUSH:
        return bdrv_co_flush(root);
    }
    return -EINVAL;
}

static int coroutine_fn gated(BlockBackend *blk, BlkOp op, int64_t offset, int64_t bytes, const BdrvIov *iov,
                              BdrvRequestFlags flags)
{
    void *outer = bdrv_gate_enter(blk->gate);
    int ret = blk_co_perform(blk, op, offset, bytes, iov, flags);

    bdrv_gate_leave(blk->gate, outer);
    return ret;
}

int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset, const BdrvIov *iov, BdrvRequestFlags flags)
{
    return gated(blk, BLK_OP_READ, offset, 0, iov, flags);
}

int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset, const BdrvIov *iov, BdrvRequestFlags flags)
{
    return gated(blk, BLK_OP_WRITE, offset, 0, iov, flags);
}

int coroutine_fn blk_co_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf, BdrvRequestFlags flags)
{
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, (size_t)bytes);

    return bytes < 0 ? -EIO : gated(blk, BLK_OP_READ, offset, 0, &iov, flags);
}

int coroutine_fn blk_co_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf,
                               BdrvRequestFlags flags)
{
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, (size_t)bytes);

    return bytes < 0 ? -EIO : gated(blk, BLK_OP_WRITE, offset, 0, &iov, flags);
}

int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    return gated(blk, BLK_OP_WRITE_ZEROES, offset, bytes, NULL, flags);
}

int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    return gated(blk, BLK_OP_DISCARD, offset, bytes, NULL, 0);
}

int coroutine_fn blk_co_flush(BlockBackend *blk)
{
    return gated(blk, BLK_OP_FLUSH, 0, 0, NULL, 0);
}

static int coroutine_fn status(BlockBackend *blk, int64_t offset, int64_t bytes, BlockExtent *extent, bool chain)
{
    void *outer = bdrv_gate_enter(blk->gate);
    BdrvChild *root = &blk->root->child;
    int ret = bytes == 0 ? -EINVAL : check_range(blk, offset, bytes, false);

    if (ret == 0) {
        ret = chain ? bdrv_co_block_status_above(root, offset, bytes, extent)
                    : bdrv_co_block_status(root, offset, bytes, extent);
    }
    bdrv_gate_leave(blk->gate, outer);
    return ret;
}

int coroutine_fn blk_co_block_status(BlockBackend *blk, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    return status(blk, offset, bytes, extent, false);
}

int coroutine_fn blk_co_block_status_above(BlockBackend *blk, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    return status(blk, offset, bytes, extent, true);
}

int coroutine_fn blk_co_copy_range(BlockBackend *src, int64_t src_offset, BlockBackend *dst, int64_t dst_offset,
                                   int64_t bytes, BdrvRequestFlags flags)
{
    void *outer = bdrv_gate_enter_both(src->gate, dst->gate);
    int ret = flags & ~BLK_REQUEST_FLAGS ? -EINVAL : check_range(src, src_offset, bytes, false);

    if (ret == 0) {
        ret = check_range(dst, dst_offset, bytes, true);
    }
    if (ret == 0) {
        ret = bdrv_co_copy_range(&src->root->child, src_offset, &dst->root->child, dst_offset, bytes,
                                 write_flags(dst, flags));
    }
    bdrv_gate_leave_both(src->gate, dst->gate, outer);
    return ret;
}
