/* SPDX-License-Identifier: MIT */
/*
 * Writes. What is already allocated to this image alone is overwritten in place. The rest goes the
 * long way: reserve the guest range, look again, allocate, write data with what surrounds it, publish
 * the new entries, drop the old clusters. Whatever fails before publishing leaves the guest's view as
 * it was.
 */

#include <errno.h>

#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/cow.h"
#include "drivers/qcow2/crypto.h"
#include "drivers/qcow2/fanout.h"
#include "drivers/qcow2/inflight.h"
#include "drivers/qcow2/map.h"

/* A write in progress: what is left of it. */
typedef struct WriteState {
    uint64_t offset, bytes;
    const BdrvIov *iov;
    size_t iov_offset;
} WriteState;

static void advance(WriteState *state, uint64_t bytes)
{
    state->offset += bytes;
    state->iov_offset += bytes;
    state->bytes -= bytes;
}

static int coroutine_fn write_in_place(BlockDriverState *bs, WriteState *state, const Qcow2Extent *extent)
{
    int ret = qcow2_check_data_write(bs, extent->host_offset, extent->bytes);
    if (G_LIKELY(ret >= 0)) {
        bdrv_debug_event(bs, BDRV_EVENT_WRITE_AIO);
        ret = qcow2_write_data(bs, state->offset, extent->host_offset, extent->bytes, state->iov, state->iov_offset);
    }
    if (ret >= 0) {
        advance(state, extent->bytes);
    }
    return ret;
}

static int coroutine_fn publish_run(BlockDriverState *bs, const Qcow2RunWrite *write)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    const Qcow2AllocRun *run = write->run;
    Qcow2RawEntry entries[QCOW2_RUN_MAX];
    for (unsigned i = 0; i < run->count; i++) {
        uint64_t in_run = (uint64_t)i << g->cluster_bits;
        uint32_t written = qcow2_touched(g, run->first_offset + in_run, write->offset, write->offset + write->bytes);
        entries[i] = qcow2_raw_written(run->entries[i], write->host_offset + in_run, written, g);
    }
    int ret = qcow2_l2_publish(bs, run->first_offset, entries, run->count, NULL);
    if (ret >= 0 && !run->reuse) {
        qcow2_drop_entries(bs, run->entries, run->count, QCOW2_DISCARD_NEVER);
    }
    return ret;
}

/* The run is reserved and planned. Writes the part of the request that lies in it. */
static int coroutine_fn write_run(BlockDriverState *bs, WriteState *state, Qcow2AllocRun *run)
{
    unsigned bits = qcow2_state(bs)->geometry.cluster_bits;
    Qcow2Allocation space = { .host_offset = run->reuse_host, .count = run->count };
    int ret = qcow2_l2_prepare(bs, run->first_offset);

    if (ret >= 0 && !run->reuse) {
        ret = qcow2_alloc_clusters(bs, 0, run->count, &space);
    }
    if (ret < 0) {
        return ret;
    }
    run->count = (unsigned)space.count;
    uint64_t run_end = run->first_offset + ((uint64_t)run->count << bits);
    Qcow2RunWrite write = {
        .run = run,
        .offset = state->offset,
        .bytes = MIN(state->bytes, run_end - state->offset),
        .iov = state->iov,
        .iov_offset = state->iov_offset,
        .host_offset = space.host_offset,
        .reads_zero = space.reads_zero && !qcow2_state(bs)->crypto,
    };
    ret = qcow2_cow_write(bs, &write);
    if (ret >= 0) {
        ret = publish_run(bs, &write);
    }
    if (ret < 0) {
        if (!run->reuse) {
            qcow2_release_clusters(bs, space.host_offset, space.count);
        }
        return ret;
    }
    advance(state, write.bytes);
    return 0;
}

/* Where the allocating step that begins at @offset ends: it stays in one slice. */
static uint64_t alloc_step_end(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint64_t mask = g->cluster_size - 1, begin = offset & ~mask;
    uint64_t end = MIN((offset + bytes + mask) & ~mask, qcow2_l2_slice_end(bs, begin));
    return MIN(end, begin + ((uint64_t)QCOW2_RUN_MAX << g->cluster_bits));
}

/* One allocating step; advances by 0 if it had to wait or the mapping has changed: the caller maps again. */
static int coroutine_fn write_allocating(BlockDriverState *bs, WriteState *state)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint64_t begin = state->offset & ~(uint64_t)(g->cluster_size - 1);
    uint64_t end = alloc_step_end(bs, state->offset, state->bytes);
    Qcow2InflightRange range;
    Qcow2AllocRun run;

    if (!qcow2_inflight_begin(bs, &range, begin, end)) {
        return 0;
    }
    run.first_offset = begin;
    run.count = (unsigned)((end - begin) >> g->cluster_bits);
    int ret = qcow2_plan_alloc(bs, &run, state->offset, state->offset + state->bytes);
    if (ret >= 0 && run.count) {
        ret = write_run(bs, state, &run);
    }
    qcow2_inflight_end(bs, &range);
    return ret;
}

