/* SPDX-License-Identifier: MIT */
#include "tools/log-replay/reader.h"

#include <errno.h>
#include <string.h>

static bool blocking_fn read_log(LogReader *reader, int64_t offset, void *buf, int64_t bytes, GError **errp)
{
    int ret = blk_pread(reader->blk, offset, bytes, buf, 0);

    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "could not read %" G_GINT64_FORMAT " bytes of the log at %" G_GINT64_FORMAT
                    ": %s", bytes, offset, g_strerror(-ret));
    }
    return ret >= 0;
}

static bool blocking_fn read_super(LogReader *reader, GError **errp)
{
    BdrvLogSuper super;

    if (blk_length(reader->blk) < (int64_t)sizeof(super)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "%" G_GINT64_FORMAT " bytes are too short for a log",
                    blk_length(reader->blk));
        return false;
    }
    return read_log(reader, 0, &super, sizeof(super), errp) &&
           bdrv_log_decode_super(&super, &reader->sector_size, &reader->nr_entries, errp);
}

bool blocking_fn log_reader_open(LogReader *reader, BdrvGraph *graph, const char *filename, GError **errp)
{
    BdrvOptions *options = bdrv_options_new();
    GError *error = NULL;

    *reader = (LogReader){ 0 };
    if (!g_str_has_prefix(filename, "json:")) {
        bdrv_options_set_string(options, "driver", "raw");
    }
    reader->blk = blk_open(graph, filename, options, 0, errp);
    if (!reader->blk) {
        return false;
    }
    if (!read_super(reader, &error)) {
        bdrv_error_prefix(&error, filename);
        g_propagate_error(errp, error);
        log_reader_close(reader);
        return false;
    }
    reader->next_offset = reader->sector_size;
    return true;
}

void blocking_fn log_reader_close(LogReader *reader)
{
    blk_close(reader->blk, NULL); /* read-only: nothing can be lost */
    reader->blk = NULL;
}

static bool blocking_fn read_entry(LogReader *reader, LogEntry *entry, GError **errp)
{
    int64_t at = reader->next_offset, room = blk_length(reader->blk) - at - reader->sector_size;
    BdrvLogEntry raw = { 0 };

    if (room >= 0 && !read_log(reader, at, &raw, sizeof(raw), errp)) {
        return false;
    }
    if (!bdrv_log_decode_entry(&raw, reader->sector_size, room, &entry->item, errp)) {
        return false;
    }
    if (entry->item.mark_bytes &&
        !read_log(reader, at + (int64_t)sizeof(raw), entry->mark, entry->item.mark_bytes, errp)) {
        return false;
    }
    entry->mark[entry->item.mark_bytes] = '\0';
    entry->number = reader->next;
    entry->at = at;
    entry->data_at = at + reader->sector_size;
    return true;
}

bool blocking_fn log_reader_next(LogReader *reader, LogEntry *entry, GError **errp)
{
    g_autofree char *what = NULL;
    GError *error = NULL;

    if (reader->next == reader->nr_entries) {
        return false;
    }
    if (!read_entry(reader, entry, &error)) {
        what = g_strdup_printf("log entry %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " at %" G_GINT64_FORMAT,
                               reader->next, reader->nr_entries, reader->next_offset);
        bdrv_error_prefix(&error, what);
        g_propagate_error(errp, error);
        return false;
    }
    reader->next++;
    reader->next_offset = entry->data_at + entry->item.data_bytes;
    return true;
}

char *log_entry_text(const LogEntry *entry)
{
    GString *text = g_string_new(NULL);
    const BdrvLogItem *item = &entry->item;

    g_string_printf(text, "entry %" G_GUINT64_FORMAT " at %" G_GINT64_FORMAT ":", entry->number, entry->at);
    if (item->flags & BDRV_LOG_FLUSH) {
        g_string_append(text, " flush");
    }
    if (item->flags & BDRV_LOG_MARK) {
        g_autofree char *escaped = g_strescape(entry->mark, NULL);
        g_string_append_printf(text, " mark \"%s\"", escaped);
    }
    if (item->bytes > 0) {
        g_string_append_printf(text, " %s %" G_GINT64_FORMAT " bytes at %" G_GINT64_FORMAT,
                               item->flags & BDRV_LOG_DISCARD ? "discard" : "write", item->bytes, item->offset);
    }
    if (item->flags & BDRV_LOG_FUA) {
        g_string_append(text, " fua");
    }
    return g_string_free(text, FALSE);
}
