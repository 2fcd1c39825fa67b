/* SPDX-License-Identifier: MIT */
#ifndef BDRV_BITMAP_H
#define BDRV_BITMAP_H

/*
 * Persistent dirty bitmaps: which parts of a disk were written since a point in time, kept inside the image. They are
 * what incremental backups need:
 *
 *     blk_bitmap_add(disk, "monday", 0, true, &error);            // then make a full copy
 *     …
 *     BdrvDirtyBits *dirty = blk_bitmap_read(disk, "monday", &error);
 *     for (int64_t at = 0; bdrv_dirty_bits_next(dirty, at, &at, &bytes); at += bytes) {
 *         copy(at, bytes);
 *     }
 *
 * An enabled bitmap is set by every write, write-zeroes, discard and make-empty, before the data goes out. A resize
 * takes bitmaps along: what is new is not set. Setting costs writes a little, and nothing where no bitmap is enabled.
 *
 * Before the first change after opening, enabled bitmaps are marked in the image as in use, and they are stored when it
 * is closed, reopened read-only, or one of the calls below changes bitmaps. After a crash in between they are
 * inconsistent, as they are if they could not be stored: they can only be removed.
 *
 * All functions block; those that change bitmaps wait until no request is inside. On failure nothing has changed.
 */

#include <bdrv/bdrv.h>

G_BEGIN_DECLS

/** blk_bitmap_list() - count, or -1 with @errp set: ENOTSUP (format or version has no bitmaps)
 * @list: free with bdrv_bitmap_list_free() */
BDRV_API int blocking_fn blk_bitmap_list(BlockBackend *blk, BdrvBitmapInfo **list, GError **errp);
BDRV_API void bdrv_bitmap_list_free(BdrvBitmapInfo *list, int count);

/**
 * blk_bitmap_add() - a new one with no bit set
 * @name: 1 to 1023 bytes, unique in the image
 * @granularity: bytes for each bit, a power of two from 512 to 2 GiB; 0: the image's cluster size, 4 to 64 KiB
 * @enabled: whether writes set bits
 *
 * Fails with EEXIST, EINVAL, ENOTSUP (as above; a disk of 0 bytes), EACCES (read-only), EFBIG (it would be larger than
 * 512 MiB; too many), or an I/O error.
 */
BDRV_API bool blocking_fn blk_bitmap_add(BlockBackend *blk, const char *name, int64_t granularity, bool enabled,
                                         GError **errp);
/** blk_bitmap_remove() - also one that is inconsistent or of an unknown kind; ENOENT */
BDRV_API bool blocking_fn blk_bitmap_remove(BlockBackend *blk, const char *name, GError **errp);

/* The others fail with ENOENT, EINVAL (it is inconsistent or of an unknown kind), EACCES, or an I/O error. */

/** blk_bitmap_clear() - no bit is set */
BDRV_API bool blocking_fn blk_bitmap_clear(BlockBackend *blk, const char *name, GError **errp);
/** blk_bitmap_enable() - whether writes set bits from now on */
BDRV_API bool blocking_fn blk_bitmap_enable(BlockBackend *blk, const char *name, bool enable, GError **errp);
/** blk_bitmap_merge() - set what is set in @source too, which may have another granularity
 * EINVAL: it is of a disk of another length. */
BDRV_API bool blocking_fn blk_bitmap_merge(BlockBackend *blk, const char *name, const BdrvDirtyBits *source,
                                           GError **errp);

/** blk_bitmap_read() - a copy of the bits as they are now; NULL with @errp set
 * What writes that are still under way set may be missing. Free with bdrv_dirty_bits_free(). */
BDRV_API BdrvDirtyBits *blocking_fn blk_bitmap_read(BlockBackend *blk, const char *name, GError **errp);

/**
 * bdrv_dirty_bits_next() - the first range from @offset on that is set
 * @start: set to its begin, @offset or later; @bytes: its length, inside the disk
 * Returns: false if there is none; both are untouched then.
 */
BDRV_API bool bdrv_dirty_bits_next(const BdrvDirtyBits *bits, int64_t offset, int64_t *start, int64_t *bytes);
BDRV_API int64_t bdrv_dirty_bits_granularity(const BdrvDirtyBits *bits); /* bytes for each bit */
BDRV_API int64_t bdrv_dirty_bits_length(const BdrvDirtyBits *bits);      /* bytes of the disk */
BDRV_API void bdrv_dirty_bits_free(BdrvDirtyBits *bits);                 /* NULL is allowed */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BdrvDirtyBits, bdrv_dirty_bits_free)

G_END_DECLS
#endif
