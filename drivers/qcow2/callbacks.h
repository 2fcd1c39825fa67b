/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_CALLBACKS_H
#define BDRV_QCOW2_CALLBACKS_H

/* What the table in qcow2.c points at, by file. Contracts: struct BlockDriver in <bdrv/driver.h>. */

#include "drivers/qcow2/qcow2.h"

/* open.c */
bool coroutine_fn qcow2_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                             GError **errp);
int coroutine_fn qcow2_close(BlockDriverState *bs);
bool coroutine_fn qcow2_invalidate_cache(BlockDriverState *bs, GError **errp);

/* reopen.c */
bool coroutine_fn qcow2_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                       void **state, GError **errp);
void qcow2_reopen_commit(BlockDriverState *bs, void *state);
void qcow2_reopen_abort(BlockDriverState *bs, void *state);
bool coroutine_fn qcow2_reopen_finish(BlockDriverState *bs, GError **errp);

/* create.c */
bool coroutine_fn qcow2_create(const char *filename, BdrvChild *file, const BdrvOptions *options,
                               GError **errp);

/* measure.c */
bool coroutine_fn qcow2_measure(const BdrvOptions *options, BdrvChild *source, BdrvMeasure *measure, GError **errp);

/* backing.c */
bool coroutine_fn qcow2_change_backing_file(BlockDriverState *bs, const char *filename, const char *format,
                                            GError **errp);

/* amend.c */
extern const BdrvOptionSpec qcow2_amend_options[];
bool coroutine_fn qcow2_amend(BlockDriverState *bs, const BdrvOptions *options, bool force,
                              BdrvProgressFunc *progress, void *opaque, GError **errp);

/* empty.c */
int coroutine_fn qcow2_make_empty(BlockDriverState *bs);

/* resize.c */
bool coroutine_fn qcow2_check_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                       GError **errp);
bool coroutine_fn qcow2_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                 BdrvRequestFlags flags, GError **errp);

/* info.c */
int qcow2_get_info(BlockDriverState *bs, BdrvInfo *info);
BdrvOptions *qcow2_get_specific_info(BlockDriverState *bs);
char *qcow2_explain(BlockDriverState *bs);
int qcow2_snapshot_list(BlockDriverState *bs, BdrvSnapshotInfo **list);

/* snapshot.c */
bool coroutine_fn qcow2_snapshot_create(BlockDriverState *bs, BdrvSnapshotInfo *info, GError **errp);
bool coroutine_fn qcow2_snapshot_goto(BlockDriverState *bs, const char *id, GError **errp);
bool coroutine_fn qcow2_snapshot_delete(BlockDriverState *bs, const char *id, const char *name, GError **errp);
bool coroutine_fn qcow2_snapshot_load_tmp(BlockDriverState *bs, const char *id, const char *name, GError **errp);

/* bitmap.c */
int coroutine_fn qcow2_bitmap_list(BlockDriverState *bs, BdrvBitmapInfo **list, GError **errp);
bool coroutine_fn qcow2_bitmap_add(BlockDriverState *bs, const char *name, int64_t granularity, bool enabled,
                                   GError **errp);
bool coroutine_fn qcow2_bitmap_remove(BlockDriverState *bs, const char *name, GError **errp);
bool coroutine_fn qcow2_bitmap_clear_bits(BlockDriverState *bs, const char *name, GError **errp);
bool coroutine_fn qcow2_bitmap_enable(BlockDriverState *bs, const char *name, bool enable, GError **errp);
bool coroutine_fn qcow2_bitmap_merge(BlockDriverState *bs, const char *name, const BdrvDirtyBits *source,
                                     GError **errp);
BdrvDirtyBits *coroutine_fn qcow2_bitmap_read(BlockDriverState *bs, const char *name, GError **errp);

/* vmstate.c */
/** qcow2_vm_state_offset() - where VM state begins: like guest data, behind what the disk needs of the L1 table */
uint64_t qcow2_vm_state_offset(const BlockDriverState *bs);
int coroutine_fn qcow2_save_vmstate(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov);
int coroutine_fn qcow2_load_vmstate(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov);

/* check.c */
int coroutine_fn qcow2_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix);

/* read.c, write.c, compressed_write.c, zero.c, discard.c, status.c */
int coroutine_fn qcow2_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                size_t iov_offset, BdrvRequestFlags flags);
int coroutine_fn qcow2_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                 size_t iov_offset, BdrvRequestFlags flags);
int coroutine_fn qcow2_write_compressed(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                        size_t iov_offset);
int coroutine_fn qcow2_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       BdrvRequestFlags flags);
int coroutine_fn qcow2_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes);
int coroutine_fn qcow2_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       BlockExtent *extent);

/* The same for what is not the guest's doing: no dirty bitmap takes note. */
int coroutine_fn qcow2_write(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset);
int coroutine_fn qcow2_zero(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags);

/* flush.c; meta/: flush is qcow2_meta_commit() and a flush of the file; drain stops and restarts the commit timer.
 * qcow2_meta_open() also makes s->inflight, qcow2_meta_close() frees it. */
int coroutine_fn qcow2_co_flush_to_os(BlockDriverState *bs);
int coroutine_fn qcow2_co_flush_to_disk(BlockDriverState *bs);
void coroutine_fn qcow2_drain_begin(BlockDriverState *bs);
void coroutine_fn qcow2_drain_end(BlockDriverState *bs);

#endif
