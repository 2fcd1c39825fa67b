/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_REMAP_H
#define BDRV_QCOW2_REMAP_H

/* Changes of mapping without data: what write-zeroes and discard have in common. */

#include "drivers/qcow2/plan.h"

/* A cluster that the request touches. */
typedef struct Qcow2RemapCluster {
    uint64_t guest_offset;
    uint32_t begin, end; /* the part of it that is covered; to its end where that of the disk is */
    bool whole;          /* it is all of it */
    BdrvRequestFlags flags;
    Qcow2L2Entry old;
} Qcow2RemapCluster;

/*
 * What becomes of one cluster.
 * Returns: 0 with *@raw, the old entry, changed or left; or -errno, which ends the request.
 */
typedef int Qcow2Remapper(BlockDriverState *bs, const Qcow2RemapCluster *cluster, Qcow2RawEntry *raw);

typedef struct Qcow2Remap {
    Qcow2Remapper *cluster;
    BdrvRequestFlags flags;
    bool is_discard; /* else what is given back to the host must read as zeroes */
} Qcow2Remap;

/** qcow2_remap() - apply @how->cluster to every cluster that [offset, +bytes) touches; 0 or -errno
 * Clusters that lose their last reference give their space back to the host if pass-discard-request says so. */
int coroutine_fn qcow2_remap(BlockDriverState *bs, int64_t offset, int64_t bytes, const Qcow2Remap *how);

#endif
