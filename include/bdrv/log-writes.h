/* SPDX-License-Identifier: MIT */
#ifndef BDRV_LOG_WRITES_H
#define BDRV_LOG_WRITES_H

/*
 * The dm-log-writes format, version 1, as the driver blklogwrites writes it and bdrv-log-replay reads it.
 * All numbers are little endian. A log consists of sectors of its own size:
 *
 *     sector 0            super block
 *     one                 entry           the rest of its sector: text of a mark, else zeroes
 *     entry.nr_sectors    data            of a write; a discard, flush or mark has none
 *     one                 entry ...
 *
 * The log ends after super.nr_entries entries, whatever follows in the file.
 */

#include <bdrv/error.h>
#include <stdbool.h>
#include <stdint.h>

G_BEGIN_DECLS

#define BDRV_LOG_MAGIC UINT64_C(0x6a736677736872) /* how a super block begins */
#define BDRV_LOG_VERSION 1 /* the only one there is */

/* The super block as it is stored. */
typedef struct __attribute__((packed)) BdrvLogSuper {
    guint64 magic, version;
    guint64 nr_entries;
    guint32 sectorsize; /* bytes; a power of two */
} BdrvLogSuper;

/* An entry as it is stored. */
typedef struct __attribute__((packed)) BdrvLogEntry {
    guint64 sector;     /* where on the disk, in log sectors */
    guint64 nr_sectors; /* how many of them; 0: only flags */
    guint64 flags;      /* BDRV_LOG_…; 0: a write */
    guint64 data_len;   /* of a mark: bytes of its text, behind the entry in the same sector */
} BdrvLogEntry;

#define BDRV_LOG_FLUSH (1u << 0)   /* everything logged before is durable */
#define BDRV_LOG_FUA (1u << 1)     /* the write of this entry is */
#define BDRV_LOG_DISCARD (1u << 2) /* no data follows */
#define BDRV_LOG_MARK (1u << 3)    /* a name for this place */
#define BDRV_LOG_FLAGS 0xfu        /* all of them */

#define BDRV_LOG_MIN_SECTOR 32    /* bytes: a sector holds an entry */
#define BDRV_LOG_MAX_SECTOR 65536 /* bytes: the core pads requests to it */

/** bdrv_log_check_sector_size() - a power of two within these limits; EINVAL */
BDRV_API bool bdrv_log_check_sector_size(int64_t size, GError **errp);

/** bdrv_log_decode_super() - EINVAL: not a log, or one of another version or with an impossible sector size */
BDRV_API bool bdrv_log_decode_super(const BdrvLogSuper *super, uint32_t *sector_size, uint64_t *nr_entries,
                                    GError **errp);

/* An entry that has been checked. */
typedef struct BdrvLogItem {
    unsigned flags;        /* BDRV_LOG_… */
    int64_t offset, bytes; /* of the disk */
    int64_t data_bytes;    /* behind the entry's sector in the log */
    uint32_t mark_bytes;   /* of text behind the entry in its sector */
} BdrvLogItem;

/**
 * bdrv_log_decode_entry() - check an entry
 * @room: bytes of the log behind the entry's sector
 * Returns: false with EINVAL if it passes the end of the log or of what a disk can have, or has unknown flags.
 */
BDRV_API bool bdrv_log_decode_entry(const BdrvLogEntry *entry, uint32_t sector_size, int64_t room, BdrvLogItem *item,
                                    GError **errp);

G_END_DECLS
#endif
