/* SPDX-License-Identifier: MIT */
/*
 * Write-zeroes: set the zero flag (version 3) or forget the cluster (version 2 without backing file).
 * A cluster covered in part is only done if the rest of it reads as zeroes; otherwise the core writes
 * a buffer instead.
 */

#include <errno.h>

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/cow.h"
#include "drivers/qcow2/inflight.h"
#include "drivers/qcow2/map.h"
#include "drivers/qcow2/remap.h"

/* Reserved and inside one slice: change what is to be changed. */
static int coroutine_fn remap_run(BlockDriverState *bs, uint64_t begin, uint64_t end, uint64_t first, unsigned count,
                                  BdrvRequestFlags flags, Qcow2Remapper *remapper)
{
    uint32_t cluster_size = qcow2_state(bs)->geometry.cluster_size;
    uint64_t disk_end = (uint64_t)atomic_load(&bs->length);
    uint64_t old[QCOW2_RUN_MAX], new[QCOW2_RUN_MAX], dropped[QCOW2_RUN_MAX];
    unsigned drops = 0, changes = 0;
    int n = qcow2_l2_read(bs, first, old, count);

    for (unsigned i = 0; i < count && n >= 0; i++) {
        uint64_t at = first + (uint64_t)i * cluster_size, at_end = at + cluster_size;
        bool whole = begin <= at && (end >= at_end || end >= disk_end);
        Qcow2L2Entry entry;
        n = qcow2_decode_entry(bs, at, old[i], &entry);
        new[i] = old[i];
        if (n >= 0) {
            n = remapper(bs, at, cluster_size, whole, flags, &new[i]);
        }
        if (new[i] == old[i]) {
            continue;
        }
        changes++;
        if ((new[i] & QCOW2_OFFSET_MASK) != (old[i] & QCOW2_OFFSET_MASK) || (old[i] & QCOW2_COMPRESSED)) {
            dropped[drops++] = old[i];
        }
    }
    if (n >= 0 && changes) {
        n = qcow2_l2_publish(bs, first, new, count, NULL);
        if (n >= 0) {
            qcow2_drop_entries(bs, dropped, drops, true);
        }
    }
    return n < 0 ? n : 0;
}

int coroutine_fn qcow2_remap(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags,
                             Qcow2Remapper *remapper)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t mask = s->geometry.cluster_size - 1;
    uint64_t begin = (uint64_t)offset, end = begin + (uint64_t)bytes;
    bool settled = false;
    int ret = 0;

    if (!s->meta || atomic_load_explicit(&s->corrupt, memory_order_relaxed)) {
        return -EIO;
    }
    unsigned epoch = qcow2_epoch_enter(s->meta);
    for (uint64_t at = begin & ~mask; at < end && ret >= 0;) {
        uint64_t run_end = MIN((end + mask) & ~mask, qcow2_l2_slice_end(bs, at));
        Qcow2InflightRange range;
        run_end = MIN(run_end, at + ((uint64_t)QCOW2_RUN_MAX << s->geometry.cluster_bits));
        if (!qcow2_inflight_begin(bs, &range, at, run_end)) {
            continue;
        }
        ret = remap_run(bs, begin, end, at, (unsigned)((run_end - at) >> s->geometry.cluster_bits), flags, remapper);
        qcow2_inflight_end(bs, &range);
        if (G_UNLIKELY(ret == -ENOSPC) && !settled) {
            /* A new L2 table found no space; clusters may wait in limbo. */
            qcow2_epoch_leave(s->meta, epoch);
            ret = qcow2_meta_settle(bs) < 0 ? -ENOSPC : 0;
            epoch = qcow2_epoch_enter(s->meta);
            settled = true;
            continue;
        }
        at = run_end;
    }
    qcow2_epoch_leave(s->meta, epoch);
    return ret;
}

static int zero_cluster(BlockDriverState *bs, uint64_t guest_offset, uint64_t bytes, bool whole,
                        BdrvRequestFlags flags, uint64_t *entry)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    Qcow2L2Entry old = qcow2_l2_entry_decode(*entry, g->version, g->cluster_bits);

    if (!whole && !qcow2_reads_zero(bs, *entry, guest_offset, bytes)) {
        return -ENOTSUP;
    }
    if (g->version < 3) {
        if (bs->backing) {
            return -ENOTSUP;
        }
        *entry = 0;
    } else if (old.copied && old.host_offset && old.kind != QCOW2_CLUSTER_COMPRESSED &&
               !(flags & BDRV_REQ_MAY_UNMAP)) {
        *entry = old.host_offset | QCOW2_COPIED | QCOW2_L2_ZERO;
    } else {
        *entry = QCOW2_L2_ZERO;
    }
    return 0;
}

int coroutine_fn qcow2_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    return qcow2_remap(bs, offset, bytes, flags, zero_cluster);
}
