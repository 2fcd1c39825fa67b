/* SPDX-License-Identifier: MIT */

/*
 * Adding to the log. One entry is written at a time, and the end moves when it is complete: an entry that
 * cannot be written (log full, I/O error) leaves no hole, and the next one takes its place.
 */

#include "log.h"

#include <errno.h>
#include <string.h>

void write_log_destroy(WriteLog *log)
{
    co_mutex_destroy(&log->lock);
}

static int coroutine_fn write_super_locked(WriteLog *log, uint64_t entries)
{
    const BdrvLogSuper super = { .magic = GUINT64_TO_LE(BDRV_LOG_MAGIC),
                                 .version = GUINT64_TO_LE(BDRV_LOG_VERSION),
                                 .nr_entries = GUINT64_TO_LE(entries),
                                 .sectorsize = GUINT32_TO_LE(log->sector_size) };
    uint8_t *sector = bdrv_try_blockalign(log->child->bs, log->sector_size);
    int ret;

    if (!sector) {
        return -ENOMEM;
    }
    memset(sector, 0, log->sector_size);
    memcpy(sector, &super, sizeof(super));
    ret = bdrv_co_pwrite(log->child, 0, log->sector_size, sector, 0);
    bdrv_vfree(sector);
    if (ret >= 0) {
        log->has_super = true;
        log->super_entries = entries;
    }
    return ret;
}

/* Until the first super block of this log is there, one of an older log would tell of entries that are not. */
static int coroutine_fn need_super_locked(WriteLog *log)
{
    return log->has_super ? 0 : write_super_locked(log, 0);
}

static int64_t data_bytes(const WriteLogItem *item)
{
    return item->flags & BDRV_LOG_DISCARD ? 0 : item->bytes;
}

/* The entry's sector and the data behind it in one write. */
static int coroutine_fn write_gathered_locked(WriteLog *log, const WriteLogItem *item, void *sector)
{
    unsigned count = bdrv_iov_count(item->iov, item->iov_offset, item->bytes);
    struct iovec *vec = g_try_new(struct iovec, count + 1);
    BdrvIov iov;
    size_t covered;
    int ret;

    if (!vec) {
        return -ENOMEM;
    }
    vec[0] = (struct iovec){ .iov_base = sector, .iov_len = log->sector_size };
    count = bdrv_iov_slice(item->iov, item->iov_offset, item->bytes, vec + 1, count, &covered);
    iov = bdrv_iov_init(vec, count + 1);
    ret = bdrv_co_pwritev(log->child, log->end, log->sector_size + item->bytes, &iov, 0, 0);
    g_free(vec);
    return ret;
}

static int coroutine_fn write_entry_locked(WriteLog *log, const WriteLogItem *item, void *sector)
{
    int ret;

    if (item->iov) {
        return write_gathered_locked(log, item, sector);
    }
    ret = bdrv_co_pwrite(log->child, log->end, log->sector_size, sector, 0);
    if (ret >= 0 && data_bytes(item) > 0) {
        ret = bdrv_co_pwrite_zeroes(log->child, log->end + log->sector_size, item->bytes, 0);
    }
    return ret;
}

static int coroutine_fn add_locked(WriteLog *log, const WriteLogItem *item)
{
    const BdrvLogEntry entry = { .sector = GUINT64_TO_LE(item->offset / log->sector_size),
                                 .nr_sectors = GUINT64_TO_LE(item->bytes / log->sector_size),
                                 .flags = GUINT64_TO_LE(item->flags) };
    uint8_t *sector;
    int ret = need_super_locked(log);

    if (ret < 0) {
        return ret;
    }
    sector = bdrv_try_blockalign(log->child->bs, log->sector_size);
    if (!sector) {
        return -ENOMEM;
    }
    memset(sector, 0, log->sector_size);
    memcpy(sector, &entry, sizeof(entry));
    ret = write_entry_locked(log, item, sector);
    bdrv_vfree(sector);
    if (ret < 0) {
        return ret;
    }
    log->end += log->sector_size + data_bytes(item);
    log->entries++;
    log->added = true;
    return 0;
}

int coroutine_fn write_log_add(WriteLog *log, const WriteLogItem *item)
{
    int ret;

    co_mutex_lock(&log->lock);
    ret = add_locked(log, item);
    if (ret >= 0 && log->entries % log->super_interval == 0) {
        ret = write_super_locked(log, log->entries);
    }
    co_mutex_unlock(&log->lock);
    return ret;
}

void coroutine_fn write_log_begin_flush(WriteLog *log)
{
    co_mutex_lock(&log->lock);
}

int coroutine_fn write_log_end_flush(WriteLog *log, int ret)
{
    if (ret >= 0 && log->added) {
        ret = add_locked(log, &(WriteLogItem){ .flags = BDRV_LOG_FLUSH });
        if (ret >= 0) {
            ret = write_super_locked(log, log->entries);
        }
        if (ret >= 0) {
            ret = bdrv_co_flush(log->child);
        }
    }
    co_mutex_unlock(&log->lock);
    return ret;
}

int coroutine_fn write_log_finish(WriteLog *log)
{
    int ret = 0;

    co_mutex_lock(&log->lock);
    if (log->super_entries != log->entries) {
        ret = write_super_locked(log, log->entries);
    }
    co_mutex_unlock(&log->lock);
    return ret;
}
