/* SPDX-License-Identifier: MIT */

/*
 * Writes. A write that passes the end of the node makes it longer if the edge has the right to resize,
 * and is refused otherwise. FUA that the driver cannot do itself becomes a flush afterwards.
 */

#include "block/io/request.h"
#include "block/io/stats.h"

/* Flags that the driver takes; an empty callback of a filter hands all of them on. */
static BdrvRequestFlags supported_flags(const BlockDriverState *bs)
{
    return bs->drv->bdrv_co_writev || !bs->drv->is_filter ? bs->supported_write_flags : ~0u;
}

/*
 * The padding behind a last block that is not whole made the file longer than it should be: cut it off
 * again. The request is alone from its first block to infinity. Drivers that cannot cut keep the padding.
 */
static void coroutine_fn trim_padding(BlockDriverState *bs, int64_t written_end, int64_t true_end)
{
    int64_t length = MAX(atomic_load(&bs->length), true_end);

    if (written_end <= length) {
        return;
    }
    if (bs->drv->bdrv_truncate && bs->drv->bdrv_truncate(bs, length, true, BDRV_PREALLOC_OFF, 0, NULL)) {
        bdrv_set_length(bs, length);
    } else {
        bdrv_grow_length(bs, written_end);
    }
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
        bdrv_event(bs, BDRV_EVENT_PWRITEV);
        ret = bdrv_write_aligned(bs, padded.offset, padded.bytes, &padded.iov, 0, flags);
    }
    if (ret >= 0) {
        trim_padding(bs, padded.offset + padded.bytes, offset + bytes);
    }
    bdrv_unpad(&padded);
    return ret;
}

/* Note the write; one that pads past the end of the node has to be alone there. */
static void coroutine_fn begin(BlockDriverState *bs, BdrvTrackedRequest *request, int64_t offset,
                               int64_t bytes, bool serialising)
{
    int64_t first = bdrv_round_down(offset, bdrv_alignment(bs));
    int64_t end = bdrv_round_up(offset + bytes, bdrv_alignment(bs));
    bool past_end = false;

    for (;;) {
        past_end |= end > offset + bytes && end > atomic_load(&bs->length);
        bdrv_tracked_begin(bs, request, first, past_end ? INT64_MAX : end, serialising);
        if (past_end || end <= atomic_load(&bs->length) || end == offset + bytes) {
            return;
        }
        bdrv_tracked_end(bs, request); /* the node has shrunk meanwhile */
    }
}

/*
 * What the driver is told. A callback for compressed writes gets no flags: then FUA is a flush afterwards.
 * Compressing is no hint: the driver refuses what it cannot do.
 */
static BdrvRequestFlags driver_flags_of(const BlockDriverState *bs, BdrvRequestFlags flags)
{
    BdrvRequestFlags supported = supported_flags(bs);

    if (G_UNLIKELY(flags & BDRV_REQ_COMPRESSED) && !(supported & BDRV_REQ_COMPRESSED)) {
        return BDRV_REQ_COMPRESSED;
    }
    return flags & supported;
}

int coroutine_fn bdrv_write_node(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                 size_t iov_offset, BdrvRequestFlags flags)
{
    BdrvRequestFlags driver_flags = driver_flags_of(bs, flags);
    bool tracked = bdrv_must_track(bs), aligned = bdrv_is_aligned(bs, offset, bytes), grows;
    BdrvTrackedRequest request;
    int ret;

    if (G_UNLIKELY(flags & BDRV_REQ_SERIALISING) && !tracked) {
        return -ENOTSUP; /* older requests were not noted: see bdrv_track_requests() */
    }
    if (tracked) {
        begin(bs, &request, offset, bytes, !aligned || (flags & BDRV_REQ_SERIALISING));
    }
    grows = bdrv_growth_begin(bs, offset + bytes);
    if (aligned) {
        bdrv_event(bs, BDRV_EVENT_PWRITEV);
    }
    if (G_UNLIKELY(flags & BDRV_REQ_COMPRESSED)) {
        /* Whole clusters in one piece: nothing is padded or split. */
        ret = aligned ? bdrv_driver_write(bs, offset, bytes, iov, iov_offset, driver_flags) : -EINVAL;
    } else if (G_LIKELY(aligned && bdrv_fits(bs, bytes, iov, iov_offset))) {
        ret = bdrv_driver_write(bs, offset, bytes, iov, iov_offset, driver_flags);
    } else if (aligned) {
        ret = bdrv_write_aligned(bs, offset, bytes, iov, iov_offset, driver_flags);
    } else {
        ret = write_padded(bs, offset, bytes, iov, iov_offset, driver_flags);
    }
    bdrv_event(bs, BDRV_EVENT_PWRITEV_DONE);

    bdrv_note_write(bs); /* a write that failed may have changed something too */
    if (G_LIKELY(ret >= 0)) {
        bdrv_grow_length(bs, offset + bytes);
    }
    if (G_UNLIKELY(grows)) {
        bdrv_growth_end(bs);
    }
    if (tracked) {
        bdrv_tracked_end(bs, &request);
    }
    if (G_UNLIKELY(flags & ~driver_flags & BDRV_REQ_FUA) && ret >= 0) {
        ret = bdrv_flush_node(bs);
    }
    return ret;
}

static int coroutine_fn write_child(BdrvChild *child, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                    size_t iov_offset, BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    int ret = bdrv_check_range(offset, bytes, iov, iov_offset);

    ret = ret < 0 ? ret : bdrv_check_write(child, offset, bytes, flags);
    if (ret < 0 || bytes == 0) {
        return ret;
    }
    if (G_UNLIKELY(bdrv_node(bs)->detect_zeroes) && bdrv_zeroes_detected(bs, bytes, iov, iov_offset, flags)) {
        bool unmap = bdrv_node(bs)->detect_zeroes == BDRV_DETECT_ZEROES_UNMAP;

        return bdrv_co_pwrite_zeroes(child, offset, bytes, flags | (unmap ? BDRV_REQ_MAY_UNMAP : 0));
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

/* Apart, so that the way of who does not count stays short. */
__attribute__((noinline))
static int coroutine_fn write_counted(BdrvChild *child, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                      size_t iov_offset, BdrvRequestFlags flags)
{
    BdrvStats *stats = bdrv_stats(child->bs);
    int64_t start = bdrv_stats_begin();
    int ret = write_child(child, offset, bytes, iov, iov_offset, flags);

    return bdrv_stats_end(stats, BDRV_STAT_WRITE, bytes, start, ret);
}

int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset,
                                 BdrvRequestFlags flags)
{
    if (G_LIKELY(!bdrv_stats(child->bs))) {
        return write_child(child, offset, bytes, iov, iov_offset, flags);
    }
    return write_counted(child, offset, bytes, iov, iov_offset, flags);
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
