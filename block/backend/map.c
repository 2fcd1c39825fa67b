/* SPDX-License-Identifier: MIT */
/* How a range is stored, as a list. */
#include "block/backend/backend_int.h"

#include <errno.h>

/* Whether @b, which lies right behind @a, goes on as @a does. */
static bool continues(const BlockExtent *a, const BlockExtent *b)
{
    return a->kind == b->kind && a->allocated == b->allocated && a->compressed == b->compressed && a->hole == b->hole &&
           a->depth == b->depth && a->present == b->present && a->file == b->file &&
           (a->host_offset < 0 ? b->host_offset < 0 : b->host_offset == a->host_offset + a->bytes);
}

int blk_map(BlockBackend *blk, int64_t offset, int64_t bytes, bool chain, BlkMapFunc *func, void *opaque)
{
    int64_t start = offset, end;
    BlockExtent told = { 0 }, extent;
    int ret = 0;

    if (bytes < 0 || offset < 0 || offset > blk_length(blk) || bytes > blk_length(blk) - offset) {
        return -EIO;
    }
    for (end = offset + bytes; offset < end; offset += extent.bytes) {
        ret = chain ? blk_block_status_above(blk, offset, end - offset, &extent)
                    : blk_block_status(blk, offset, end - offset, &extent);
        if (ret < 0) {
            return ret;
        }
        if (told.bytes && continues(&told, &extent)) {
            told.bytes += extent.bytes;
            told.at_eof = extent.at_eof;
            continue;
        }
        if (told.bytes && !func(opaque, start, &told)) {
            return 0;
        }
        start = offset;
        told = extent;
    }
    if (told.bytes) {
        func(opaque, start, &told);
    }
    return 0;
}
