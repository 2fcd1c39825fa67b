/* SPDX-License-Identifier: MIT */

/*
 * What every request goes through first: rights of the edge, and the order among overlapping writes.
 *
 * Overlaps matter only where the core reads, changes and writes back a block, that is, at nodes with
 * a request alignment above one byte. There every write is noted. A read-modify-write is serialising:
 * it waits for all older writes to its blocks, and younger ones wait for it.
 */

#include "block/io/request.h"

void bdrv_io_state_init(BdrvIoState *io)
{
    co_range_lock_init(&io->tracked);
    io->track_always = false;

    /* What the file had before it was opened may not be durable: a flush of it may have failed. The first one is real. */
    atomic_init(&io->write_gen, BDRV_FIRST_GEN);
    atomic_init(&io->captured_gen, 0);
    atomic_init(&io->flushed_gen, 0);
    pthread_mutex_init(&io->flush_lock, NULL);
    io->flush_running = false;
    io->next_round = NULL;
    co_queue_init(&io->flush_leader);
    co_queue_init(&io->flush_joiners);

    co_rwlock_init(&io->length_lock);
    co_mutex_init(&io->guard_lock);
}

void bdrv_io_state_destroy(BdrvIoState *io)
{
    co_mutex_destroy(&io->guard_lock);
    co_rwlock_destroy(&io->length_lock);
    pthread_mutex_destroy(&io->flush_lock);
    co_range_lock_destroy(&io->tracked);
}

void bdrv_track_requests(BlockDriverState *bs)
{
    bdrv_io(bs)->track_always = true;
}

void coroutine_fn bdrv_tracked_begin(BlockDriverState *bs, BdrvTrackedRequest *request, int64_t offset,
                                     int64_t end, bool serialising)
{
    co_range_lock(&bdrv_io(bs)->tracked, request, offset, end, serialising);
}

void coroutine_fn bdrv_tracked_end(BlockDriverState *bs, BdrvTrackedRequest *request)
{
    co_range_unlock(&bdrv_io(bs)->tracked, request);
}
