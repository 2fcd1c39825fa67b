/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_DATA_FILE_H
#define BDRV_QCOW2_DATA_FILE_H

/*
 * An external data file holds the guest's clusters, each at its guest offset; the image file holds metadata only.
 * Data clusters are then not counted, never move and are never shared.
 *
 * A raw data file reads as the guest's disk does. So its clusters, once they hold data, hold data for ever: zeroes are
 * written to it, and no crash can tell the two views apart.
 */

#include "drivers/qcow2/meta/meta.h"

/** qcow2_data_child() - the file with the guest's data */
static inline BdrvChild *qcow2_data_child(const BlockDriverState *bs)
{
    return qcow2_state(bs)->geometry.data_file ? bs->data_file : bs->file;
}

/** qcow2_data_is_raw() - whether the data file must stay the same as the guest's disk */
bool qcow2_data_is_raw(const Qcow2State *s);

/** qcow2_check_data_file() - open: the header against what the options say; sets bs->data_filename; EINVAL
 * @needed: data will be read or written */
bool qcow2_check_data_file(BlockDriverState *bs, bool needed, GError **errp);

/** qcow2_data_alloc() - qcow2_alloc_clusters() for guest data: with a data file space is where the guest has it */
int coroutine_fn qcow2_data_alloc(BlockDriverState *bs, uint64_t guest_offset, uint64_t host_hint, uint64_t count,
                                  Qcow2Allocation *out);
/** qcow2_data_release() - undo it for what was never published */
void coroutine_fn qcow2_data_release(BlockDriverState *bs, uint64_t host_offset, uint64_t count);

/** qcow2_data_flush() - make what was written to a data file durable; nothing to do without */
int coroutine_fn qcow2_data_flush(BlockDriverState *bs);

/** qcow2_data_zero() - zeroes into a raw data file, where there are none; 0 or -errno, -ENOTSUP with NO_FALLBACK */
int coroutine_fn qcow2_data_zero(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags);

#endif
