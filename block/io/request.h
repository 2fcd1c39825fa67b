/* SPDX-License-Identifier: MIT */
#ifndef BDRV_IO_REQUEST_H
#define BDRV_IO_REQUEST_H

/*
 * The life of a request, from inside. In call order:
 *
 *     request   range and rights; requests that may overlap a read-modify-write wait for each other
 *     guard     keeps a guessed raw image from becoming something else
 *     align     pads what is not a multiple of the node's request alignment
 *     split     cuts by the node's limits and bounces memory that is not aligned
 *     read, write, zero, discard, flush, status, copy, resize: one public call each
 *     driver_call  the table's callback, or what an empty one means
 *
 * A request that needs none of this goes from the public call straight to the driver and allocates nothing.
 */

#include <errno.h>

#include "block/io/io.h"

#define BDRV_BOUNCE_MAX ((int64_t)1 << 20)  /* bytes of memory a request may take for bouncing or copying */
#define BDRV_LENGTH_MAX (INT64_MAX - 65535) /* rounding up by any request alignment cannot overflow */
#define BDRV_PROBE_WINDOW 4096              /* what probing looks at */

static inline BdrvIoState *bdrv_io(const BlockDriverState *bs)
{
    return &bdrv_node(bs)->io;
}

static inline uint32_t bdrv_alignment(const BlockDriverState *bs)
{
    return bs->limits.request_alignment > 1 ? bs->limits.request_alignment : 1;
}

static inline bool bdrv_is_aligned(const BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return ((offset | bytes) & (bdrv_alignment(bs) - 1)) == 0;
}

/* Not a power of two is allowed: the discard alignment of some devices. */
static inline int64_t bdrv_round_down(int64_t value, int64_t align)
{
    return value - value % align;
}

/* What guests address a disk by */
#define SECTOR_BYTES 512

static inline int64_t bdrv_round_up(int64_t value, int64_t align)
{
    return bdrv_round_down(value + align - 1, align);
}

/* ---- request.c ---- */

/* A write at a node where overlapping ones matter; lives on the stack of its coroutine. */
typedef CoRange BdrvTrackedRequest;

/** bdrv_check_range() - 0, or -EIO for a range no node can have or a buffer that is too short */
static inline int bdrv_check_range(int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset)
{
    if (offset < 0 || bytes < 0 || offset > BDRV_LENGTH_MAX - bytes) {
        return -EIO;
    }
    if (iov && (iov_offset > iov->bytes || (uint64_t)bytes > iov->bytes - iov_offset)) {
        return -EIO;
    }
    return 0;
}

/**
 * bdrv_check_write() - may the edge change this range?
 * Returns: 0; -EPERM if the node is read-only or the edge does not have the right to write; -EIO if
 * the range passes the end and the edge must not resize.
 */
static inline int bdrv_check_write(const BdrvChild *child, int64_t offset, int64_t bytes,
                                   BdrvRequestFlags flags)
{
    const BlockDriverState *bs = child->bs;
    unsigned used = atomic_load_explicit(&bdrv_edge(child)->used, memory_order_relaxed);
    unsigned enough = BDRV_RIGHT_WRITE | (flags & BDRV_REQ_UNCHANGED ? BDRV_RIGHT_WRITE_UNCHANGED : 0);

    if (G_UNLIKELY(bs->read_only || !(used & enough))) {
        return -EPERM;
    }
    /* The end of a last sector that the node holds only in part may be written by anyone. */
    if (G_UNLIKELY(offset + bytes > atomic_load_explicit(&bs->length, memory_order_relaxed)) &&
        !(used & BDRV_RIGHT_RESIZE) &&
        offset + bytes > bdrv_round_up(atomic_load(&bs->length), SECTOR_BYTES)) {
        return -EIO;
    }
    return 0;
}

static inline bool bdrv_must_track(const BlockDriverState *bs)
{
    return bs->limits.request_alignment > 1 || bdrv_io(bs)->track_always;
}

