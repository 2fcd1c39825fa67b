/* SPDX-License-Identifier: MIT */
/*
 * The allocator. A cluster is free if its count in the cached slice is 0 and it is not in the busy
 * set (dropped, but not yet safe to use again). Taking it sets the count to 1 under the same lock,
 * so no cluster is given out twice. Runs end with their refcount slice.
 */

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/meta/meta_int.h"

static bool has_no_owner_locked(Qcow2Meta *meta, const Qcow2Slice *slice, uint64_t cluster)
{
    uint64_t index = qcow2_refslice_index(meta, cluster);
    return qcow2_refcount_get(slice->bytes, index, meta->s->geometry.refcount_order) == 0 &&
           !qcow2_cluster_set_has_any(&meta->busy, cluster, 1);
}

static bool is_free_locked(Qcow2Meta *meta, const Qcow2Slice *slice, uint64_t cluster)
{
    return has_no_owner_locked(meta, slice, cluster) && !qcow2_cluster_set_has_any(&meta->metadata, cluster, 1);
}

/*
 * Metadata that nobody counts: what else the counts leave out nobody knows. What only a header in doubt leads to is
 * rightly without a count.
 */
static bool is_uncounted_metadata_locked(Qcow2Meta *meta, const Qcow2Slice *slice, uint64_t cluster)
{
    return has_no_owner_locked(meta, slice, cluster) && qcow2_cluster_set_has_any(&meta->metadata, cluster, 1) &&
           cluster - meta->doubtful_first >= meta->doubtful_count;
}

/* Take up to @count free clusters from @cluster on, which is free. */
static uint64_t take_run_locked(Qcow2Meta *meta, Qcow2Slice *slice, uint64_t cluster, uint64_t count)
{
    uint64_t first_index = qcow2_refslice_index(meta, cluster);
    uint64_t max = MIN(count, qcow2_refslice_entries(meta) - first_index), n = 0;

    while (n < max && is_free_locked(meta, slice, cluster + n)) {
        qcow2_refcount_set(slice->bytes, first_index + n, meta->s->geometry.refcount_order, 1);
        n++;
    }
    qcow2_cache_dirty_locked(&meta->rc, slice);
    return n;
}

/* First cluster of @slice at or after @cluster that is free or lacks its count, or the first one after the slice. */
static uint64_t scan_slice_locked(Qcow2Meta *meta, const Qcow2Slice *slice, uint64_t cluster)
{
    uint64_t end = cluster - qcow2_refslice_index(meta, cluster) + qcow2_refslice_entries(meta);
    while (cluster < end && !is_free_locked(meta, slice, cluster) &&
           !is_uncounted_metadata_locked(meta, slice, cluster)) {
        cluster++;
    }
    return cluster;
}

static bool in_slice(const Qcow2Meta *meta, uint64_t a, uint64_t b)
{
    return a / qcow2_refslice_entries(meta) == b / qcow2_refslice_entries(meta);
}

static int coroutine_fn grow_for_locked(Qcow2Meta *meta, uint64_t cluster)
{
    pthread_mutex_unlock(&meta->rc.lock);
    int ret = qcow2_grow_refblock(meta, cluster);
    pthread_mutex_lock(&meta->rc.lock);
    return ret;
}

/* An image with such counts would have its data overwritten by what is allocated. */
static int coroutine_fn refuse_locked(Qcow2Meta *meta, uint64_t cluster)
{
    pthread_mutex_unlock(&meta->rc.lock);
    qcow2_stop_uncounted(meta, cluster);
    pthread_mutex_lock(&meta->rc.lock);
    return -EIO;
}

int coroutine_fn qcow2_take_run_locked(Qcow2Meta *meta, uint64_t cluster, uint64_t count, bool exact, uint64_t *first,
                                       uint64_t *n)
{
    uint64_t limit = QCOW2_HOST_OFFSET_MAX >> meta->s->geometry.cluster_bits;
    while (cluster < limit) {
        Qcow2Slice *slice;
        int ret = qcow2_refslice_get_locked(meta, cluster, true, &slice);
        if (ret >= 0 && !slice) {
            ret = grow_for_locked(meta, cluster);
            if (ret >= 0) {
                continue;
            }
        }
        if (ret < 0) {
            return ret;
        }
        uint64_t candidate = scan_slice_locked(meta, slice, cluster);
        if (candidate != cluster && exact) {
            *n = 0;
            return 0;
        }
        if (in_slice(meta, cluster, candidate)) {
            if (is_uncounted_metadata_locked(meta, slice, candidate)) {
                return refuse_locked(meta, candidate);
            }
            *n = take_run_locked(meta, slice, candidate, count);
            *first = candidate;
            return 0;
        }
        cluster = candidate;
    }
    return -ENOSPC;
}

int coroutine_fn qcow2_take_first_locked(Qcow2Meta *meta, uint64_t count, uint64_t *first, uint64_t *n)
{
    uint64_t from = meta->free_hint, frees = meta->frees;
    int ret = qcow2_take_run_locked(meta, from, count, false, first, n);

    if (ret >= 0 && meta->free_hint == from && meta->frees == frees) {
        meta->free_hint = *first + *n;
    }
    return ret;
}

