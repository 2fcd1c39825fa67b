/* SPDX-License-Identifier: MIT */

/*
 * blklogwrites: a filter that notes each change of the disk in a log, in the dm-log-writes format. See
 * README.md.
 *
 *     driver=blklogwrites,file.filename=disk.qcow2,log.filename=disk.log
 *
 * A request changes the disk first and is logged when that is complete, so the log has the order of
 * completion. Changes that overlap are made one after the other: replaying the log gives what is on disk.
 */

#include "log.h"

#include <errno.h>

#define DEFAULT_SECTOR_SIZE 512
#define DEFAULT_SUPER_INTERVAL 4096

typedef struct BlkLogWritesState {
    WriteLog log;
    bool append;
    CoRangeLock ranges; /* a change is alone on its bytes from its start until it is logged */
} BlkLogWritesState;

static const BdrvChildSpec blklogwrites_children[] = {
    { .name = "file", .role = BDRV_CHILD_FILTERED },
    { .name = "log", .role = BDRV_CHILD_DATA },
    { .name = NULL },
};

static const BdrvOptionSpec blklogwrites_options[] = {
    { .name = "log-sector-size",
      .type = BDRV_OPTION_SIZE,
      .help = "Unit of the log and of requests",
      .default_text = "512" },
    { .name = "log-append", .type = BDRV_OPTION_BOOL, .help = "Go on with an existing log", .default_text = "off" },
    { .name = "log-super-update-interval",
      .type = BDRV_OPTION_INT,
      .help = "Entries after which the super block of the log is updated",
      .default_text = "4096" },
    { .name = NULL },
};

static bool coroutine_fn blklogwrites_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                           GError **errp)
{
    BlkLogWritesState *s = bs->opaque;
    bool append = bdrv_options_get_bool(options, "log-append", false);
    int64_t sector_size = bdrv_options_get_int(options, "log-sector-size", DEFAULT_SECTOR_SIZE);
    int64_t interval = bdrv_options_get_int(options, "log-super-update-interval", DEFAULT_SUPER_INTERVAL);

    if (append && bdrv_options_has(options, "log-sector-size")) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "log-append and log-sector-size are mutually exclusive: the log has its sector size");
        return false;
    }
    if (!bdrv_log_check_sector_size(sector_size, errp)) {
        return false;
    }
    if (interval <= 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "Invalid log superblock update interval %" G_GINT64_FORMAT ": must be 1 or more", interval);
        return false;
    }
    if (!write_log_open(&s->log, bdrv_find_child(bs, "log"), append, (uint32_t)sector_size, interval, errp)) {
        return false;
    }
    s->append = append;
    co_range_lock_init(&s->ranges);
    bs->supported_write_flags = BDRV_REQ_FUA | BDRV_REQ_UNCHANGED;
    bs->supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK | BDRV_REQ_UNCHANGED;
    return true;
}

static int coroutine_fn blklogwrites_close(BlockDriverState *bs)
{
    BlkLogWritesState *s = bs->opaque;
    int ret = write_log_finish(&s->log);

    co_range_lock_destroy(&s->ranges);
    write_log_destroy(&s->log);
    return ret;
}

/* What the options say of the log cannot change; flags are the children's. */
static bool coroutine_fn blklogwrites_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options,
                                                     BdrvOpenFlags flags, void **state, GError **errp)
{
    BlkLogWritesState *s = bs->opaque;
    int64_t sector_size = bdrv_options_get_int(options, "log-sector-size", s->log.sector_size);
    int64_t interval = bdrv_options_get_int(options, "log-super-update-interval", DEFAULT_SUPER_INTERVAL);

    bool append = bdrv_options_get_bool(options, "log-append", false);
    int ret = 0;

    if (sector_size != s->log.sector_size || (uint64_t)interval != s->log.super_interval || append != s->append) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "options of the log cannot be changed by reopening; close it and open it");
        return false;
    }
    if (!(flags & BDRV_O_RDWR)) { /* the last chance: the log becomes read-only too */
        ret = write_log_finish(&s->log);
    }
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "Could not update the super block of the log: %s", g_strerror(-ret));
    }
    return ret >= 0;
}

static void blklogwrites_refresh_limits(BlockDriverState *bs)
{
    const BlkLogWritesState *s = bs->opaque;

    bs->limits.request_alignment = MAX(bs->limits.request_alignment, s->log.sector_size);
}

/* ---- requests ---- */

/* @ret: how changing the disk went. A change that failed is not logged: who replays finds the old data. */
static int coroutine_fn finish_change(BlkLogWritesState *s, CoRange *range, int ret, const WriteLogItem *item)
{
    if (ret >= 0) {
        ret = write_log_add(&s->log, item);
    }
    co_range_unlock(&s->ranges, range);
    return ret;
}

