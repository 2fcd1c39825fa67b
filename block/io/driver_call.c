/* SPDX-License-Identifier: MIT */

/* Callbacks of the driver table, and what an empty one means: a filter hands the call to its child. */

#include "block/io/request.h"

static BdrvChild *filtered(const BlockDriverState *bs)
{
    return bs->drv->is_filter ? bs->file : NULL;
}

int coroutine_fn bdrv_driver_read_default(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          const BdrvIov *iov, size_t iov_offset, BdrvRequestFlags flags)
{
    BdrvChild *child = filtered(bs);

    return child ? bdrv_co_preadv(child, offset, bytes, iov, iov_offset, flags) : -ENOTSUP;
}

int coroutine_fn bdrv_driver_write_default(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           const BdrvIov *iov, size_t iov_offset, BdrvRequestFlags flags)
{
    const BlockDriver *drv = bs->drv;
    BdrvChild *child = filtered(bs);

    if ((flags & BDRV_REQ_COMPRESSED) && !(bs->supported_write_flags & BDRV_REQ_COMPRESSED)) {
        if (drv->bdrv_write_compressed) {
            return drv->bdrv_write_compressed(bs, offset, bytes, iov, iov_offset);
        }
        if (drv->bdrv_co_writev) {
            return -ENOTSUP;
        }
    }
    if (drv->bdrv_co_writev) {
        return drv->bdrv_co_writev(bs, offset, bytes, iov, iov_offset, flags);
    }
    return child ? bdrv_co_pwritev(child, offset, bytes, iov, iov_offset, flags) : -ENOTSUP;
}

int coroutine_fn bdrv_driver_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          BdrvRequestFlags flags)
{
    BdrvChild *child = filtered(bs);

    if (bs->drv->bdrv_co_write_zeroes) {
        return bs->drv->bdrv_co_write_zeroes(bs, offset, bytes, flags);
    }
    return child ? bdrv_co_pwrite_zeroes(child, offset, bytes, flags) : -ENOTSUP;
}

int coroutine_fn bdrv_driver_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BdrvChild *child = filtered(bs);

    if (bs->drv->bdrv_co_discard) {
        return bs->drv->bdrv_co_discard(bs, offset, bytes);
    }
    return child ? bdrv_co_pdiscard(child, offset, bytes) : -ENOTSUP;
}

int coroutine_fn bdrv_driver_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          BlockExtent *extent)
{
    BdrvChild *child = filtered(bs);

    if (bs->drv->bdrv_co_block_status) {
        return bs->drv->bdrv_co_block_status(bs, offset, bytes, extent);
    }
    if (child) {
        int64_t inside = MIN(bytes, atomic_load(&child->bs->length) - offset);
        return inside > 0 ? bdrv_co_block_status(child, offset, inside, extent) : -EIO;
    }
    *extent = (BlockExtent){ .kind = EXTENT_DATA,
                             .allocated = true,
                             .bytes = bytes,
                             .host_offset = offset,
                             .file = bs->file ? bs->file->bs : bs };
    return 0;
}

int64_t coroutine_fn bdrv_co_get_allocated_file_size(BdrvChild *child)
{
    BlockDriverState *bs = child->bs;
    GPtrArray *children = bdrv_node(bs)->children;
    int64_t sum = 0;

    if (bs->drv->bdrv_get_allocated_file_size) {
        return bs->drv->bdrv_get_allocated_file_size(bs);
    }
    if (!bs->drv->children) {
        return -ENOTSUP;
    }
    for (unsigned i = 0; children && i < children->len; i++) {
        BdrvEdge *edge = g_ptr_array_index(children, i);

        if (edge->child.role != BDRV_CHILD_COW) {
            int64_t size = bdrv_co_get_allocated_file_size(&edge->child);
            if (size < 0) {
                return size;
            }
            sum += size;
        }
    }
    return sum;
}

BlockDriverState *bdrv_skip_filters(BlockDriverState *bs)
{
    while (filtered(bs)) {
        bs = bs->file->bs;
    }
    return bs;
}

bool bdrv_supports(const BlockDriverState *bs, bool callback, const char *what, GError **errp)
{
    if (!callback) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "Block driver '%s' does not support %s", bs->drv->format_name, what);
    }
    return callback;
}

int bdrv_get_info(BlockDriverState *bs, BdrvInfo *info)
{
    BdrvInfo found = { 0 };
    int ret;

    while (!bs->drv->bdrv_get_info && filtered(bs)) {
        bs = bs->file->bs;
    }
    if (!bs->drv->bdrv_get_info) {
        return -ENOTSUP;
    }
    ret = bs->drv->bdrv_get_info(bs, &found);
    if (ret >= 0) {
        *info = found;
    }
    return ret < 0 ? ret : 0;
}

BdrvOptions *bdrv_get_specific_info(BlockDriverState *bs)
{
    while (!bs->drv->bdrv_get_specific_info && filtered(bs)) {
        bs = bs->file->bs;
    }
    return bs->drv->bdrv_get_specific_info ? bs->drv->bdrv_get_specific_info(bs) : NULL;
}

bool bdrv_has_zero_init(BlockDriverState *bs)
{
    while (!bs->drv->bdrv_has_zero_init && filtered(bs)) {
        bs = bs->file->bs;
    }
    /* What shows a backing file does not read as zeroes when new. */
    return !bs->backing && bs->drv->bdrv_has_zero_init && bs->drv->bdrv_has_zero_init(bs);
}

int coroutine_fn bdrv_co_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix, GError **errp)
{
    int ret;

    while (!bs->drv->bdrv_check && filtered(bs)) {
        bs = bs->file->bs;
    }
    if (!bs->drv->bdrv_check) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "This image format (%s) does not support checks",
                    bs->drv->format_name);
        return -ENOTSUP;
    }
    if (fix && !(fix & BDRV_FIX_DRY_RUN) && bs->read_only) {
        g_set_error(errp, BDRV_ERROR, EROFS, "the image is read-only; open it read-write to repair it");
        return -EROFS;
    }
    ret = bs->drv->bdrv_check(bs, result, fix);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "%s", g_strerror(-ret));
        return ret;
    }
    return fix ? bdrv_co_refresh_length(bs) : 0;
}
