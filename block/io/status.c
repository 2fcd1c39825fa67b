/* SPDX-License-Identifier: MIT */

/*
 * Block status: how a range is stored, in one layer or down a backing chain.
 *
 * An extent is what the driver answers, not merged with its neighbours: drivers answer the longest
 * extent they know cheaply, and asking on only to find a difference would cost every second question.
 */

#include "block/io/request.h"

int coroutine_fn bdrv_status_node(BlockDriverState *bs, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    int64_t align = bdrv_alignment(bs), length = atomic_load(&bs->length);
    int64_t start = bdrv_round_down(offset, align), skip = offset - start;
    BlockExtent found = { .host_offset = -1 };
    int ret;

    if (offset < 0 || bytes <= 0 || offset >= length || bytes > length - offset) {
        return -EINVAL;
    }
    ret = bdrv_driver_block_status(bs, start, bdrv_round_up(offset + bytes, align) - start, &found);
    if (ret < 0) {
        return ret;
    }
    if (found.bytes <= skip) {
        return -EIO; /* the driver made no progress */
    }
    found.bytes = MIN(found.bytes - skip, bytes);
    if (found.host_offset >= 0) {
        found.host_offset += skip;
    } else {
        found.file = NULL;
    }
    found.at_eof = offset + found.bytes == length;
    found.present = found.kind != EXTENT_BACKING;
    *extent = found;
    return 0;
}

int coroutine_fn bdrv_co_block_status(BdrvChild *child, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    return bdrv_status_node(child->bs, offset, bytes, extent);
}

/* The node under filters that show their child as it is and say nothing of their own. */
static BlockDriverState *skip_filters(BlockDriverState *bs)
{
    while (bs->drv->is_filter && !bs->drv->bdrv_co_block_status && bs->file) {
        bs = bs->file->bs;
    }
    return bs;
}

/* The backing file of what a filter shows is its own. */
static BdrvChild *backing_of(BlockDriverState *bs)
{
    while (!bs->backing && bs->drv->is_filter && bs->file) {
        bs = bs->file->bs;
    }
    return bs->backing;
}

/* Space that was reserved and not written reads as zeroes: only the file tells. In whole blocks of @bs. */
static int coroutine_fn look_for_hole(BlockDriverState *bs, BlockExtent *found)
{
    int64_t align = bdrv_alignment(bs), there = atomic_load(&found->file->length) - found->host_offset;
    BlockExtent below = { .kind = EXTENT_ZERO, .bytes = found->bytes }; /* past its end */

    if (there > 0) {
        int ret = bdrv_status_node(found->file, found->host_offset, MIN(found->bytes, there), &below);
        if (ret < 0) {
            return ret;
        }
    }
    int64_t whole = bdrv_round_down(below.bytes, align);
    found->hole = below.kind == EXTENT_ZERO && whole > 0;
    found->bytes = MIN(found->bytes, found->hole ? whole : bdrv_round_up(below.bytes, align));
    return 0;
}

int coroutine_fn bdrv_co_block_status_above(BdrvChild *child, int64_t offset, int64_t bytes,
                                            BlockExtent *extent)
{
    BlockDriverState *bs = skip_filters(child->bs);
    int64_t top_length = atomic_load(&bs->length);
    BlockExtent found = { .bytes = bytes };
    unsigned depth = 0;
    int ret;

    for (;;) {
        ret = bdrv_status_node(bs, offset, found.bytes, &found);
        if (ret < 0) {
            return ret;
        }
        depth += found.depth; /* a filter that asked down its own chain */
        if (found.kind != EXTENT_BACKING) {
            break;
        }
        /* Unless something lies below: zeroes, and where they would lie if the node has space for them. */
        found.kind = EXTENT_ZERO;
        BdrvChild *backing = backing_of(bs);
        if (!backing) {
            break;
        }
        bs = skip_filters(backing->bs);
        int64_t length = atomic_load(&bs->length);
        if (offset >= length) {
            break; /* the backing file is shorter: nothing of it shows */
        }
        found.bytes = MIN(found.bytes, length - offset);
        depth++;
    }
    if (found.kind == EXTENT_DATA && found.ask_file && found.host_offset >= 0) {
        ret = look_for_hole(bs, &found);
        if (ret < 0) {
            return ret;
        }
    }
    found.depth = depth;
    found.at_eof = offset + found.bytes == top_length;
    *extent = found;
    return 0;
}

int64_t coroutine_fn bdrv_co_measure_data(BdrvChild *child, int64_t granularity)
{
    int64_t length = bdrv_co_getlength(child), counted_to = 0, pieces = 0;

    for (int64_t offset = 0; offset < length;) {
        BlockExtent extent;
        int ret = bdrv_co_block_status_above(child, offset, length - offset, &extent);

        if (ret < 0) {
            return ret;
        }
        if (extent.kind == EXTENT_DATA && !extent.hole) {
            int64_t first = MAX(offset / granularity, counted_to);

            counted_to = (offset + extent.bytes - 1) / granularity + 1;
            pieces += MAX(counted_to - first, 0);
        }
        offset += extent.bytes;
    }
    return length < 0 ? length : pieces * granularity;
}