static bool is_in_place(const Qcow2Extent *extent)
{
    return extent->kind == QCOW2_CLUSTER_NORMAL && extent->copied;
}

static int coroutine_fn write_step(BlockDriverState *bs, WriteState *state)
{
    Qcow2Extent extent;
    int ret = qcow2_map(bs, state->offset, state->bytes, QCOW2_MAP_BY_COPIED, &extent);

    if (G_UNLIKELY(ret < 0)) {
        return ret;
    }
    return is_in_place(&extent) ? write_in_place(bs, state, &extent) : write_allocating(bs, state);
}

/* What all parts of a write share. */
typedef struct WriteWork {
    BlockDriverState *bs;
    const BdrvIov *iov;
    uint64_t offset; /* guest; of the first byte in the buffer */
    size_t iov_offset;
} WriteWork;

/* Step by step, in an epoch of its own. */
static int coroutine_fn write_part(void *opaque, uint64_t offset, uint64_t bytes)
{
    const WriteWork *work = opaque;
    Qcow2Meta *meta = qcow2_state(work->bs)->meta;
    WriteState state = { offset, bytes, work->iov, work->iov_offset + (offset - work->offset) };
    unsigned epoch = qcow2_epoch_enter(meta);
    bool settled = false;
    int ret = 0;

    while (state.bytes && ret >= 0) {
        ret = write_step(work->bs, &state);
        if (G_UNLIKELY(ret == -ENOSPC) && !settled) {
            /* Clusters may wait in limbo, for this request among others. */
            qcow2_epoch_leave(meta, epoch);
            ret = qcow2_meta_settle(work->bs) < 0 ? -ENOSPC : 0;
            epoch = qcow2_epoch_enter(meta);
            settled = true;
        }
    }
    qcow2_epoch_leave(meta, epoch);
    return ret < 0 ? ret : 0;
}

/* The bytes from @offset on that one step takes: an extent in place, or what is to be allocated in front of one. */
static int coroutine_fn measure_step(BlockDriverState *bs, uint64_t offset, uint64_t bytes, uint64_t *step)
{
    unsigned epoch = qcow2_epoch_enter(qcow2_state(bs)->meta);
    uint64_t end = offset + bytes, at = offset;
    bool in_place = false;
    int ret = 0;

    while (at < end && !in_place && ret >= 0) {
        Qcow2Extent extent;
        ret = qcow2_map(bs, at, end - at, QCOW2_MAP_BY_COPIED, &extent);
        in_place = ret >= 0 && is_in_place(&extent);
        if (ret >= 0 && !(in_place && at > offset)) {
            end = in_place ? end : MIN(end, alloc_step_end(bs, offset, bytes));
            at = MIN(at + extent.bytes, end);
        }
    }
    qcow2_epoch_leave(qcow2_state(bs)->meta, epoch);
    *step = at - offset;
    return ret;
}

/* Several steps: side by side. The mapping tells where to cut; each part looks it up again. */
static int coroutine_fn write_parts(WriteWork *work, uint64_t offset, uint64_t bytes)
{
    Qcow2Fanout fanout;
    int ret = 0;

    qcow2_fanout_init(&fanout, write_part, work);
    while (bytes && ret >= 0) {
        uint64_t step;
        ret = measure_step(work->bs, offset, bytes, &step);
        if (ret >= 0) {
            ret = step < bytes ? qcow2_fanout_start(&fanout, offset, step) : write_part(work, offset, step);
            offset += step;
            bytes -= step;
        }
    }
    int parts_ret = qcow2_fanout_finish(&fanout);
    return ret < 0 ? ret : parts_ret;
}

int coroutine_fn qcow2_write(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset)
{
    Qcow2State *s = qcow2_state(bs);
    WriteState state = { (uint64_t)offset, (uint64_t)bytes, iov, iov_offset };
    WriteWork work = { .bs = bs, .iov = iov, .offset = (uint64_t)offset, .iov_offset = iov_offset };
    Qcow2Extent extent;

    if (G_UNLIKELY(!s->meta || atomic_load_explicit(&s->corrupt, memory_order_relaxed))) {
        return -EIO;
    }
    unsigned epoch = qcow2_epoch_enter(s->meta);
    int ret = qcow2_map(bs, state.offset, state.bytes, QCOW2_MAP_BY_COPIED, &extent);
    bool whole = ret >= 0 && is_in_place(&extent) && extent.bytes == state.bytes;
    if (G_LIKELY(whole)) {
        ret = write_in_place(bs, &state, &extent);
    }
    qcow2_epoch_leave(s->meta, epoch);
    if (ret >= 0 && !whole) {
        ret = write_parts(&work, state.offset, state.bytes);
    }
    return ret < 0 ? ret : 0;
}

int coroutine_fn qcow2_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                 size_t iov_offset, BdrvRequestFlags flags)
{
    int ret = qcow2_note_change(bs, offset, bytes);
    return ret < 0 ? ret : qcow2_write(bs, offset, bytes, iov, iov_offset);
}
