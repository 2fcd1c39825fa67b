/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_PLAN_H
#define BDRV_QCOW2_PLAN_H

/* What a write has to do to guest clusters, judged by their L2 entries. */

#include "drivers/qcow2/qcow2.h"

/* Clusters that one allocating step works on; entries are on the stack. */
#define QCOW2_RUN_MAX 64u

/* A run of clusters to be written that may not be overwritten in place, and its reservation. */
typedef struct Qcow2AllocRun {
    uint64_t first_offset;            /* guest, multiple of the cluster size */
    unsigned count;                   /* clusters */
    Qcow2RawEntry entries[QCOW2_RUN_MAX]; /* as they are now */
    bool reuse;                       /* they have space of their own, in a row, and it is to be filled */
    uint64_t reuse_host;              /* where it is; else 0 */
} Qcow2AllocRun;

/** qcow2_has_own_space() - whether it has a host cluster that nobody shares */
bool qcow2_has_own_space(const Qcow2L2Entry *entry);

/** qcow2_touched() - bits of the subclusters of the guest cluster at @cluster that [begin, end) touches */
uint32_t qcow2_touched(const Qcow2Geometry *g, uint64_t cluster, uint64_t begin, uint64_t end);

/** qcow2_plan_alloc() - look up the clusters of [first_offset, +count), which are reserved, and cut the run
 * where something else begins. @begin, @end: guest range to be written; it touches all of them.
 * Returns: 0 with run->count 0 if the first may be written in place; or -errno. */
int coroutine_fn qcow2_plan_alloc(BlockDriverState *bs, Qcow2AllocRun *run, uint64_t begin, uint64_t end);

/** qcow2_drop_entries() - one reference less for all that @count entries, no longer published, point to
 * A data file counts no references: there is nothing to do. */
void qcow2_drop_entries(BlockDriverState *bs, const Qcow2RawEntry *entries, unsigned count, Qcow2DiscardType why);

#endif
