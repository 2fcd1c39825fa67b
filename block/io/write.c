/* SPDX-License-Identifier: MIT */

/*
 * Writes. A write that passes the end of the node makes it longer if the edge has the right to resize,
 * and is refused otherwise. FUA that the driver cannot do itself becomes a flush afterwards.
 */

#include "block/io/request.h"

/* Flags that the driver takes; an empty callback of a filter hands all of them on. */
static BdrvRequestFlags supported_flags(const BlockDriverState *bs)
{
    return bs->drv->bdrv_co_writev || !bs->drv->is_filter ? bs->supported_write_flags : ~0u;
}

static int coroutine_fn write_padded(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                     size_t iov_offset, BdrvRequestFlags flags)
{
    BdrvPadded padded;
    int ret = bdrv_pad(bs, &padded, offset, bytes, iov, iov_offset);

    if (ret < 0) {
        return ret;
    }
    ret = bdrv_pad_read_edges(bs, &padded);
    if (ret >= 0) {
        ret = bdrv_write_aligned(bs, padded.offset, padded.bytes, &padded.iov, 0, flags);
    }
    if (ret >= 0 && offset + bytes > atomic_load(&bs->length)) {
        bdrv_grow_length(bs, padded.offset + padded.bytes); /* the driver did write the padding behind */
    }
    bdrv_unpad(&padded);
    return ret;
}

int coroutine_fn bdrv_write_node(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                 size_t iov_offset, BdrvRequestFlags flags)
{
    BdrvRequestFlags driver_flags = flags & (supported_flags(bs) | BDRV_REQ_COMPRESSED);
    bool tracked = bdrv_must_track(bs), aligned = bdrv_is_aligned(bs, offset, bytes);
    BdrvTrackedRequest request;
    int ret;

    if (G_UNLIKELY(flags & BDRV_REQ_SERIALISING) && !tracked) {
        return -ENOTSUP; /* older requests were not noted: see bdrv_track_requests() */
    }
    if (tracked) {
        bdrv_tracked_begin(bs, &request, bdrv_round_down(offset, bdrv_alignment(bs)),
                           bdrv_round_up(offset + bytes, bdrv_alignment(bs)),
                           !aligned || (flags & BDRV_REQ_SERIALISING));
    }
    bdrv_event(bs, BDRV_EVENT_PWRITEV);
    if (G_LIKELY(aligned)) {
        ret = bdrv_write_aligned(bs, offset, bytes, iov, iov_offset, driver_flags);
    } else {
        ret = write_padded(bs, offset, bytes, iov, iov_offset, driver_flags);
    }
    bdrv_event(bs, BDRV_EVENT_PWRITEV_DONE);

    bdrv_note_write(bs); /* a write that failed may have changed something too */
    if (G_LIKELY(ret >= 0)) {
        bdrv_grow_length(bs, offset + bytes);
    }
    if (tracked) {
        bdrv_tracked_end(bs, &request);
    }
    if (G_UNLIKELY(flags & ~driver_flags & BDRV_REQ_FUA) && ret >= 0) {
        ret = bdrv_flush_node(bs);
    }
    return ret;
}

int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                 size_t iov_offset, BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    int ret = bdrv_check_range(offset, bytes, iov, iov_offset);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    ret = bdrv_check_write(child, offset, bytes, flags);
    if (ret < 0) {
        return ret;
    }
    if (G_LIKELY(!bdrv_guard_applies(bs, offset))) {
        return bdrv_write_node(bs, offset, bytes, iov, iov_offset, flags);
    }
    ret = bdrv_guard_begin(bs, offset, bytes, iov, iov_offset);
    if (ret < 0) {
        return ret;
    }
    ret = bdrv_write_node(bs, offset, bytes, iov, iov_offset, flags);
    bdrv_guard_end(bs);
    return ret;
}

int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset, int64_t bytes, const void *buf,
                                BdrvRequestFlags flags)
{
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, bytes);

    if (bytes < 0) {
        return -EIO;
    }
    return bdrv_co_pwritev(child, offset, bytes, &iov, 0, flags);
}
