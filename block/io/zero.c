/* SPDX-License-Identifier: MIT */

/*
 * Write-zeroes. The driver is asked to do it without data, in pieces that suit its alignment; what it
 * cannot do (-ENOTSUP) is written from a buffer of zeroes, unless the caller wants no such fall-back.
 * Ends that are not multiples of the request alignment are always written: that is at most one block
 * at either end.
 */

#include "block/io/request.h"
#include "block/io/stats.h"

/* Never written to: pages of it are the kernel's zero page. One view names it many times. */
#define ZERO_BUFFER_BYTES 65536
#define ZERO_VEC_COUNT 16
static const uint8_t *zero_buffer(void)
{
    static uint8_t zeroes[ZERO_BUFFER_BYTES] __attribute__((aligned(4096)));
    return zeroes;
}

static BdrvIov zero_iov(struct iovec vec[ZERO_VEC_COUNT])
{
    for (unsigned i = 0; i < ZERO_VEC_COUNT; i++) {
        vec[i] = (struct iovec){ .iov_base = (void *)zero_buffer(), .iov_len = ZERO_BUFFER_BYTES };
    }
    return (BdrvIov){ .vec = vec, .count = ZERO_VEC_COUNT, .bytes = ZERO_VEC_COUNT * ZERO_BUFFER_BYTES };
}

static int coroutine_fn write_buffer_aligned(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             BdrvRequestFlags flags)
{
    struct iovec vec[ZERO_VEC_COUNT];
    BdrvIov iov = zero_iov(vec);
    int ret = 0;

    for (int64_t n; bytes > 0 && ret >= 0; offset += n, bytes -= n) {
        n = MIN(bytes, (int64_t)iov.bytes);
        BdrvIov part = iov;
        part.count = (n + ZERO_BUFFER_BYTES - 1) / ZERO_BUFFER_BYTES;
        part.bytes = n;
        vec[part.count - 1].iov_len = n - (int64_t)(part.count - 1) * ZERO_BUFFER_BYTES;
        ret = bdrv_write_aligned(bs, offset, n, &part, 0, flags);
        vec[part.count - 1].iov_len = ZERO_BUFFER_BYTES;
    }
    return ret;
}

static BdrvRequestFlags supported_flags(const BlockDriverState *bs)
{
    return bs->drv->bdrv_co_write_zeroes || !bs->drv->is_filter ? bs->supported_zero_flags : ~0u;
}

/* Size of the next piece: up to an aligned offset, then as many aligned units as the limit allows. */
static int64_t next_piece(const BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t align = bdrv_alignment(bs);
    int64_t unit = MAX(bdrv_round_up(bs->limits.pwrite_zeroes_alignment, align), align);
    int64_t max = bs->limits.max_pwrite_zeroes
                      ? MAX(bdrv_round_down(bs->limits.max_pwrite_zeroes, align), align)
                      : INT64_MAX;
    int64_t n = MIN(bytes, max);

    if (offset % unit) {
        return MIN(n, unit - offset % unit);
    }
    return n >= unit ? bdrv_round_down(n, unit) : n;
}

/* Sets *@need_flush if FUA was asked for and a piece was written without. */
static int coroutine_fn write_zeroes_aligned(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             BdrvRequestFlags flags, bool *need_flush)
{
    BdrvRequestFlags zero_flags = flags & supported_flags(bs);
    int ret = 0;

    if (flags & ~zero_flags & BDRV_REQ_NO_FALLBACK) {
        return -ENOTSUP;
    }
    for (int64_t n; bytes > 0 && ret >= 0; offset += n, bytes -= n) {
        BdrvRequestFlags used = zero_flags;

        n = next_piece(bs, offset, bytes);
        ret = bdrv_driver_write_zeroes(bs, offset, n, zero_flags);
        if (ret == -ENOTSUP && !(flags & BDRV_REQ_NO_FALLBACK)) {
            used = flags & bs->supported_write_flags & BDRV_REQ_FUA;
            ret = write_buffer_aligned(bs, offset, n, used);
        }
        *need_flush |= (flags & ~used & BDRV_REQ_FUA) != 0;
    }
    return ret;
}