static unsigned fua_flag(BdrvRequestFlags flags)
{
    return flags & BDRV_REQ_FUA ? BDRV_LOG_FUA : 0;
}

static int coroutine_fn blklogwrites_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                               const BdrvIov *iov, size_t iov_offset, BdrvRequestFlags flags)
{
    BlkLogWritesState *s = bs->opaque;
    const WriteLogItem item = {
        .flags = fua_flag(flags), .offset = offset, .bytes = bytes, .iov = iov, .iov_offset = iov_offset
    };
    CoRange range;

    co_range_lock(&s->ranges, &range, offset, offset + bytes, true);
    return finish_change(s, &range, bdrv_co_pwritev(bs->file, offset, bytes, iov, iov_offset, flags), &item);
}

static int coroutine_fn blklogwrites_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                     BdrvRequestFlags flags)
{
    BlkLogWritesState *s = bs->opaque;
    const WriteLogItem item = { .flags = fua_flag(flags), .offset = offset, .bytes = bytes };
    CoRange range;

    co_range_lock(&s->ranges, &range, offset, offset + bytes, true);
    return finish_change(s, &range, bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags), &item);
}

static int coroutine_fn blklogwrites_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BlkLogWritesState *s = bs->opaque;
    const WriteLogItem item = { .flags = BDRV_LOG_DISCARD, .offset = offset, .bytes = bytes };
    CoRange range;

    co_range_lock(&s->ranges, &range, offset, offset + bytes, true);
    return finish_change(s, &range, bdrv_co_pdiscard(bs->file, offset, bytes), &item);
}

/* Copying past the log would leave it out: the core copies by a buffer. */
static int coroutine_fn blklogwrites_co_copy_range(BlockDriverState *bs, BlockDriverState *src, int64_t src_offset,
                                                   int64_t dst_offset, int64_t bytes, BdrvRequestFlags flags)
{
    return -ENOTSUP;
}

static int coroutine_fn blklogwrites_co_flush_to_disk(BlockDriverState *bs)
{
    BlkLogWritesState *s = bs->opaque;

    write_log_begin_flush(&s->log);
    return write_log_end_flush(&s->log, bdrv_co_flush(bs->file));
}

/* The format cannot tell of a length. What is cut off must not come back when the disk grows again. */
static bool coroutine_fn blklogwrites_truncate(BlockDriverState *bs, int64_t length, bool exact,
                                               BdrvPrealloc prealloc, BdrvRequestFlags flags, GError **errp)
{
    BlkLogWritesState *s = bs->opaque;
    int64_t unit = s->log.sector_size, old = bdrv_co_getlength(bs->file);
    int64_t first = (length + unit - 1) / unit * unit, end = (old + unit - 1) / unit * unit;
    const WriteLogItem cut = { .flags = BDRV_LOG_DISCARD, .offset = first, .bytes = end - first };
    CoRange range;
    int ret = 0;

    co_range_lock(&s->ranges, &range, MIN(first, end), INT64_MAX, true);
    if (!bdrv_co_truncate(bs->file, length, exact, prealloc, flags, errp)) {
        co_range_unlock(&s->ranges, &range);
        return false;
    }
    if (first < end) {
        ret = write_log_add(&s->log, &cut);
    }
    co_range_unlock(&s->ranges, &range);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "The disk was resized, but the log could not be written: %s",
                    g_strerror(-ret));
    }
    return ret >= 0;
}

static const BlockDriver bdrv_blklogwrites = {
    .format_name = "blklogwrites",
    .instance_size = sizeof(BlkLogWritesState),
    .is_filter = true,
    .children = blklogwrites_children,
    .open_options = blklogwrites_options,

    .bdrv_open = blklogwrites_open,
    .bdrv_close = blklogwrites_close,
    .bdrv_reopen_prepare = blklogwrites_reopen_prepare,
    .bdrv_refresh_limits = blklogwrites_refresh_limits,

    .bdrv_co_writev = blklogwrites_co_writev,
    .bdrv_co_write_zeroes = blklogwrites_co_write_zeroes,
    .bdrv_co_discard = blklogwrites_co_discard,
    .bdrv_co_copy_range = blklogwrites_co_copy_range,
    .bdrv_co_flush_to_disk = blklogwrites_co_flush_to_disk,
    .bdrv_truncate = blklogwrites_truncate,
};

void bdrv_blklogwrites_init(void);
void bdrv_blklogwrites_init(void)
{
    bdrv_register(&bdrv_blklogwrites);
}
