/* SPDX-License-Identifier: MIT */

/*
 * Discard: a hint that the bytes are not needed. It does nothing, and succeeds, where the node was not
 * opened with discard=unmap or the driver cannot. What is not a whole unit of the driver is left out,
 * but for a last unit that the end of the node cuts short.
 */

#include "block/io/request.h"
#include "block/io/stats.h"

static int coroutine_fn discard_node(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t align = bdrv_alignment(bs), length = atomic_load(&bs->length);
    int64_t unit = MAX(bdrv_round_up(bs->limits.pdiscard_alignment, align), align);
    int64_t max = bs->limits.max_pdiscard ? bs->limits.max_pdiscard : INT64_MAX;
    int64_t first = bdrv_round_up(offset, unit);
    int64_t end =
        offset + bytes == length ? bdrv_round_down(length, align) : bdrv_round_down(offset + bytes, unit);
    BdrvTrackedRequest request;
    bool tracked = bdrv_must_track(bs);
    int ret = 0;

    if (first >= end) {
        return 0;
    }
    max = max > unit ? bdrv_round_down(max, unit) : unit;
    if (tracked) {
        bdrv_tracked_begin(bs, &request, first, end, false);
    }
    for (int64_t pos = first, n; pos < end && ret >= 0; pos += n) {
        n = MIN(end - pos, max);
        ret = bdrv_driver_discard(bs, pos, n);
    }
    bdrv_note_write(bs);
    if (tracked) {
        bdrv_tracked_end(bs, &request);
    }
    return ret == -ENOTSUP ? 0 : ret;
}

static int coroutine_fn discard_child(BdrvChild *child, int64_t offset, int64_t bytes)
{
    BlockDriverState *bs = child->bs;
    int ret = bdrv_check_range(offset, bytes, NULL, 0);

    ret = ret < 0 ? ret : bdrv_check_write(child, offset, bytes, 0);
    if (ret < 0 || bytes == 0) {
        return ret;
    }
    if (offset + bytes > atomic_load(&bs->length)) {
        return -EIO;
    }
    if (!(bs->open_flags & BDRV_O_UNMAP)) {
        return 0;
    }
    if (!bdrv_guard_applies(bs, offset)) {
        return discard_node(bs, offset, bytes);
    }
    ret = bdrv_guard_begin(bs, offset, bytes, NULL, 0);
    if (ret < 0) {
        return ret;
    }
    ret = discard_node(bs, offset, bytes);
    bdrv_guard_end(bs);
    return ret;
}

/* Apart, so that the way of who does not count stays short. */
__attribute__((noinline))
static int coroutine_fn discard_counted(BdrvChild *child, int64_t offset, int64_t bytes)
{
    BdrvStats *stats = bdrv_stats(child->bs);
    int64_t start = bdrv_stats_begin();
    int ret = discard_child(child, offset, bytes);

    return bdrv_stats_end(stats, BDRV_STAT_DISCARD, bytes, start, ret);
}

int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes)
{
    if (G_LIKELY(!bdrv_stats(child->bs))) {
        return discard_child(child, offset, bytes);
    }
    return discard_counted(child, offset, bytes);
}
