/* SPDX-License-Identifier: MIT */

/*
 * Reads. Bytes past the end of a node read as zeroes: an image file may end in the middle of its last
 * cluster, and a backing file may be shorter than its overlay. (A BlockBackend refuses such reads.)
 */

#include "block/io/request.h"
#include "block/io/stats.h"

static int coroutine_fn read_padded(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                    size_t iov_offset, BdrvRequestFlags flags)
{
    BdrvPadded padded;
    int ret = bdrv_pad(bs, &padded, offset, bytes, iov, iov_offset);

    if (ret < 0) {
        return ret;
    }
    ret = bdrv_read_aligned(bs, padded.offset, padded.bytes, &padded.iov, 0, flags);
    bdrv_unpad(&padded);
    return ret;
}

int coroutine_fn bdrv_read_node(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                size_t iov_offset, BdrvRequestFlags flags)
{
    int64_t inside = MIN(bytes, atomic_load_explicit(&bs->length, memory_order_relaxed) - offset);
    int ret = 0;

    if (G_LIKELY(inside > 0)) {
        if (G_LIKELY(bdrv_is_aligned(bs, offset, inside))) {
            ret = bdrv_read_aligned(bs, offset, inside, iov, iov_offset, flags);
        } else {
            ret = read_padded(bs, offset, inside, iov, iov_offset, flags);
        }
    } else {
        inside = 0;
    }
    if (G_UNLIKELY(inside < bytes) && ret >= 0) {
        bdrv_iov_memset(iov, iov_offset + inside, 0, bytes - inside);
    }
    return ret;
}

static int coroutine_fn read_child(BdrvChild *child, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                   size_t iov_offset, BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    int ret = bdrv_check_range(offset, bytes, iov, iov_offset);

    if (G_UNLIKELY(ret < 0 || bytes == 0)) {
        return ret;
    }
    /* The short way: nothing to pad, split or bounce. */
    if (G_LIKELY(bdrv_is_aligned(bs, offset, bytes) && bdrv_fits(bs, bytes, iov, iov_offset) &&
                 offset + bytes <= atomic_load_explicit(&bs->length, memory_order_relaxed))) {
        return bdrv_driver_read(bs, offset, bytes, iov, iov_offset, flags);
    }
    return bdrv_read_node(bs, offset, bytes, iov, iov_offset, flags);
}

/* Apart, so that the way of who does not count stays short. */
__attribute__((noinline))
static int coroutine_fn read_counted(BdrvChild *child, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                     size_t iov_offset, BdrvRequestFlags flags)
{
    BdrvStats *stats = bdrv_stats(child->bs);
    int64_t start = bdrv_stats_begin();
    int ret = read_child(child, offset, bytes, iov, iov_offset, flags);

    return bdrv_stats_end(stats, BDRV_STAT_READ, bytes, start, ret);
}

int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset,
                                BdrvRequestFlags flags)
{
    if (G_LIKELY(!bdrv_stats(child->bs))) {
        return read_child(child, offset, bytes, iov, iov_offset, flags);
    }
    return read_counted(child, offset, bytes, iov, iov_offset, flags);
}

int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                               BdrvRequestFlags flags)
{
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, bytes);

    if (bytes < 0) {
        return -EIO;
    }
    return bdrv_co_preadv(child, offset, bytes, &iov, 0, flags);
}