/** bdrv_tracked_begin() - note @request; wait for older ones that overlap if one of the two is
 * serialising: nothing may overlap a read-modify-write */
void coroutine_fn bdrv_tracked_begin(BlockDriverState *bs, BdrvTrackedRequest *request, int64_t offset,
                                     int64_t end, bool serialising);
void coroutine_fn bdrv_tracked_end(BlockDriverState *bs, BdrvTrackedRequest *request);

/**
 * bdrv_growth_begin() - keep resizes away from a write up to @end that may make the node longer
 * Returns: whether bdrv_growth_end() is due. Tracked requests do not need it: resizes are among them.
 */
static inline bool coroutine_fn bdrv_growth_begin(BlockDriverState *bs, int64_t end)
{
    if (G_LIKELY(end <= atomic_load_explicit(&bs->length, memory_order_relaxed)) || bdrv_must_track(bs)) {
        return false;
    }
    co_rwlock_rdlock(&bdrv_io(bs)->length_lock);
    return true;
}

static inline void coroutine_fn bdrv_growth_end(BlockDriverState *bs)
{
    co_rwlock_unlock(&bdrv_io(bs)->length_lock);
}

/** bdrv_note_write() - something was written (or may have been): the next flush has work to do */
static inline void bdrv_note_write(BlockDriverState *bs)
{
    BdrvIoState *io = bdrv_io(bs);

    if (atomic_load(&io->write_gen) <= atomic_load(&io->captured_gen)) {
        atomic_fetch_add(&io->write_gen, 1);
    }
}

/** bdrv_grow_length() - the node is at least @length long now */
static inline void bdrv_grow_length(BlockDriverState *bs, int64_t length)
{
    int64_t old = atomic_load_explicit(&bs->length, memory_order_relaxed);

    while (old < length) {
        if (atomic_compare_exchange_weak(&bs->length, &old, length)) {
            bdrv_length_changed(bs);
            break;
        }
    }
}

/* ---- zero.c ---- */

/** bdrv_zeroes_detected() - the node turns this write into a write of zeroes (detect-zeroes) */
bool bdrv_zeroes_detected(const BlockDriverState *bs, int64_t bytes, const BdrvIov *iov, size_t iov_offset,
                          BdrvRequestFlags flags);

/* ---- guard.c ---- */

/** bdrv_guard_wanted() - the format that was guessed is raw */
bool bdrv_guard_wanted(const BlockDriverState *bs);

/* A change behind the window matters too if it makes a shorter node grow. */
static inline bool bdrv_guard_applies(BlockDriverState *bs, int64_t offset)
{
    return G_UNLIKELY(bdrv_node(bs)->probed) &&
           (offset < BDRV_PROBE_WINDOW || atomic_load(&bs->length) < BDRV_PROBE_WINDOW) &&
           bdrv_guard_wanted(bs);
}

/*
 * bdrv_guard_begin() - check what the first bytes will be; on success the guard is held until the end
 * @iov: what is written at @offset, NULL: zeroes
 * Returns: 0; -EPERM if another format than raw would be recognised afterwards.
 */
int coroutine_fn bdrv_guard_begin(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                  size_t iov_offset);
/** bdrv_guard_begin_resize() - the same for a node that becomes @length long */
int coroutine_fn bdrv_guard_begin_resize(BlockDriverState *bs, int64_t length);
void coroutine_fn bdrv_guard_end(BlockDriverState *bs);

/* ---- align.c ---- */

/* A request widened to the node's alignment: [head bytes][the caller's elements][tail bytes], gathered. */
typedef struct BdrvPadded {
    int64_t offset, bytes; /* aligned */
    int64_t head, tail;    /* bytes in front and behind that are not the caller's */
    uint8_t *buf;          /* blocks that hold head and tail */
    uint8_t *tail_block;   /* the last block in @buf; the first one is at its start */
    struct iovec *vec;     /* @small_vec, or allocated */
    struct iovec small_vec[18];
    BdrvIov iov;
} BdrvPadded;