static bool stir_needed(Qcow2Meta *meta)
{
    return qcow2_cache_crowded_locked(&meta->rc);
}

void qcow2_after_refcount_change(Qcow2Meta *meta, bool crowded)
{
    qcow2_background_stir(meta);
    if (crowded) {
        qcow2_background_commit(meta);
    }
}

int coroutine_fn qcow2_alloc_clusters(BlockDriverState *bs, uint64_t host_hint, uint64_t count, Qcow2Allocation *out)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    unsigned bits = meta->s->geometry.cluster_bits;
    uint64_t first = 0, n = 0;
    int ret = 0;

    if (atomic_load_explicit(&meta->s->corrupt, memory_order_relaxed)) {
        return -EIO;
    }
    bdrv_debug_event(bs, BDRV_EVENT_CLUSTER_ALLOC);
    co_maybe_yield();
    pthread_mutex_lock(&meta->rc.lock);
    if (host_hint) {
        ret = qcow2_take_run_locked(meta, host_hint >> bits, count, true, &first, &n);
    }
    if (ret >= 0 && n == 0) {
        ret = qcow2_take_first_locked(meta, count, &first, &n);
    }
    if (ret >= 0) {
        out->host_offset = first << bits;
        out->count = n;
        out->reads_zero = first >= meta->high_water;
        meta->high_water = MAX(meta->high_water, first + n);
    }
    bool crowded = stir_needed(meta);
    pthread_mutex_unlock(&meta->rc.lock);
    qcow2_after_refcount_change(meta, crowded);
    return ret;
}

/* One more run right behind what there is; 0 if the next cluster is taken. */
static int coroutine_fn extend(Qcow2Meta *meta, uint64_t next, uint64_t count, uint64_t *n)
{
    uint64_t first;
    pthread_mutex_lock(&meta->rc.lock);
    int ret = qcow2_take_run_locked(meta, next, count, true, &first, n);
    if (ret >= 0) {
        meta->high_water = MAX(meta->high_water, next + *n);
    }
    bool crowded = stir_needed(meta);
    pthread_mutex_unlock(&meta->rc.lock);
    qcow2_after_refcount_change(meta, crowded);
    return ret;
}

int coroutine_fn qcow2_alloc_contiguous(BlockDriverState *bs, uint64_t count, uint64_t *host_offset)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    unsigned bits = meta->s->geometry.cluster_bits;
    uint64_t from = 0, got = 0, first = 0;

    if (atomic_load_explicit(&meta->s->corrupt, memory_order_relaxed)) {
        return -EIO;
    }
    bdrv_debug_event(bs, BDRV_EVENT_CLUSTER_ALLOC);
    if (count >= UINT64_C(1) << meta->s->geometry.refblock_bits) {
        /* Blocks lie in the ranges they describe: no gap between two of them is long enough. */
        int ret = qcow2_alloc_area(meta, count, &first);
        if (ret >= 0) {
            *host_offset = first << bits;
        }
        return ret;
    }
    while (got < count) {
        uint64_t n = 0;
        int ret;
        if (got == 0) {
            pthread_mutex_lock(&meta->rc.lock);
            ret = qcow2_take_run_locked(meta, MAX(from, meta->free_hint), count, false, &first, &n);
            if (ret >= 0) {
                meta->high_water = MAX(meta->high_water, first + n);
            }
            pthread_mutex_unlock(&meta->rc.lock);
        } else {
            ret = extend(meta, first + got, count - got, &n);
        }
        if (ret < 0 || n == 0) {
            if (got) {
                qcow2_release_clusters(bs, first << bits, got);
            }
            if (ret < 0) {
                return ret;
            }
            from = first + got + 1;
            got = 0;
            continue;
        }
        got += n;
    }
    qcow2_background_stir(meta);
    *host_offset = first << bits;
    return 0;
}

void qcow2_unmap_free_locked(Qcow2Meta *meta, uint64_t first, uint64_t count)
{
    qcow2_cluster_set_remove(&meta->metadata, first, count);
    meta->free_hint = MIN(meta->free_hint, first);
    meta->frees++;
}

void coroutine_fn qcow2_release_clusters(BlockDriverState *bs, uint64_t host_offset, uint64_t count)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t first = host_offset >> g->cluster_bits;

    bdrv_debug_event(bs, BDRV_EVENT_CLUSTER_FREE);
    pthread_mutex_lock(&meta->rc.lock);
    for (uint64_t i = 0; i < count; i++) {
        Qcow2Slice *slice;
        int ret = qcow2_refslice_get_locked(meta, first + i, true, &slice);
        if (ret < 0 || !slice) {
            continue; /* leaks: the worst that may happen */
        }
        qcow2_refcount_set(slice->bytes, qcow2_refslice_index(meta, first + i), g->refcount_order, 0);
        qcow2_cache_dirty_locked(&meta->rc, slice);
        qcow2_unmap_free_locked(meta, first + i, 1);
        qcow2_pack_leave_locked(meta, first + i);
    }
    pthread_mutex_unlock(&meta->rc.lock);
    qcow2_background_stir(meta);
}
