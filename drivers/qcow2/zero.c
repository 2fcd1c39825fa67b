/* SPDX-License-Identifier: MIT */
/*
 * Write-zeroes: set the zero flag (version 3) or forget the cluster (version 2 without backing file).
 * A subcluster covered in part (without extended L2 entries: a cluster) is only done if the rest of it reads
 * as zeroes, and a part of a compressed cluster never; otherwise the core writes a buffer instead.
 */

#include <errno.h>

#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/cow.h"
#include "drivers/qcow2/data_file.h"
#include "drivers/qcow2/inflight.h"
#include "drivers/qcow2/map.h"
#include "drivers/qcow2/remap.h"

static bool has_moved(Qcow2RawEntry old, Qcow2RawEntry new)
{
    return (new.entry & QCOW2_OFFSET_MASK) != (old.entry & QCOW2_OFFSET_MASK) || (old.entry & QCOW2_COMPRESSED);
}

/*
 * discard-no-unref, or a data file: the space of clusters that hold no data any more goes back to the host now, with
 * the range still reserved, for whoever writes there next fills it again. The entries need not be durable: until then
 * a crash may leave either, and zeroes are what the guest has written. After a discard it does not care.
 */
static void coroutine_fn empty_space(BlockDriverState *bs, const uint64_t *clusters, unsigned count, bool discard)
{
    uint32_t cluster_size = qcow2_state(bs)->geometry.cluster_size;
    BdrvChild *file = qcow2_data_child(bs);
    uint64_t length = (uint64_t)atomic_load(&file->bs->length);

    for (unsigned i = 0, n; i < count; i += n) {
        uint64_t begin = clusters[i];
        n = 1;
        while (i + n < count && clusters[i + n] == begin + (uint64_t)n * cluster_size) {
            n++;
        }
        uint64_t end = MIN(begin + (uint64_t)n * cluster_size, length);
        if (begin < end && discard) { /* both are hints */
            bdrv_co_pdiscard(file, (int64_t)begin, (int64_t)(end - begin));
        } else if (begin < end) {
            bdrv_co_pwrite_zeroes(file, (int64_t)begin, (int64_t)(end - begin),
                                  BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK);
        }
    }
}

/* Whether a cluster, no longer mapped by @old, is all zeroes now and its space, where nobody else goes, held data. */
static bool is_emptied(BlockDriverState *bs, const Qcow2L2Entry *old, Qcow2RawEntry new)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    Qcow2L2Entry entry = qcow2_l2_entry_decode(new, g);
    bool keeps = entry.placed && old->allocated, leaves = g->data_file && old->placed && !entry.placed;
    return entry.kind == QCOW2_CLUSTER_ZERO && (keeps || leaves);
}

/* Reserved and inside one slice: change what is to be changed. */
static int coroutine_fn remap_run(BlockDriverState *bs, uint64_t begin, uint64_t end, uint64_t first, unsigned count,
                                  const Qcow2Remap *how)
{
    const Qcow2State *s = qcow2_state(bs);
    uint32_t cluster_size = s->geometry.cluster_size;
    uint64_t disk_end = (uint64_t)atomic_load(&bs->length);
    bool may_empty = s->discard.pass[QCOW2_DISCARD_REQUEST] && (how->flags & BDRV_REQ_MAY_UNMAP);
    Qcow2RawEntry old[QCOW2_RUN_MAX], new[QCOW2_RUN_MAX];
    uint64_t emptied[QCOW2_RUN_MAX];
    unsigned drops = 0, empties = 0, changes = 0;
    int n = qcow2_l2_read(bs, first, old, count);

    for (unsigned i = 0; i < count && n >= 0; i++) {
        Qcow2RemapCluster c = { .guest_offset = first + (uint64_t)i * cluster_size, .flags = how->flags };
        c.begin = (uint32_t)(MAX(begin, c.guest_offset) - c.guest_offset);
        c.end = end >= disk_end ? cluster_size : (uint32_t)MIN(end - c.guest_offset, cluster_size);
        c.whole = c.begin == 0 && c.end == cluster_size;
        n = qcow2_decode_entry(bs, c.guest_offset, old[i], &c.old);
        new[i] = old[i];
        if (n >= 0) {
            n = how->cluster(bs, &c, &new[i]);
        }
        if (qcow2_raw_equal(new[i], old[i])) {
            continue;
        }
        changes++;
        if (has_moved(old[i], new[i]) && !s->geometry.data_file) {
            old[drops++] = old[i]; /* from here on those to be dropped */
        } else if (may_empty && is_emptied(bs, &c.old, new[i])) {
            emptied[empties++] = c.old.host_offset;
        }
    }
    if (n >= 0 && changes) {
        n = qcow2_l2_publish(bs, first, new, count, NULL);
        if (n >= 0) {
            qcow2_drop_entries(bs, old, drops, QCOW2_DISCARD_REQUEST);
            empty_space(bs, emptied, empties, how->is_discard);
        }
    }
    return n < 0 ? n : 0;
}

int coroutine_fn qcow2_remap(BlockDriverState *bs, int64_t offset, int64_t bytes, const Qcow2Remap *how)
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
        ret = remap_run(bs, begin, end, at, (unsigned)((run_end - at) >> s->geometry.cluster_bits), how);
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

/* The subclusters that can be made zero, those covered in part too; 0: some cannot. */
static uint32_t zero_mask(BlockDriverState *bs, const Qcow2RemapCluster *c)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint32_t in_subcluster = g->subcluster_size - 1;
    uint64_t first = c->guest_offset + (c->begin & ~in_subcluster), last = c->guest_offset + (c->end & ~in_subcluster);
    bool ok = (!(c->begin & in_subcluster) || qcow2_reads_zero(bs, &c->old, first, g->subcluster_size)) &&
              (!(c->end & in_subcluster) || qcow2_reads_zero(bs, &c->old, last, g->subcluster_size));
    return ok ? qcow2_touched(g, 0, c->begin, c->end) : 0;
}

static int zero_cluster(BlockDriverState *bs, const Qcow2RemapCluster *c, Qcow2RawEntry *raw)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    const Qcow2L2Entry *old = &c->old;
    uint32_t all = qcow2_subcluster_mask(0, g->subclusters), zero = zero_mask(bs, c);

    if (!zero) {
        return -ENOTSUP;
    }
    if (((zero | old->zero) & all) != all) { /* only with extended L2 entries */
        if (old->kind == QCOW2_CLUSTER_COMPRESSED) {
            return -ENOTSUP;
        }
        raw->bitmap = (uint64_t)(old->zero | zero) << 32 | (old->allocated & ~zero);
        return 0;
    }
    if (g->version >= 3) {
        bool keep = (!(c->flags & BDRV_REQ_MAY_UNMAP) || qcow2_state(bs)->discard.no_unref) && qcow2_has_own_space(old);
        *raw = qcow2_raw_zero(keep ? old->host_offset : 0, keep, g);
    } else if (!bs->backing) {
        *raw = (Qcow2RawEntry){ 0 };
    } else {
        return -ENOTSUP;
    }
    return 0;
}

int coroutine_fn qcow2_zero(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    Qcow2Remap how = { .cluster = zero_cluster, .flags = flags };
    if (qcow2_data_is_raw(qcow2_state(bs))) {
        return qcow2_data_zero(bs, offset, bytes, flags);
    }
    return qcow2_remap(bs, offset, bytes, &how);
}

int coroutine_fn qcow2_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    int ret = qcow2_note_change(bs, offset, bytes);
    return ret < 0 ? ret : qcow2_zero(bs, offset, bytes, flags);
}
