/* SPDX-License-Identifier: MIT */

/*
 * What every request goes through first: rights of the edge, and the order among overlapping writes.
 *
 * Overlaps matter only where the core reads, changes and writes back a block, that is, at nodes with
 * a request alignment above one byte. There every write is noted. A read-modify-write is serialising:
 * it waits for all older writes to its blocks, and younger ones wait for it. A request waits only for
 * older ones, so nobody waits in a circle and nobody starves.
 */

#include "block/io/request.h"

void bdrv_io_state_init(BdrvIoState *io)
{
    pthread_mutex_init(&io->lock, NULL);
    io->tracked = NULL;
    co_queue_init(&io->overlap_waiters);
    io->track_always = false;

    atomic_init(&io->write_gen, 0);
    atomic_init(&io->captured_gen, 0);
    atomic_init(&io->flushed_gen, 0);
    pthread_mutex_init(&io->flush_lock, NULL);
    io->flush_running = false;
    io->next_round = NULL;
    co_queue_init(&io->flush_leader);
    co_queue_init(&io->flush_joiners);

    co_mutex_init(&io->guard_lock);
}

void bdrv_io_state_destroy(BdrvIoState *io)
{
    co_mutex_destroy(&io->guard_lock);
    pthread_mutex_destroy(&io->flush_lock);
    pthread_mutex_destroy(&io->lock);
}

void bdrv_track_requests(BlockDriverState *bs)
{
    bdrv_io(bs)->track_always = true;
}

/* Called with io->lock held. */
static bool must_wait_locked(const BdrvTrackedRequest *request)
{
    for (const BdrvTrackedRequest *older = request->next; older; older = older->next) {
        if ((request->serialising || older->serialising) && older->offset < request->end &&
            request->offset < older->end) {
            return true;
        }
    }
    return false;
}

void coroutine_fn bdrv_tracked_begin(BlockDriverState *bs, BdrvTrackedRequest *request, int64_t offset,
                                     int64_t end, bool serialising)
{
    BdrvIoState *io = bdrv_io(bs);

    request->offset = offset;
    request->end = end;
    request->serialising = serialising;

    pthread_mutex_lock(&io->lock);
    request->next = io->tracked;
    request->link = &io->tracked;
    if (request->next) {
        request->next->link = &request->next;
    }
    io->tracked = request;
    while (must_wait_locked(request)) {
        co_queue_wait(&io->overlap_waiters, &io->lock);
    }
    pthread_mutex_unlock(&io->lock);
}

void coroutine_fn bdrv_tracked_end(BlockDriverState *bs, BdrvTrackedRequest *request)
{
    BdrvIoState *io = bdrv_io(bs);

    pthread_mutex_lock(&io->lock);
    *request->link = request->next;
    if (request->next) {
        request->next->link = request->link;
    }
    co_queue_wake_all(&io->overlap_waiters);
    pthread_mutex_unlock(&io->lock);
}
