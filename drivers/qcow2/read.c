/* SPDX-License-Identifier: MIT */
/* Reads: map, then move. No lock is held over I/O; the epoch keeps the mapped clusters what they are. */

#include <errno.h>

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/compressed.h"
#include "drivers/qcow2/crypto.h"
#include "drivers/qcow2/fanout.h"
#include "drivers/qcow2/map.h"
#include "drivers/qcow2/meta/meta.h"

static int coroutine_fn read_backing(BlockDriverState *bs, uint64_t offset, uint64_t bytes, const BdrvIov *iov,
                                     size_t iov_offset)
{
    uint64_t inside = qcow2_backing_bytes(bs, offset, bytes);
    int ret = 0;

    if (inside) {
        bdrv_debug_event(bs, BDRV_EVENT_READ_BACKING_AIO);
        ret = bdrv_co_preadv(bs->backing, (int64_t)offset, (int64_t)inside, iov, iov_offset, 0);
    }
    if (ret >= 0 && inside < bytes) {
        bdrv_iov_memset(iov, iov_offset + inside, 0, bytes - inside);
    }
    return ret;
}

static int coroutine_fn read_extent(BlockDriverState *bs, uint64_t offset, const Qcow2Extent *extent,
                                    const BdrvIov *iov, size_t iov_offset)
{
    switch (extent->kind) {
    case QCOW2_CLUSTER_NORMAL:
        bdrv_debug_event(bs, BDRV_EVENT_READ_AIO);
        return qcow2_read_data(bs, offset, extent->host_offset, extent->bytes, iov, iov_offset);
    case QCOW2_CLUSTER_ZERO:
        bdrv_iov_memset(iov, iov_offset, 0, extent->bytes);
        return 0;
    case QCOW2_CLUSTER_COMPRESSED:
        bdrv_debug_event(bs, BDRV_EVENT_READ_COMPRESSED);
        return qcow2_read_compressed(bs, extent->l2_entry, offset & (qcow2_state(bs)->geometry.cluster_size - 1),
                                     extent->bytes, iov, iov_offset);
    default:
        return read_backing(bs, offset, extent->bytes, iov, iov_offset);
    }
}

/* What all parts of a read share. */
typedef struct ReadWork {
    BlockDriverState *bs;
    const BdrvIov *iov;
    uint64_t offset; /* guest; of the first byte in the buffer */
    size_t iov_offset;
} ReadWork;

/* One extent after the other: what looked like one extent to whoever made this a part may be several by now. */
static int coroutine_fn read_part(void *opaque, uint64_t offset, uint64_t bytes)
{
    const ReadWork *work = opaque;
    Qcow2Meta *meta = qcow2_state(work->bs)->meta;
    unsigned epoch = qcow2_epoch_enter(meta);
    int ret = 0;

    while (bytes > 0 && ret >= 0) {
        Qcow2Extent extent;
        ret = qcow2_map(work->bs, offset, bytes, QCOW2_MAP_PLAIN, &extent);
        if (ret >= 0) {
            ret = read_extent(work->bs, offset, &extent, work->iov, work->iov_offset + (offset - work->offset));
            offset += extent.bytes;
            bytes -= extent.bytes;
        }
    }
    qcow2_epoch_leave(meta, epoch);
    return ret < 0 ? ret : 0;
}

/* Several extents: side by side. The mapping tells where to cut; each part looks it up again, in its own epoch. */
static int coroutine_fn read_parts(ReadWork *work, uint64_t offset, uint64_t bytes)
{
    Qcow2Meta *meta = qcow2_state(work->bs)->meta;
    Qcow2Fanout fanout;
    int ret = 0;

    qcow2_fanout_init(&fanout, read_part, work);
    while (bytes > 0 && ret >= 0) {
        Qcow2Extent extent;
        unsigned epoch = qcow2_epoch_enter(meta);
        ret = qcow2_map(work->bs, offset, bytes, QCOW2_MAP_PLAIN, &extent);
        qcow2_epoch_leave(meta, epoch);
        if (ret < 0) {
            break;
        }
        if (extent.kind == QCOW2_CLUSTER_ZERO) {
            bdrv_iov_memset(work->iov, work->iov_offset + (offset - work->offset), 0, extent.bytes);
        } else if (extent.bytes < bytes) {
            ret = qcow2_fanout_start(&fanout, offset, extent.bytes);
        } else {
            ret = read_part(work, offset, bytes);
        }
        offset += extent.bytes;
        bytes -= extent.bytes;
    }
    int parts_ret = qcow2_fanout_finish(&fanout);
    return ret < 0 ? ret : parts_ret;
}

int coroutine_fn qcow2_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                size_t iov_offset, BdrvRequestFlags flags)
{
    Qcow2Meta *meta = qcow2_state(bs)->meta;
    ReadWork work = { .bs = bs, .iov = iov, .offset = (uint64_t)offset, .iov_offset = iov_offset };
    Qcow2Extent extent;

    if (G_UNLIKELY(!meta)) {
        return -EIO; /* opened for its header only */
    }
    unsigned epoch = qcow2_epoch_enter(meta);
    int ret = qcow2_map(bs, (uint64_t)offset, (uint64_t)bytes, QCOW2_MAP_PLAIN, &extent);
    bool whole = ret >= 0 && extent.bytes == (uint64_t)bytes;
    if (G_LIKELY(whole)) {
        ret = read_extent(bs, (uint64_t)offset, &extent, iov, iov_offset);
    }
    qcow2_epoch_leave(meta, epoch);
    if (G_UNLIKELY(ret >= 0 && !whole)) {
        ret = read_parts(&work, (uint64_t)offset, (uint64_t)bytes);
    }
    return ret < 0 ? ret : 0;
}