int bdrv_pad(BlockDriverState *bs, BdrvPadded *padded, int64_t offset, int64_t bytes, const BdrvIov *iov,
             size_t iov_offset);
int coroutine_fn bdrv_pad_read_edges(BlockDriverState *bs, BdrvPadded *padded);
void bdrv_unpad(BdrvPadded *padded);

/* ---- split.c: aligned requests, any size, any memory ---- */

/** bdrv_fits() - the driver can take this aligned request as it is */
static inline bool bdrv_fits(const BlockDriverState *bs, int64_t bytes, const BdrvIov *iov, size_t iov_offset)
{
    const BdrvLimits *limits = &bs->limits;

    return (!limits->max_transfer || bytes <= limits->max_transfer) &&
           (!limits->max_iov || iov->count <= limits->max_iov) &&
           (limits->mem_alignment <= 1 || bs->drv->children ||
            bdrv_iov_is_aligned(iov, iov_offset, bytes, limits->mem_alignment));
}

int coroutine_fn bdrv_read_aligned(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                   size_t iov_offset, BdrvRequestFlags flags);
/* @flags: only what the driver supports */
int coroutine_fn bdrv_write_aligned(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                    size_t iov_offset, BdrvRequestFlags flags);

/* ---- read.c, write.c, zero.c, flush.c, status.c, resize.c: the public calls without an edge's checks ----
 */

int coroutine_fn bdrv_read_node(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                size_t iov_offset, BdrvRequestFlags flags);
int coroutine_fn bdrv_write_node(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                 size_t iov_offset, BdrvRequestFlags flags);
/* Writes zeroes from a buffer; FUA is honoured. */
int coroutine_fn bdrv_write_zero_buffer(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        BdrvRequestFlags flags);
int coroutine_fn bdrv_status_node(BlockDriverState *bs, int64_t offset, int64_t bytes, BlockExtent *extent);

/* ---- driver_call.c: a callback of the table, or what an empty one means ---- */

int coroutine_fn bdrv_driver_read_default(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          const BdrvIov *iov, size_t iov_offset, BdrvRequestFlags flags);
int coroutine_fn bdrv_driver_write_default(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           const BdrvIov *iov, size_t iov_offset, BdrvRequestFlags flags);
int coroutine_fn bdrv_driver_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          BdrvRequestFlags flags);
int coroutine_fn bdrv_driver_discard(BlockDriverState *bs, int64_t offset, int64_t bytes);
int coroutine_fn bdrv_driver_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          BlockExtent *extent);

static inline int coroutine_fn bdrv_driver_read(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                const BdrvIov *iov, size_t iov_offset, BdrvRequestFlags flags)
{
    if (G_LIKELY(bs->drv->bdrv_co_readv)) {
        return bs->drv->bdrv_co_readv(bs, offset, bytes, iov, iov_offset, flags);
    }
    return bdrv_driver_read_default(bs, offset, bytes, iov, iov_offset, flags);
}

static inline int coroutine_fn bdrv_driver_write(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                 const BdrvIov *iov, size_t iov_offset,
                                                 BdrvRequestFlags flags)
{
    if (G_LIKELY(bs->drv->bdrv_co_writev && !(flags & BDRV_REQ_COMPRESSED))) {
        return bs->drv->bdrv_co_writev(bs, offset, bytes, iov, iov_offset, flags);
    }
    return bdrv_driver_write_default(bs, offset, bytes, iov, iov_offset, flags);
}

/* ---- events (event.c) ---- */

/** bdrv_event() - tell the driver of @bs alone */
static inline void coroutine_fn bdrv_event(BlockDriverState *bs, BdrvDebugEvent event)
{
    if (G_UNLIKELY(bs->drv->bdrv_debug_event)) {
        bs->drv->bdrv_debug_event(bs, event);
    }
}

#endif
