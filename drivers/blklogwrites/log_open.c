/* SPDX-License-Identifier: MIT */

/* Where a log ends: read its super block and walk over its entries. What is in it is not trusted. */

#include "log.h"

#include <errno.h>

static bool coroutine_fn read_log(WriteLog *log, int64_t offset, void *buf, int64_t bytes, GError **errp)
{
    int ret = bdrv_co_pread(log->child, offset, bytes, buf, 0);

    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "Could not read the log at %" G_GINT64_FORMAT ": %s", offset,
                    g_strerror(-ret));
    }
    return ret >= 0;
}

/* Pass by the entry at log->end. */
static bool coroutine_fn skip_entry(WriteLog *log, int64_t length, GError **errp)
{
    g_autofree char *what = NULL;
    BdrvLogEntry entry = { 0 };
    BdrvLogItem item;
    GError *error = NULL;
    int64_t room = length - log->end - log->sector_size;

    if (room >= 0 && !read_log(log, log->end, &entry, sizeof(entry), errp)) {
        return false;
    }
    if (!bdrv_log_decode_entry(&entry, log->sector_size, room, &item, &error)) {
        what = g_strdup_printf("log entry %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " at %" G_GINT64_FORMAT,
                               log->entries, log->super_entries, log->end);
        bdrv_error_prefix(&error, what);
        g_propagate_error(errp, error);
        return false;
    }
    log->end += log->sector_size + item.data_bytes;
    log->entries++;
    return true;
}

static bool coroutine_fn find_end(WriteLog *log, GError **errp)
{
    int64_t length = bdrv_co_getlength(log->child);
    BdrvLogSuper super;

    if (length == 0) {
        return true; /* nothing to go on from: a new log */
    }
    if (!read_log(log, 0, &super, sizeof(super), errp) ||
        !bdrv_log_decode_super(&super, &log->sector_size, &log->super_entries, errp)) {
        return false;
    }
    log->end = log->sector_size;
    while (log->entries < log->super_entries) {
        if (!skip_entry(log, length, errp)) {
            return false;
        }
    }
    log->has_super = true;
    return true;
}

bool coroutine_fn write_log_open(WriteLog *log, BdrvChild *child, bool append, uint32_t sector_size,
                                 uint64_t super_interval, GError **errp)
{
    *log = (WriteLog){
        .child = child, .sector_size = sector_size, .end = sector_size, .super_interval = super_interval
    };
    if (append && !find_end(log, errp)) {
        return false;
    }
    co_mutex_init(&log->lock);
    return true;
}
