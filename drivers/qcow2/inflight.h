/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_INFLIGHT_H
#define BDRV_QCOW2_INFLIGHT_H

/*
 * Guest ranges whose mapping is being changed: by an allocating write, write-zeroes or discard. Two
 * such requests never work on one guest cluster at a time. Whoever had to wait looks the mapping up
 * again. Sharded by L2 slice, which no range crosses.
 */

#include "drivers/qcow2/qcow2.h"

/* A range; on the stack of the request. */
typedef struct Qcow2InflightRange {
    uint64_t begin, end; /* guest offsets, multiples of the cluster size, in one L2 slice */
    unsigned shard;
    struct Qcow2InflightRange *next, **link;
} Qcow2InflightRange;

Qcow2Inflight *qcow2_inflight_new(void); /* NULL: no memory */
void qcow2_inflight_free(Qcow2Inflight *inflight);

/**
 * qcow2_inflight_begin() - reserve [begin, end)
 * Returns: true; or false after waiting for a range that overlaps, with nothing reserved: remap and try again.
 */
bool coroutine_fn qcow2_inflight_begin(BlockDriverState *bs, Qcow2InflightRange *range, uint64_t begin, uint64_t end);

/** qcow2_inflight_end() - the mapping is published, or given up: wake who waits */
void qcow2_inflight_end(BlockDriverState *bs, Qcow2InflightRange *range);

#endif
