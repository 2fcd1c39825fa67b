/* SPDX-License-Identifier: MIT */
#ifndef BDRV_LOG_REPLAY_READER_H
#define BDRV_LOG_REPLAY_READER_H

/* Reading a dm-log-writes log from its first entry to its last. */

#include <bdrv/bdrv.h>
#include <bdrv/log-writes.h>

typedef struct LogReader {
    BlockBackend *blk;
    uint32_t sector_size;
    uint64_t nr_entries;
    uint64_t next;       /* number of the entry at @next_offset */
    int64_t next_offset; /* bytes */
} LogReader;

typedef struct LogEntry {
    uint64_t number; /* from 0 */
    int64_t at;      /* where it is in the log, bytes */
    int64_t data_at; /* where its data is */
    BdrvLogItem item;
    char mark[BDRV_LOG_MAX_SECTOR]; /* text of a mark */
} LogEntry;

/** log_reader_open() - @filename: as for blk_open(), never probed */
bool blocking_fn log_reader_open(LogReader *reader, BdrvGraph *graph, const char *filename, GError **errp);
void blocking_fn log_reader_close(LogReader *reader);

/** log_reader_next() - the next entry; false at the end, or with @errp set */
bool blocking_fn log_reader_next(LogReader *reader, LogEntry *entry, GError **errp);

/** log_entry_text() - "entry 3 at 5120: write 4096 bytes at 8192, fua"; caller frees */
char *log_entry_text(const LogEntry *entry);

#endif
