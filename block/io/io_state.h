/* SPDX-License-Identifier: MIT */
#ifndef BDRV_IO_IO_STATE_H
#define BDRV_IO_IO_STATE_H

/* What the request layer keeps per node. Owned by block/io; the graph only makes and frees it. */

#include <bdrv/coroutine.h>

typedef struct BdrvTrackedRequest BdrvTrackedRequest;

typedef struct BdrvIoState {
    /* Requests that may overlap a read-modify-write; used only when request_alignment > 1 or a
     * serialising request was seen. Protected by @lock. */
    pthread_mutex_t lock;
    BdrvTrackedRequest *tracked;
    _Atomic unsigned serialising;
    CoQueue overlap_waiters;

    /* Flush generations. @write_gen is bumped before a write's completion is visible. */
    _Atomic uint64_t write_gen;
    pthread_mutex_t flush_lock;
    uint64_t flushed_gen; /* flush_lock */
    bool flush_running;   /* flush_lock */
    CoQueue flush_waiters; /* flush_lock */
    struct BdrvFlushRound *next_round; /* flush_lock: flushes that have not started, joinable */
} BdrvIoState;

struct BlockDriverState;
void bdrv_io_state_init(BdrvIoState *io);
void bdrv_io_state_destroy(BdrvIoState *io);

#endif