static int coroutine_fn zero_middle(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    BdrvRequestFlags flags)
{
    bool tracked = bdrv_must_track(bs), need_flush = false, grows;
    BdrvTrackedRequest request;
    int ret;

    if (tracked) {
        bdrv_tracked_begin(bs, &request, offset, offset + bytes, flags & BDRV_REQ_SERIALISING);
    }
    grows = bdrv_growth_begin(bs, offset + bytes);
    bdrv_event(bs, BDRV_EVENT_PWRITEV_ZERO);
    ret = write_zeroes_aligned(bs, offset, bytes, flags, &need_flush);
    bdrv_event(bs, BDRV_EVENT_PWRITEV_DONE);
    bdrv_note_write(bs);
    if (ret >= 0) {
        bdrv_grow_length(bs, offset + bytes);
    }
    if (G_UNLIKELY(grows)) {
        bdrv_growth_end(bs);
    }
    if (tracked) {
        bdrv_tracked_end(bs, &request);
    }
    return ret >= 0 && need_flush ? bdrv_flush_node(bs) : ret;
}

/* A part of one block. */
static int coroutine_fn zero_edge(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, zero_buffer(), bytes);

    return bdrv_write_node(bs, offset, bytes, &iov, 0, flags & (BDRV_REQ_FUA | BDRV_REQ_SERIALISING));
}

static int coroutine_fn zero_node(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    int64_t align = bdrv_alignment(bs), end = offset + bytes;
    int64_t first = MIN(bdrv_round_up(offset, align), end);
    int64_t last = MAX(bdrv_round_down(end, align), first);
    int ret = 0;

    if (G_UNLIKELY(flags & BDRV_REQ_SERIALISING) && !bdrv_must_track(bs)) {
        return -ENOTSUP;
    }
    if (!(bs->open_flags & BDRV_O_UNMAP)) {
        flags &= ~BDRV_REQ_MAY_UNMAP;
    }
    if (last > first) { /* first, so that NO_FALLBACK refuses before anything has changed */
        ret = zero_middle(bs, first, last - first, flags);
    }
    if (ret >= 0 && offset < first) {
        ret = zero_edge(bs, offset, first - offset, flags);
    }
    if (ret >= 0 && last < end) {
        ret = zero_edge(bs, last, end - last, flags);
    }
    return ret;
}

bool bdrv_zeroes_detected(const BlockDriverState *bs, int64_t bytes, const BdrvIov *iov, size_t iov_offset,
                          BdrvRequestFlags flags)
{
    /* Without the callback the zeroes would be written from a buffer again. */
    return (bs->drv->bdrv_co_write_zeroes || bs->drv->is_filter) && !(flags & BDRV_REQ_COMPRESSED) &&
           bdrv_iov_is_zero(iov, iov_offset, bytes);
}

static int coroutine_fn zero_child(BdrvChild *child, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    int ret = bdrv_check_range(offset, bytes, NULL, 0);

    ret = ret < 0 ? ret : bdrv_check_write(child, offset, bytes, flags);
    if (ret < 0 || bytes == 0) {
        return ret;
    }
    if (!bdrv_guard_applies(bs, offset)) {
        return zero_node(bs, offset, bytes, flags);
    }
    ret = bdrv_guard_begin(bs, offset, bytes, NULL, 0);
    if (ret < 0) {
        return ret;
    }
    ret = zero_node(bs, offset, bytes, flags);
    bdrv_guard_end(bs);
    return ret;
}

/* Apart, so that the way of who does not count stays short. */
__attribute__((noinline))
static int coroutine_fn zero_counted(BdrvChild *child, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    BdrvStats *stats = bdrv_stats(child->bs);
    int64_t start = bdrv_stats_begin();
    int ret = zero_child(child, offset, bytes, flags);

    return bdrv_stats_end(stats, BDRV_STAT_ZERO, bytes, start, ret);
}

int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    if (G_LIKELY(!bdrv_stats(child->bs))) {
        return zero_child(child, offset, bytes, flags);
    }
    return zero_counted(child, offset, bytes, flags);
}
