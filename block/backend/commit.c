/* SPDX-License-Identifier: MIT */
/*
 * Commit: what an image and the layers between have is written into a layer below them. The layers above are opened
 * without it, so it can be opened for writing by itself, with its own locks.
 */
#include "block/backend/backend_int.h"
#include "block/io/operation.h"

#include <errno.h>

#define CHUNK_BYTES (2 << 20)

typedef struct Commit {
    BlockBackend *top, *base;
    const BlkCommitOptions *options;
    int layers;      /* of @top */
    int64_t length;  /* of @top */
    uint8_t *buffer;
    int64_t begun_us; /* since when the rate limit holds */
    BlkMoved moved;
} Commit;

/* Room for all of @top; what is new reads as zeroes. */
static bool make_room(const Commit *c, GError **errp)
{
    return c->options->dry_run || c->length <= blk_length(c->base) ||
           blk_truncate(c->base, c->length, false, BDRV_PREALLOC_OFF, 0, errp);
}

static void respect_rate(const Commit *c)
{
    int64_t limit = c->options->rate_limit;
    if (limit > 0) {
        int64_t due_us = (int64_t)((double)c->moved.data / (double)limit * G_USEC_PER_SEC);
        int64_t wait_us = c->begun_us + due_us - g_get_monotonic_time();
        if (wait_us > 0) {
            g_usleep((gulong)wait_us);
        }
    }
}

static bool copy(Commit *c, int64_t offset, int64_t bytes, GError **errp)
{
    c->moved.data += bytes;
    if (c->options->dry_run) {
        return true;
    }
    int ret = blk_pread(c->top, offset, bytes, c->buffer, 0);
    if (ret < 0) {
        return blk_fail_at(ret, "reading", c->top, offset, errp);
    }
    ret = blk_pwrite(c->base, offset, bytes, c->buffer, 0);
    respect_rate(c);
    return ret >= 0 || blk_fail_at(ret, "writing", c->base, offset, errp);
}

/* What no layer has shows the base; but where a layer is too short it shows nothing. */
static bool shows_base(const Commit *c, const BlockExtent *extent)
{
    return extent->kind != EXTENT_DATA && !extent->present && (int)extent->depth + 1 == c->layers;
}

static bool commit_extent(Commit *c, int64_t offset, const BlockExtent *extent, GError **errp)
{
    if (shows_base(c, extent)) {
        return true;
    }
    if (extent->kind == EXTENT_DATA) {
        return copy(c, offset, extent->bytes, errp);
    }
    c->moved.zeroes += extent->bytes;
    int ret = c->options->dry_run
                  ? 0 : blk_pwrite_zeroes(c->base, offset, extent->bytes, BDRV_REQ_MAY_UNMAP);
    return ret >= 0 || blk_fail_at(ret, "writing zeroes to", c->base, offset, errp);
}

static bool commit_all(Commit *c, GError **errp)
{
    for (int64_t offset = 0; offset < c->length;) {
        BlockExtent extent;
        int ret = blk_block_status_above(c->top, offset, c->length - offset, &extent);
        if (ret < 0) {
            return blk_fail_at(ret, "getting the status of", c->top, offset, errp);
        }
        if (extent.kind == EXTENT_DATA) {
            extent.bytes = MIN(extent.bytes, CHUNK_BYTES);
        }
        if (!commit_extent(c, offset, &extent, errp)) {
            return false;
        }
        offset += extent.bytes;
        if (!bdrv_goes_on(c->options->progress, c->options->opaque, offset, c->length, errp)) {
            return false;
        }
    }
    return true;
}

/* All is in the base, once it is flushed. */
static bool finish(const Commit *c, GError **errp)
{
    if (c->options->dry_run) {
        return true;
    }
    int ret = blk_flush(c->base);
    return ret >= 0 ? c->options->keep_top || blk_make_empty(c->top, errp)
                    : blk_fail_at(ret, "flushing", c->base, 0, errp);
}

bool blk_commit_sized(BlockBackend *top, BlockBackend *base, const BlkCommitOptions *given, size_t options_size,
                      GError **errp)
{
    BlkCommitOptions options;
    if (!bdrv_sized_in(&options, sizeof(options), given, options_size, "BlkCommitOptions", errp)) {
        return false;
    }
    Commit c = {
        .top = top,
        .base = base,
        .options = &options,
        .layers = blk_count_layers(top),
        .length = blk_length(top),
        .buffer = blk_blockalign(base, CHUNK_BYTES),
        .begun_us = g_get_monotonic_time(),
    };
    bool ok = c.buffer != NULL;
    if (!ok) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for a buffer of %d bytes", CHUNK_BYTES);
    }
    ok = ok && blk_has_run(MIN(c.layers, 0), errp) && make_room(&c, errp) && commit_all(&c, errp) &&
         finish(&c, errp);
    if (ok && options.moved) {
        *options.moved = c.moved;
    }
    bdrv_vfree(c.buffer);
    return ok;
}
