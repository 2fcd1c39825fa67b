/* SPDX-License-Identifier: MIT */
/*
 * Rebase: an image is to get another backing file and to read as before. What it shows of the old one, and would not
 * show of the new one, is written into the image, which has the old one meanwhile: a power loss leaves it reading as
 * before.
 */
#include "block/backend/backend_int.h"
#include "block/io/operation.h"

#include <errno.h>
#include <string.h>

#define CHUNK_BYTES (2 << 20)

typedef struct Rebase {
    BlockBackend *top, *to;
    int64_t length; /* of @top */
    int64_t piece;  /* bytes: so much is kept or not; a whole cluster, or subcluster */
    uint8_t *shown, *would_show;
    bool dry_run;
    BlkMoved moved;
} Rebase;

typedef enum PieceKind {
    PIECE_SHOWS, /* of the new backing file, too */
    PIECE_ZERO,  /* keep as zeroes */
    PIECE_DATA,  /* keep as it is */
} PieceKind;

/* Past the end of the new backing file, or without one, zeroes show. */
static bool read_both(Rebase *r, int64_t offset, int64_t bytes, GError **errp)
{
    int64_t there = r->to ? CLAMP(blk_length(r->to) - offset, 0, bytes) : 0;
    int ret = blk_pread(r->top, offset, bytes, r->shown, 0);
    if (ret < 0) {
        return blk_fail_at(ret, "reading", r->top, offset, errp);
    }
    ret = there > 0 ? blk_pread(r->to, offset, there, r->would_show, 0) : 0;
    memset(r->would_show + there, 0, (size_t)(bytes - there));
    return ret >= 0 || blk_fail_at(ret, "reading", r->to, offset, errp);
}

static bool is_in_top(const BlockExtent *extent)
{
    return extent->depth == 0 && (extent->kind == EXTENT_DATA || extent->present);
}

static PieceKind kind_of(const Rebase *r, int64_t at, int64_t bytes)
{
    if (memcmp(r->shown + at, r->would_show + at, (size_t)bytes) == 0) {
        return PIECE_SHOWS;
    }
    return bdrv_buffer_is_zero(r->shown + at, (size_t)bytes) ? PIECE_ZERO : PIECE_DATA;
}

/* Zeroes that show already may have been left out, so they are looked for. */
static int write_zeroes(Rebase *r, int64_t offset, int64_t bytes, const uint8_t *zeroes)
{
    BlockExtent extent;
    int ret = blk_pwrite_zeroes(r->top, offset, bytes, 0);
    ret = ret < 0 ? ret : blk_block_status_above(r->top, offset, bytes, &extent);
    if (ret >= 0 && (!is_in_top(&extent) || extent.bytes < bytes)) {
        ret = blk_pwrite(r->top, offset, bytes, zeroes, 0);
    }
    return ret;
}

static int keep(Rebase *r, PieceKind kind, int64_t offset, int64_t bytes, const uint8_t *shown)
{
    r->moved.zeroes += kind == PIECE_ZERO ? bytes : 0;
    r->moved.data += kind == PIECE_DATA ? bytes : 0;
    return r->dry_run || kind == PIECE_SHOWS ? 0
           : kind == PIECE_ZERO              ? write_zeroes(r, offset, bytes, shown)
                                             : blk_pwrite(r->top, offset, bytes, shown, 0);
}

/* Pieces of one kind that follow each other are kept by one write. */
static bool rebase_chunk(Rebase *r, int64_t offset, int64_t bytes, GError **errp)
{
    int64_t run;

    if (!read_both(r, offset, bytes, errp)) {
        return false;
    }
    for (int64_t at = 0; at < bytes; at += run) {
        run = MIN(r->piece - (offset + at) % r->piece, bytes - at);
        PieceKind kind = kind_of(r, at, run);
        while (at + run < bytes) {
            int64_t next = MIN(r->piece, bytes - at - run);
            if (kind_of(r, at + run, next) != kind) {
                break;
            }
            run += next;
        }
        int ret = keep(r, kind, offset + at, run, r->shown + at);
        if (ret < 0) {
            return blk_fail_at(ret, "writing", r->top, offset + at, errp);
        }
    }
    return true;
}

static bool rebase_all(Rebase *r, const BlkRebaseOptions *options, GError **errp)
{
    for (int64_t offset = 0; offset < r->length;) {
        BlockExtent extent;
        int ret = blk_block_status_above(r->top, offset, r->length - offset, &extent);
        if (ret < 0) {
            return blk_fail_at(ret, "getting the status of", r->top, offset, errp);
        }
        int64_t bytes = extent.bytes;
        if (!is_in_top(&extent)) {
            bytes = MIN(bytes, CHUNK_BYTES - offset % CHUNK_BYTES);
            if (!rebase_chunk(r, offset, bytes, errp)) {
                return false;
            }
        }
        offset += bytes;
        if (!bdrv_goes_on(options->progress, options->opaque, offset, r->length, errp)) {
            return false;
        }
    }
    int ret = r->dry_run ? 0 : blk_flush(r->top);
    return ret >= 0 || blk_fail_at(ret, "flushing", r->top, 0, errp);
}

static bool change_name(const Rebase *r, const BlkRebaseOptions *options, GError **errp)
{
    const BlockDriverState *bs = bdrv_skip_filters(blk_bs(r->top));

    return r->dry_run ? bdrv_supports(bs, bs->drv->bdrv_change_backing_file, "another backing file", errp)
                      : blk_change_backing_file(r->top, options->filename, options->format, errp);
}

bool blk_rebase_sized(BlockBackend *top, BlockBackend *to, const BlkRebaseOptions *given, size_t options_size,
                      GError **errp)
{
    BlkRebaseOptions options;
    BdrvInfo info = { 0 };
    if (!bdrv_sized_in(&options, sizeof(options), given, options_size, "BlkRebaseOptions", errp)) {
        return false;
    }
    int64_t piece = blk_get_info(top, &info) < 0 ? 0 : info.subcluster_size ? info.subcluster_size : info.cluster_size;
    Rebase r = {
        .top = top,
        .to = to,
        .length = blk_length(top),
        .piece = piece > 0 ? MIN(piece, CHUNK_BYTES) : CHUNK_BYTES,
        .shown = blk_blockalign(top, CHUNK_BYTES),
        .would_show = blk_blockalign(top, CHUNK_BYTES),
        .dry_run = options.dry_run,
    };
    bool ok = r.shown && r.would_show;
    if (!ok) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for two buffers of %d bytes", CHUNK_BYTES);
    }
    ok = ok && rebase_all(&r, &options, errp) && change_name(&r, &options, errp);
    if (ok && options.moved) {
        *options.moved = r.moved;
    }
    bdrv_vfree(r.shown);
    bdrv_vfree(r.would_show);
    return ok;
}
