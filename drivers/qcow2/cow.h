/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_COW_H
#define BDRV_QCOW2_COW_H

/* Copy on write: what a newly allocated run holds besides the data of the request. */

#include "drivers/qcow2/meta/meta.h"
#include "drivers/qcow2/plan.h"

/* The bytes of a request that go to one run. */
typedef struct Qcow2RunWrite {
    const Qcow2AllocRun *run;
    uint64_t offset, bytes; /* guest; inside of the run */
    const BdrvIov *iov;
    size_t iov_offset;
    uint64_t host_offset; /* of the run's first cluster */
    bool reads_zero;      /* what is not written there reads as zeroes */
} Qcow2RunWrite;

/** qcow2_cow_write() - write head, data and tail of a run in one go; 0 or -errno
 * Of subclusters that the data does not touch only those that were allocated go along, if the clusters move. */
int coroutine_fn qcow2_cow_write(BlockDriverState *bs, const Qcow2RunWrite *write);

/** qcow2_reads_zero() - whether a part of a cluster with this entry is known to read as zeroes */
bool qcow2_reads_zero(BlockDriverState *bs, const Qcow2L2Entry *entry, uint64_t guest_offset, uint64_t bytes);

#endif
