/* SPDX-License-Identifier: MIT */
#include "tools/log-replay/replay.h"

#include <errno.h>

#define PIECE (1024 * 1024)

static bool blocking_fn copy_data(LogReader *reader, const LogEntry *entry, BlockBackend *target, GError **errp)
{
    int64_t bytes = entry->item.data_bytes;
    uint8_t *buf = blk_blockalign(target, MIN(bytes, PIECE));
    int ret = buf ? 0 : -ENOMEM;

    for (int64_t done = 0, n; done < bytes && ret >= 0; done += n) {
        n = MIN(bytes - done, PIECE);
        ret = blk_pread(reader->blk, entry->data_at + done, n, buf, 0);
        if (ret >= 0) {
            ret = blk_pwrite(target, entry->item.offset + done, n, buf, 0);
        }
    }
    bdrv_vfree(buf);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret,
                    "could not replay entry %" G_GUINT64_FORMAT ", %" G_GINT64_FORMAT " bytes at %" G_GINT64_FORMAT
                    ": %s",
                    entry->number, bytes, entry->item.offset, g_strerror(-ret));
    }
    return ret >= 0;
}

static bool blocking_fn clear(const LogEntry *entry, BlockBackend *target, GError **errp)
{
    int64_t bytes = MIN(entry->item.bytes, blk_length(target) - entry->item.offset);
    int ret = bytes > 0 ? blk_pwrite_zeroes(target, entry->item.offset, bytes, BDRV_REQ_MAY_UNMAP) : 0;

    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret,
                    "could not replay entry %" G_GUINT64_FORMAT ", a discard of %" G_GINT64_FORMAT
                    " bytes at %" G_GINT64_FORMAT ": %s",
                    entry->number, entry->item.bytes, entry->item.offset, g_strerror(-ret));
    }
    return ret >= 0;
}

bool blocking_fn log_replay_entry(LogReader *reader, const LogEntry *entry, BlockBackend *target, bool discard,
                                  GError **errp)
{
    if (entry->item.flags & BDRV_LOG_DISCARD) {
        return !discard || clear(entry, target, errp);
    }
    return entry->item.data_bytes == 0 || copy_data(reader, entry, target, errp);
}
