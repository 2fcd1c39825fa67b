/* SPDX-License-Identifier: MIT */

/* Checking what a log says: nothing of it is trusted. */

#include <bdrv/log-writes.h>
#include <errno.h>

bool bdrv_log_check_sector_size(int64_t size, GError **errp)
{
    if (size < BDRV_LOG_MIN_SECTOR || size > BDRV_LOG_MAX_SECTOR || (size & (size - 1))) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "Invalid log sector size %" G_GINT64_FORMAT ": must be a power of two from %d to %d", size,
                    BDRV_LOG_MIN_SECTOR, BDRV_LOG_MAX_SECTOR);
        return false;
    }
    return true;
}

bool bdrv_log_decode_super(const BdrvLogSuper *super, uint32_t *sector_size, uint64_t *nr_entries, GError **errp)
{
    uint64_t magic = GUINT64_FROM_LE(super->magic), version = GUINT64_FROM_LE(super->version);

    if (magic != BDRV_LOG_MAGIC) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "Invalid log superblock magic 0x%" G_GINT64_MODIFIER "x, must be 0x%" G_GINT64_MODIFIER "x", magic,
                    BDRV_LOG_MAGIC);
        return false;
    }
    if (version != BDRV_LOG_VERSION) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "Unsupported log version %" G_GUINT64_FORMAT ", must be %d", version,
                    BDRV_LOG_VERSION);
        return false;
    }
    if (!bdrv_log_check_sector_size(GUINT32_FROM_LE(super->sectorsize), errp)) {
        return false;
    }
    *sector_size = GUINT32_FROM_LE(super->sectorsize);
    *nr_entries = GUINT64_FROM_LE(super->nr_entries);
    return true;
}

bool bdrv_log_decode_entry(const BdrvLogEntry *entry, uint32_t sector_size, int64_t room, BdrvLogItem *item,
                           GError **errp)
{
    uint64_t flags = GUINT64_FROM_LE(entry->flags), sector = GUINT64_FROM_LE(entry->sector);
    uint64_t sectors = GUINT64_FROM_LE(entry->nr_sectors), most = INT64_MAX / sector_size;
    uint64_t mark_bytes = flags & BDRV_LOG_MARK ? GUINT64_FROM_LE(entry->data_len) : 0;

    if (flags & ~(uint64_t)BDRV_LOG_FLAGS) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "unknown flags 0x%" G_GINT64_MODIFIER "x, only 0x%x are known", flags,
                    BDRV_LOG_FLAGS);
        return false;
    }
    if (sector > most || sectors > most - sector) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "%" G_GUINT64_FORMAT " sectors at %" G_GUINT64_FORMAT " are more than a disk can have", sectors,
                    sector);
        return false;
    }
    if (room < 0 || (!(flags & BDRV_LOG_DISCARD) && sectors > (uint64_t)room / sector_size)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "%" G_GUINT64_FORMAT " sectors of data pass the end of the log, %" G_GINT64_FORMAT
                    " bytes behind the entry",
                    sectors, room);
        return false;
    }
    if (mark_bytes > sector_size - sizeof(*entry)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "a mark of %" G_GUINT64_FORMAT " bytes does not fit into its sector of %u bytes", mark_bytes,
                    sector_size);
        return false;
    }
    *item = (BdrvLogItem){ .flags = (unsigned)flags,
                           .offset = (int64_t)sector * sector_size,
                           .bytes = (int64_t)sectors * sector_size,
                           .data_bytes = flags & BDRV_LOG_DISCARD ? 0 : (int64_t)sectors * sector_size,
                           .mark_bytes = (uint32_t)mark_bytes };
    return true;
}
