/* SPDX-License-Identifier: MIT */

/*
 * Flush. All that was complete when the flush began is durable when it succeeds.
 *
 * At most one flush of a node runs, and at most one round waits to start after it. A flush that
 * arrives joins the waiting round, never the running one (which may have passed by what the newcomer
 * wrote), and the whole round gets one result. A flush with nothing written since the last good one
 * calls nothing, but the first one of a writer does: what its file had before may not be durable. A failed
 * flush leaves the generations as they were: the next one tries again.
 *
 * Whose data is whose: a node whose driver has bdrv_co_flush_to_disk makes its children durable
 * itself; for any other node the core flushes every child it can write to. BDRV_O_NO_FLUSH leaves the
 * barrier out, not the writing back of caches.
 */

#include "block/io/request.h"
#include "block/io/stats.h"

/* A member of a round; on the stack of its coroutine. */
typedef struct FlushMember {
    struct FlushMember *next;
    bool done;
    int ret;
} FlushMember;

struct BdrvFlushRound {
    FlushMember *members; /* who joined; flush_lock */
};

static int coroutine_fn flush_children(BlockDriverState *bs)
{
    GPtrArray *children = bdrv_node(bs)->children;
    int first_error = 0;

    for (unsigned i = 0; children && i < children->len; i++) {
        BdrvEdge *edge = g_ptr_array_index(children, i);

        if (edge->used & (BDRV_RIGHT_WRITE | BDRV_RIGHT_WRITE_UNCHANGED | BDRV_RIGHT_RESIZE)) {
            int ret = bdrv_flush_node(edge->child.bs);
            first_error = first_error ? first_error : ret;
        }
    }
    return first_error;
}

static void coroutine_fn event_to_file(BlockDriverState *bs, BdrvDebugEvent event)
{
    if (bs->file) {
        bdrv_event(bs->file->bs, event);
    }
}

/* Carry a flush out, with nobody else flushing this node. */
static int coroutine_fn flush_now(BlockDriverState *bs)
{
    const BlockDriver *drv = bs->drv;
    int ret = 0;

    if (drv->bdrv_co_flush_to_os) {
        ret = drv->bdrv_co_flush_to_os(bs);
        if (ret < 0) {
            return ret;
        }
    }
    if (bs->open_flags & BDRV_O_NO_FLUSH) {
        return flush_children(bs); /* they have inherited no-flush */
    }
    event_to_file(bs, BDRV_EVENT_FLUSH_TO_DISK);
    if (!drv->bdrv_co_flush_to_disk) {
        return flush_children(bs);
    }
    ret = drv->bdrv_co_flush_to_disk(bs);
    return ret < 0 ? ret : 0;
}

/* Called with flush_lock held. */
static int coroutine_fn join_round_locked(BdrvIoState *io)
{
    FlushMember self = { .next = io->next_round->members };

    io->next_round->members = &self;
    while (!self.done) {
        co_queue_wait(&io->flush_joiners, &io->flush_lock);
    }
    return self.ret;
}

/* Called with flush_lock held: wait for the running flush as the leader of the next round. */
static void coroutine_fn lead_round_locked(BdrvIoState *io, struct BdrvFlushRound *round)
{
    if (io->flush_running) {
        io->next_round = round;
        while (io->flush_running) {
            co_queue_wait(&io->flush_leader, &io->flush_lock);
        }
        io->next_round = NULL;
    }
    io->flush_running = true;
}

/* Called with flush_lock held. */
static void finish_round_locked(BdrvIoState *io, struct BdrvFlushRound *round, int ret)
{
    io->flush_running = false;
    for (FlushMember *member = round->members; member; member = member->next) {
        member->ret = ret;
        member->done = true;
    }
    if (round->members) {
        co_queue_wake_all(&io->flush_joiners);
    }
    co_queue_wake_one(&io->flush_leader);
}

static int coroutine_fn flush_node(BlockDriverState *bs)
{
    BdrvIoState *io = bdrv_io(bs);
    struct BdrvFlushRound round = { 0 };
    uint64_t generation;
    int ret = 0;

    event_to_file(bs, BDRV_EVENT_FLUSH_TO_OS); /* also if there is nothing to flush */
    generation = atomic_load(&io->write_gen);
    if (generation == atomic_load(&io->flushed_gen) || (bs->read_only && generation == BDRV_FIRST_GEN)) {
        return 0;
    }
    pthread_mutex_lock(&io->flush_lock);
    if (io->next_round) {
        ret = join_round_locked(io);
        pthread_mutex_unlock(&io->flush_lock);
        return ret;
    }
    lead_round_locked(io, &round);
    generation = atomic_load(&io->write_gen);
    if (generation != atomic_load(&io->flushed_gen)) {
        atomic_store(&io->captured_gen, generation);
        pthread_mutex_unlock(&io->flush_lock);
        ret = flush_now(bs);
        pthread_mutex_lock(&io->flush_lock);
        if (ret >= 0) {
            atomic_store(&io->flushed_gen, generation);
        }
    }
    finish_round_locked(io, &round, ret);
    pthread_mutex_unlock(&io->flush_lock);
    return ret;
}

int coroutine_fn bdrv_flush_node(BlockDriverState *bs)
{
    BdrvStats *stats = bdrv_stats(bs);

    if (G_LIKELY(!stats)) {
        return flush_node(bs);
    }
    int64_t start = bdrv_stats_begin();
    return bdrv_stats_end(stats, BDRV_STAT_FLUSH, 0, start, flush_node(bs));
}

int coroutine_fn bdrv_co_flush(BdrvChild *child)
{
    return bdrv_flush_node(child->bs);
}
