/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_RESIZE_H
#define BDRV_QCOW2_RESIZE_H

#include "drivers/qcow2/qcow2.h"

/**
 * qcow2_forget_from() - drop the clusters from @guest_offset on, the disk's and what lies behind it; drained
 * The part of a cluster before the next one stays. What the file has no use for at its end is cut off.
 * Returns: 0 or -errno; some may be gone then.
 */
int coroutine_fn qcow2_forget_from(BlockDriverState *bs, uint64_t guest_offset);

#endif
