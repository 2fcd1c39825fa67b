/* SPDX-License-Identifier: MIT */

/*
 * Copy between nodes. If both ends lead to drivers that can copy without passing memory (one file
 * system, copy_file_range), they do; otherwise the bytes go through a bounded buffer.
 */

#include "block/io/request.h"

/*
 * The node and offset where filters find the bytes: plain filters show their child 1:1, others tell
 * by block status. *@bytes shrinks to what lies in one place.
 */
static BlockDriverState *coroutine_fn resolve_source(BlockDriverState *bs, int64_t *offset, int64_t *bytes)
{
    while (bs->drv->is_filter && bs->file) {
        if (bs->drv->bdrv_debug_event) {
            return NULL; /* who provokes faults must see the reads */
        }
        if (bs->drv->bdrv_co_block_status) {
            BlockExtent extent;

            if (bdrv_status_node(bs, *offset, *bytes, &extent) < 0 || extent.kind != EXTENT_DATA ||
                extent.host_offset < 0 || extent.compressed) {
                return NULL;
            }
            *offset = extent.host_offset;
            *bytes = extent.bytes;
            bs = extent.file;
        } else {
            bs = bs->file->bs;
        }
    }
    return bs;
}

/* One piece by the driver of @dst. @done: how much was copied. */
static int coroutine_fn offload(BlockDriverState *src, int64_t src_offset, BlockDriverState *dst,
                                int64_t dst_offset, int64_t bytes, BdrvRequestFlags flags, int64_t *done)
{
    BdrvRequestFlags driver_flags = flags & dst->supported_write_flags & BDRV_REQ_FUA;
    BdrvTrackedRequest request;
    bool tracked, grows;
    int ret;

    src = resolve_source(src, &src_offset, &bytes);
    if (!src || !bdrv_is_aligned(dst, dst_offset, bytes) || !bdrv_is_aligned(src, src_offset, bytes) ||
        src_offset + bytes > atomic_load(&src->length)) {
        return -ENOTSUP;
    }
    tracked = bdrv_must_track(dst);
    if (tracked) {
        bdrv_tracked_begin(dst, &request, dst_offset, dst_offset + bytes, false);
    }
    grows = bdrv_growth_begin(dst, dst_offset + bytes);
    ret = dst->drv->bdrv_co_copy_range(dst, src, src_offset, dst_offset, bytes, driver_flags);
    bdrv_note_write(dst);
    if (ret >= 0) {
        bdrv_grow_length(dst, dst_offset + bytes);
        *done = bytes;
    }
    if (grows) {
        bdrv_growth_end(dst);
    }
    if (tracked) {
        bdrv_tracked_end(dst, &request);
    }
    return ret >= 0 && (flags & ~driver_flags & BDRV_REQ_FUA) ? bdrv_flush_node(dst) : ret;
}

static int coroutine_fn copy_by_buffer(BlockDriverState *src, int64_t src_offset, BdrvChild *dst,
                                       int64_t dst_offset, int64_t bytes, BdrvRequestFlags flags)
{
    int64_t size = MIN(bytes, BDRV_BOUNCE_MAX);
    uint8_t *buf = bdrv_try_blockalign(dst->bs, size);
    int ret = buf ? 0 : -ENOMEM;

    for (int64_t done = 0, n; done < bytes && ret >= 0; done += n) {
        struct iovec vec;

        n = MIN(bytes - done, size);
        BdrvIov iov = BDRV_IOV_BUF(vec, buf, n);
        ret = bdrv_read_node(src, src_offset + done, n, &iov, 0, 0);
        if (ret >= 0) {
            ret = bdrv_co_pwritev(dst, dst_offset + done, n, &iov, 0, flags);
        }
    }
    bdrv_vfree(buf);
    return ret;
}

int coroutine_fn bdrv_co_copy_range_from(BlockDriverState *src, int64_t src_offset, BdrvChild *dst,
                                         int64_t dst_offset, int64_t bytes, BdrvRequestFlags flags)
{
    BlockDriverState *to = dst->bs;
    int ret = bdrv_check_range(src_offset, bytes, NULL, 0);

    ret = ret < 0 ? ret : bdrv_check_range(dst_offset, bytes, NULL, 0);
    ret = ret < 0 ? ret : bdrv_check_write(dst, dst_offset, bytes, flags);
    if (ret < 0 || bytes == 0) {
        return ret;
    }
    if (src == to && src_offset < dst_offset + bytes && dst_offset < src_offset + bytes) {
        return -EINVAL;
    }
    if (to->drv->is_filter && !to->drv->bdrv_co_copy_range && to->file &&
        !bdrv_guard_applies(to, dst_offset)) {
        ret = bdrv_co_copy_range_from(src, src_offset, to->file, dst_offset, bytes, flags);
        bdrv_note_write(to);
        if (ret >= 0) {
            bdrv_grow_length(to, dst_offset + bytes);
        }
        return ret;
    }
    while (bytes > 0 && to->drv->bdrv_co_copy_range && !bdrv_guard_applies(to, dst_offset) &&
           !(flags & BDRV_REQ_SERIALISING)) {
        int64_t done;

        ret = offload(src, src_offset, to, dst_offset, bytes, flags, &done);
        if (ret == -ENOTSUP) {
            break;
        }
        if (ret < 0) {
            return ret;
        }
        src_offset += done;
        dst_offset += done;
        bytes -= done;
    }
    return bytes > 0 ? copy_by_buffer(src, src_offset, dst, dst_offset, bytes, flags) : 0;
}

int coroutine_fn bdrv_co_copy_range(BdrvChild *src, int64_t src_offset, BdrvChild *dst, int64_t dst_offset,
                                    int64_t bytes, BdrvRequestFlags flags)
{
    return bdrv_co_copy_range_from(src->bs, src_offset, dst, dst_offset, bytes, flags);
}
