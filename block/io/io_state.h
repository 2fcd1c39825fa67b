/* SPDX-License-Identifier: MIT */
#ifndef BDRV_IO_IO_STATE_H
#define BDRV_IO_IO_STATE_H

/* What the request layer keeps per node. Owned by block/io; the graph only makes and frees it. */

#include <bdrv/coroutine.h>
#include <stdatomic.h>

#define BDRV_FIRST_GEN 1u

typedef struct BdrvIoState {
    /*
     * Writes that may overlap a read-modify-write (request.c). Kept only at nodes whose
     * request_alignment is > 1, or after bdrv_track_requests(). A read-modify-write is alone.
     */
    CoRangeLock tracked;
    bool track_always; /* set before the node is used or while it is drained */

    /*
     * Flush generations (flush.c). A finished write makes sure, before its completion is visible,
     * that @write_gen is above @captured_gen; a flush that starts sets @captured_gen to @write_gen.
     * Many writes between two flushes therefore share one generation, and do not fight for a cache line.
     */
    _Atomic uint64_t write_gen; /* BDRV_FIRST_GEN: nothing was written since it was opened */
    _Atomic uint64_t captured_gen; /* written with flush_lock held */
    _Atomic uint64_t
        flushed_gen; /* the last flush that succeeded had captured this; written with flush_lock held */
    pthread_mutex_t flush_lock;
    bool flush_running;                /* flush_lock */
    struct BdrvFlushRound *next_round; /* flush_lock: the flush that has not started, joinable */
    CoQueue flush_leader;              /* flush_lock: whoever leads @next_round */
    CoQueue flush_joiners;             /* flush_lock: members of the running and the next round */

    /*
     * Where writes are not tracked: held to read by one that makes the node longer, to write by a resize,
     * which looks at the length first and then sets it (request.h).
     */
    CoRwLock length_lock;

    CoMutex guard_lock; /* held over a write into the probed window of a node whose format was guessed
                           (guard.c) */
} BdrvIoState;

void bdrv_io_state_init(BdrvIoState *io);
void bdrv_io_state_destroy(BdrvIoState *io);

typedef struct BdrvStats BdrvStats;
void bdrv_stats_free(BdrvStats *stats); /* stats.c; NULL is allowed */

#endif
