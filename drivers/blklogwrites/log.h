/* SPDX-License-Identifier: MIT */
#ifndef BLKLOGWRITES_LOG_H
#define BLKLOGWRITES_LOG_H

/* The log: where its end is, and adding to it. */

#include <bdrv/driver.h>
#include <bdrv/log-writes.h>

typedef struct WriteLog {
    BdrvChild *child;
    uint32_t sector_size;     /* bytes */
    uint64_t super_interval;  /* entries between two updates of the super block */
    CoMutex lock;             /* of all below; held over writing to the log: entries go one after the other */
    int64_t end;              /* bytes: where the next entry goes */
    uint64_t entries;         /* in the log */
    uint64_t super_entries;   /* how many the super block on disk tells of */
    bool has_super;           /* the super block on disk is of this log */
    bool added;               /* an entry, since it was opened: before the first a flush orders nothing */
} WriteLog;

/* What an entry is about. */
typedef struct WriteLogItem {
    unsigned flags;       /* BDRV_LOG_… */
    int64_t offset, bytes; /* of the disk; multiples of the sector size */
    const BdrvIov *iov;   /* data of a write; NULL: zeroes, or no data by @flags */
    size_t iov_offset;
} WriteLogItem;

/**
 * write_log_open() - begin a log, or find the end of the one that is there
 * @append: go on behind the last entry; an empty child is begun
 * @sector_size: of a log that is begun; what @append finds wins
 * Writes nothing.
 */
bool coroutine_fn write_log_open(WriteLog *log, BdrvChild *child, bool append, uint32_t sector_size,
                                 uint64_t super_interval, GError **errp);
void write_log_destroy(WriteLog *log);

/**
 * write_log_add() - one entry, and the super block when it is due
 * If it fails the log ends where it ended before, and the next entry takes the place.
 */
int coroutine_fn write_log_add(WriteLog *log, const WriteLogItem *item);

/** write_log_begin_flush() - let no entry in: what completes from now on is logged behind the flush */
void coroutine_fn write_log_begin_flush(WriteLog *log);
/** write_log_end_flush() - @ret is how the flush of the disk went: note it and make the log durable; its result
 * Nothing is noted before the first entry since write_log_open(), so that a log is what was done to the disk. */
int coroutine_fn write_log_end_flush(WriteLog *log, int ret);

/** write_log_finish() - the super block tells of all entries */
int coroutine_fn write_log_finish(WriteLog *log);

#endif
