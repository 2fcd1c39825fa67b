/* SPDX-License-Identifier: MIT */

/*
 * Splitting and bouncing. What reaches the driver is at most max_transfer bytes in at most max_iov
 * elements, in memory the driver can use. Memory that is not aligned is bounced at protocol nodes
 * only: above them mem_alignment is a hint for those who allocate buffers.
 */

#include "block/io/request.h"

/* Bytes from @offset on that @max_elements elements hold, at most @bytes. */
static int64_t bytes_in_elements(const BdrvIov *iov, size_t offset, int64_t bytes, unsigned max_elements)
{
    const struct iovec *vec = iov->vec;
    int64_t sum = 0;

    while (offset >= vec->iov_len) {
        offset -= vec->iov_len;
        vec++;
    }
    for (; max_elements > 0 && sum < bytes; max_elements--, vec++) {
        sum += vec->iov_len - offset;
        offset = 0;
    }
    return MIN(sum, bytes);
}

/*
 * Size of the next piece. *@bounce is set if its memory cannot be used as it is: not aligned, or so
 * finely scattered that max_iov elements do not make one block.
 */
static int64_t next_piece(const BlockDriverState *bs, int64_t bytes, const BdrvIov *iov, size_t iov_offset,
                          bool *bounce)
{
    const BdrvLimits *limits = &bs->limits;
    int64_t align = bdrv_alignment(bs), n = bytes;

    *bounce = false;
    if (limits->max_transfer && n > limits->max_transfer) {
        n = MAX(bdrv_round_down(limits->max_transfer, align), align);
    }
    if (limits->max_iov && iov->count > limits->max_iov) {
        int64_t held = bdrv_round_down(bytes_in_elements(iov, iov_offset, n, limits->max_iov), align);
        if (held == 0) {
            *bounce = true;
        } else {
            n = held;
        }
    }
    if (limits->mem_alignment > 1 && !bs->drv->children &&
        !bdrv_iov_is_aligned(iov, iov_offset, n, limits->mem_alignment)) {
        *bounce = true;
    }
    return *bounce ? MIN(n, BDRV_BOUNCE_MAX) : n;
}

static int coroutine_fn call_driver(BlockDriverState *bs, bool write, int64_t offset, int64_t bytes,
                                    const BdrvIov *iov, size_t iov_offset, BdrvRequestFlags flags)
{
    return write ? bdrv_driver_write(bs, offset, bytes, iov, iov_offset, flags)
                 : bdrv_driver_read(bs, offset, bytes, iov, iov_offset, flags);
}

static int coroutine_fn bounce_piece(BlockDriverState *bs, bool write, int64_t offset, int64_t bytes,
                                     const BdrvIov *iov, size_t iov_offset, uint8_t *buf, BdrvRequestFlags flags)
{
    struct iovec vec;
    BdrvIov bounced = BDRV_IOV_BUF(vec, buf, bytes);
    int ret;

    if (write) {
        bdrv_iov_to_buf(iov, iov_offset, buf, bytes);
    }
    ret = call_driver(bs, write, offset, bytes, &bounced, 0, flags);
    if (!write && ret >= 0) {
        bdrv_iov_from_buf(iov, iov_offset, buf, bytes);
    }
    return ret;
}

static int coroutine_fn transfer_in_pieces(BlockDriverState *bs, bool write, int64_t offset, int64_t bytes,
                                           const BdrvIov *iov, size_t iov_offset, BdrvRequestFlags flags)
{
    uint8_t *buf = NULL;
    bool bounce;
    int ret = 0;

    for (int64_t done = 0, n; done < bytes && ret >= 0; done += n) {
        n = next_piece(bs, bytes - done, iov, iov_offset + done, &bounce);
        if (!bounce) {
            ret = call_driver(bs, write, offset + done, n, iov, iov_offset + done, flags);
        } else if (buf || (buf = bdrv_try_blockalign(bs, MIN(bytes, BDRV_BOUNCE_MAX)))) {
            ret = bounce_piece(bs, write, offset + done, n, iov, iov_offset + done, buf, flags);
        } else {
            ret = -ENOMEM;
        }
    }
    bdrv_vfree(buf);
    return ret < 0 ? ret : 0;
}

int coroutine_fn bdrv_read_aligned(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                   size_t iov_offset, BdrvRequestFlags flags)
{
    if (G_LIKELY(bdrv_fits(bs, bytes, iov, iov_offset))) {
        return bdrv_driver_read(bs, offset, bytes, iov, iov_offset, flags);
    }
    return transfer_in_pieces(bs, false, offset, bytes, iov, iov_offset, flags);
}

int coroutine_fn bdrv_write_aligned(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                    size_t iov_offset, BdrvRequestFlags flags)
{
    if (G_LIKELY(bdrv_fits(bs, bytes, iov, iov_offset))) {
        return bdrv_driver_write(bs, offset, bytes, iov, iov_offset, flags);
    }
    return transfer_in_pieces(bs, true, offset, bytes, iov, iov_offset, flags);
}
