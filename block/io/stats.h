/* SPDX-License-Identifier: MIT */
#ifndef BDRV_IO_STATS_H
#define BDRV_IO_STATS_H

/*
 * Counting what reaches a node. A public call of the request layer tests one pointer; if it is set, the call is
 * measured. Counters are kept by each thread for itself, so that none is written by two: a request ends in the thread
 * in which it began.
 */

#include "block/graph/graph.h"

#include <stdatomic.h>

static inline BdrvStats *bdrv_stats(const BlockDriverState *bs)
{
    return atomic_load_explicit(&bdrv_node(bs)->stats, memory_order_acquire);
}

/** bdrv_stats_begin() - now, in the clock of the calling thread's context */
int64_t coroutine_fn bdrv_stats_begin(void);
/** bdrv_stats_end() - a request that began at @start ends with @ret; returns @ret */
int coroutine_fn bdrv_stats_end(BdrvStats *stats, BdrvStatKind kind, int64_t bytes, int64_t start, int ret);

/** bdrv_stats_switch() - keep statistics of a node, or no more; false: no memory. One call at a time for a graph. */
bool bdrv_stats_switch(BlockDriverState *bs, bool on);
/** bdrv_stats_read() - the sums over all threads; false: never switched on. Any thread. */
bool bdrv_stats_read(BlockDriverState *bs, BdrvNodeStats *sums);

#endif
