/* SPDX-License-Identifier: MIT */
#ifndef BDRV_IO_IO_H
#define BDRV_IO_IO_H

/* Calls of the request layer that only the core makes; the rest is in <bdrv/driver.h>. */

#include "block/graph/graph.h"

/** bdrv_skip_filters() - the first node from @bs down that is no filter */
BlockDriverState *bdrv_skip_filters(BlockDriverState *bs);
/** bdrv_supports() - @callback: whether the driver has one; else ENOTSUP, naming @what */
bool bdrv_supports(const BlockDriverState *bs, bool callback, const char *what, GError **errp);

/** bdrv_co_get_info() etc. - ask a node's driver, passing filters */
int bdrv_get_info(BlockDriverState *bs, BdrvInfo *info);
BdrvOptions *bdrv_get_specific_info(BlockDriverState *bs);
bool bdrv_has_zero_init(BlockDriverState *bs);
void *bdrv_aligned_buffer(size_t alignment, size_t bytes); /* bdrv_try_blockalign() for an alignment, 0: none */
int coroutine_fn bdrv_co_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix,
                               GError **errp);

/** bdrv_co_change_backing_file() etc. - of the first node from @bs down that is no filter; drained
 * Contracts: struct BlockDriver, and blk_change_backing_file() etc. */
bool coroutine_fn bdrv_co_change_backing_file(BlockDriverState *bs, const char *filename, const char *format,
                                              GError **errp);
bool coroutine_fn bdrv_co_make_empty(BlockDriverState *bs, GError **errp);
bool coroutine_fn bdrv_co_amend(BlockDriverState *bs, const BdrvOptions *options, bool force,
                                BdrvProgressFunc *progress, void *opaque, GError **errp);
/** bdrv_co_invalidate_cache() - forget what is cached of @bs and all below it, children first; drained */
bool coroutine_fn bdrv_co_invalidate_cache(BlockDriverState *bs, GError **errp);
bool coroutine_fn bdrv_co_set_key(BlockDriverState *bs, const uint8_t *key, size_t bytes, GError **errp);

/** bdrv_co_snapshot_*(), bdrv_co_*_vmstate() - of the first node from @bs down that is no filter; drained but for list
 * Contracts: struct BlockDriver. */
int coroutine_fn bdrv_co_snapshot_list(BlockDriverState *bs, BdrvSnapshotInfo **list);
bool coroutine_fn bdrv_co_snapshot_create(BlockDriverState *bs, BdrvSnapshotInfo *info, GError **errp);
bool coroutine_fn bdrv_co_snapshot_goto(BlockDriverState *bs, const char *id, GError **errp);
bool coroutine_fn bdrv_co_snapshot_delete(BlockDriverState *bs, const char *id, const char *name, GError **errp);
bool coroutine_fn bdrv_co_snapshot_load_tmp(BlockDriverState *bs, const char *id, const char *name, GError **errp);
int coroutine_fn bdrv_co_save_vmstate(BlockDriverState *bs, int64_t offset, const BdrvIov *iov);
int coroutine_fn bdrv_co_load_vmstate(BlockDriverState *bs, int64_t offset, const BdrvIov *iov);

/** bdrv_co_bitmap_*() - of the first node from @bs down that is no filter; drained but for list and read
 * Contracts: struct BlockDriver. */
int coroutine_fn bdrv_co_bitmap_list(BlockDriverState *bs, BdrvBitmapInfo **list, GError **errp);
bool coroutine_fn bdrv_co_bitmap_add(BlockDriverState *bs, const char *name, int64_t granularity, bool enabled,
                                     GError **errp);
bool coroutine_fn bdrv_co_bitmap_remove(BlockDriverState *bs, const char *name, GError **errp);
bool coroutine_fn bdrv_co_bitmap_clear(BlockDriverState *bs, const char *name, GError **errp);
bool coroutine_fn bdrv_co_bitmap_enable(BlockDriverState *bs, const char *name, bool enable, GError **errp);
bool coroutine_fn bdrv_co_bitmap_merge(BlockDriverState *bs, const char *name, const BdrvDirtyBits *source,
                                       GError **errp);
BdrvDirtyBits *coroutine_fn bdrv_co_bitmap_read(BlockDriverState *bs, const char *name, GError **errp);

/** bdrv_breakpoint_*() - ask the first node from @bs down that knows breakpoints; -ENOTSUP if there is none
 * bdrv_breakpoint_is_suspended(): 1 or 0. */
int bdrv_breakpoint_set(BlockDriverState *bs, BdrvDebugEvent event, const char *tag);
int bdrv_breakpoint_remove(BlockDriverState *bs, const char *tag);
int bdrv_breakpoint_resume(BlockDriverState *bs, const char *tag);
int bdrv_breakpoint_is_suspended(BlockDriverState *bs, const char *tag);

/** bdrv_track_requests() - note every write, so that BDRV_REQ_SERIALISING works; node not in use, or drained
 */
void bdrv_track_requests(BlockDriverState *bs);

#endif
