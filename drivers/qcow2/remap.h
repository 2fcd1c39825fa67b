/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_REMAP_H
#define BDRV_QCOW2_REMAP_H

/* Changes of mapping without data: what write-zeroes and discard have in common. */

#include "drivers/qcow2/plan.h"

/*
 * What becomes of one cluster. @whole: the request covers all of it (up to the end of the disk).
 * Returns: 0 with *@entry the new raw entry (the old one: leave it); or -errno, which ends the request.
 */
typedef int Qcow2Remapper(BlockDriverState *bs, uint64_t guest_offset, uint64_t bytes, bool whole,
                          BdrvRequestFlags flags, uint64_t *entry);

/** qcow2_remap() - apply @remapper to every cluster that [offset, +bytes) touches; 0 or -errno
 * Clusters that lose their last reference give their space back to the host. */
int coroutine_fn qcow2_remap(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags,
                             Qcow2Remapper *remapper);

#endif
