/* SPDX-License-Identifier: MIT */
/*
 * Requests. Whoever finds a block free gets the block's range lock and looks again; writers of blocks that have a
 * place take no lock. Zeroing and discarding never free a place: counting stays simple for every program that reads
 * the file, and the host file gets its space back by holes.
 */
#include <errno.h>

#include "drivers/vdi/vdi.h"

int coroutine_fn vdi_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                              size_t iov_offset, BdrvRequestFlags flags)
{
    const VdiState *s = bs->opaque;
    int ret = s->blind ? -EIO : 0;

    while (ret >= 0 && bytes > 0) {
        VdiExtent extent = vdi_lookup(s, offset, bytes);

        if (extent.outside) {
            ret = -EIO;
        } else if (extent.host_offset < 0) {
            bdrv_iov_memset(iov, iov_offset, 0, (size_t)extent.bytes);
        } else {
            ret = bdrv_co_preadv(bs->file, extent.host_offset, extent.bytes, iov, iov_offset, 0);
        }
        offset += extent.bytes;
        bytes -= extent.bytes;
        iov_offset += (size_t)extent.bytes;
    }
    return ret;
}

/* The rest of the place may have anything in it: a crash leaves places that were written and never pointed at. */
static int coroutine_fn fill_place(BlockDriverState *bs, uint32_t index, int64_t inside, int64_t bytes,
                                   const BdrvIov *iov, size_t iov_offset)
{
    const VdiState *s = bs->opaque;
    int64_t host_offset = vdi_host_offset(&s->header, index);
    int ret = 0;

    if (bytes < s->header.block_size) {
        ret = bdrv_co_pwrite_zeroes(bs->file, host_offset, s->header.block_size, BDRV_REQ_MAY_UNMAP);
    }
    return ret < 0 ? ret : bdrv_co_pwritev(bs->file, host_offset + inside, bytes, iov, iov_offset, 0);
}

static int coroutine_fn write_new_locked(BlockDriverState *bs, uint32_t block, int64_t inside, int64_t bytes,
                                         const BdrvIov *iov, size_t iov_offset)
{
    VdiState *s = bs->opaque;
    int ret = vdi_settle_header(bs);
    int64_t index = ret < 0 ? ret : vdi_take_place(s);

    if (index < 0) {
        return (int)index;
    }
    bdrv_debug_event(bs, BDRV_EVENT_CLUSTER_ALLOC);
    ret = fill_place(bs, (uint32_t)index, inside, bytes, iov, iov_offset);
    if (ret < 0) {
        vdi_give_place(s, (uint32_t)index);
        return ret;
    }
    vdi_set_entry(s, block, (uint32_t)index);
    return 0;
}

/* Write a part of one block that had no place when it was looked up. */
static int coroutine_fn write_free_block(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                         size_t iov_offset)
{
    VdiState *s = bs->opaque;
    uint32_t block = (uint32_t)(offset / s->header.block_size);
    int64_t inside = offset % s->header.block_size;
    CoRange range;
    int ret;

    co_range_lock(&s->allocating, &range, block, (int64_t)block + 1, true);
    uint32_t entry = vdi_entry(s, block);
    if (entry >= VDI_ENTRY_ZERO) {
        ret = write_new_locked(bs, block, inside, bytes, iov, iov_offset);
        co_range_unlock(&s->allocating, &range);
        return ret;
    }
    co_range_unlock(&s->allocating, &range);
    return bdrv_co_pwritev(bs->file, vdi_host_offset(&s->header, entry) + inside, bytes, iov, iov_offset, 0);
}

int coroutine_fn vdi_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                               size_t iov_offset, BdrvRequestFlags flags)
{
    const VdiState *s = bs->opaque;
    int ret = s->blind ? -EIO : 0;

    while (ret >= 0 && bytes > 0) {
        VdiExtent extent = vdi_lookup(s, offset, bytes);

        if (extent.host_offset >= 0) {
            ret = bdrv_co_pwritev(bs->file, extent.host_offset, extent.bytes, iov, iov_offset, 0);
        } else {
            extent.bytes = MIN(bytes, s->header.block_size - offset % s->header.block_size);
            ret = write_free_block(bs, offset, extent.bytes, iov, iov_offset);
        }
        offset += extent.bytes;
        bytes -= extent.bytes;
        iov_offset += (size_t)extent.bytes;
    }
    return ret;
}

/* What has no place reads as zeroes already. */
int coroutine_fn vdi_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    const VdiState *s = bs->opaque;
    int ret = s->blind ? -EIO : 0;

    while (ret >= 0 && bytes > 0) {
        VdiExtent extent = vdi_lookup(s, offset, bytes);

        if (extent.host_offset >= 0) {
            ret = bdrv_co_pwrite_zeroes(bs->file, extent.host_offset, extent.bytes,
                                        flags & (BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK));
        }
        offset += extent.bytes;
        bytes -= extent.bytes;
    }
    return ret;
}

int coroutine_fn vdi_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    const VdiState *s = bs->opaque;
    int ret = s->blind ? -EIO : 0;

    while (ret >= 0 && bytes > 0) {
        VdiExtent extent = vdi_lookup(s, offset, bytes);

        if (extent.host_offset >= 0) {
            ret = bdrv_co_pdiscard(bs->file, extent.host_offset, extent.bytes);
        }
        offset += extent.bytes;
        bytes -= extent.bytes;
    }
    return ret;
}

/* Of a fixed image only the file knows what was ever written. */
int coroutine_fn vdi_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    const VdiState *s = bs->opaque;
    VdiExtent found;

    if (s->blind) {
        return -EIO;
    }
    found = vdi_lookup(s, offset, bytes);
    if (found.host_offset < 0) {
        *extent = (BlockExtent){ .kind = EXTENT_ZERO, .bytes = found.bytes, .host_offset = -1 };
    } else if (found.outside) {
        *extent = (BlockExtent){ .kind = EXTENT_DATA, .allocated = true, .bytes = found.bytes, .host_offset = -1 };
    } else {
        *extent = (BlockExtent){
            .kind = EXTENT_DATA, .allocated = true, .ask_file = s->header.type == VDI_TYPE_FIXED, .bytes = found.bytes,
            .host_offset = found.host_offset, .file = bs->file->bs,
        };
    }
    return 0;
}
