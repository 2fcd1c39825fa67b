/* SPDX-License-Identifier: MIT */
/*
 * Space for compressed clusters: they are packed one behind the other, byte by byte, so that neighbours
 * share host clusters and even sectors. A host cluster's refcount is the number of compressed clusters
 * that touch it.
 *
 * All there is to remember is where the free bytes at the end of the last host cluster begin (pack_at).
 * They are only ever appended to, so what is stored there already is not written again. The cluster is
 * left alone as soon as its count is at the maximum, and when it has lost its last reference: then it
 * may become anything.
 */

#include <errno.h>

#include "drivers/qcow2/compressed.h"
#include "drivers/qcow2/meta/meta_int.h"

void qcow2_pack_leave_locked(Qcow2Meta *meta, uint64_t cluster)
{
    if (meta->pack_at >> meta->s->geometry.cluster_bits == cluster) {
        meta->pack_at = 0;
    }
}

void qcow2_pack_stop(Qcow2Meta *meta)
{
    pthread_mutex_lock(&meta->rc.lock);
    meta->pack_at = 0;
    pthread_mutex_unlock(&meta->rc.lock);
}

/* One reference less; leaks if the count cannot be had. rc.lock held, given up meanwhile. */
static void coroutine_fn unref_locked(Qcow2Meta *meta, uint64_t cluster)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t index = qcow2_refslice_index(meta, cluster);
    Qcow2Slice *slice;

    if (qcow2_refslice_get_locked(meta, cluster, true, &slice) < 0 || !slice) {
        return;
    }
    uint64_t count = qcow2_refcount_get(slice->bytes, index, g->refcount_order);
    if (count == 0) {
        return; /* a damaged image: somebody took one too many */
    }
    qcow2_refcount_set(slice->bytes, index, g->refcount_order, count - 1);
    qcow2_cache_dirty_locked(&meta->rc, slice);
    if (count == 1) {
        qcow2_pack_leave_locked(meta, cluster);
        qcow2_compressed_forget(meta->bs, cluster << g->cluster_bits, g->cluster_size);
        meta->free_hint = MIN(meta->free_hint, cluster);
        meta->frees++;
    }
}

/* A reference to the cluster that was packed into last, for the bytes at @at. false: it takes no more. */
static bool coroutine_fn ref_last_locked(Qcow2Meta *meta, uint64_t at, int *ret)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t cluster = at >> g->cluster_bits, index = qcow2_refslice_index(meta, cluster);
    Qcow2Slice *slice;

    *ret = qcow2_refslice_get_locked(meta, cluster, true, &slice);
    if (*ret < 0 || meta->pack_at != at) {
        return false; /* the lock was given up, and the cluster lost */
    }
    uint64_t count = slice ? qcow2_refcount_get(slice->bytes, index, g->refcount_order) : 0;
    if (count == 0 || count >= g->refcount_max) {
        meta->pack_at = 0;
        return false;
    }
    qcow2_refcount_set(slice->bytes, index, g->refcount_order, count + 1);
    qcow2_cache_dirty_locked(&meta->rc, slice);
    return true;
}

/* Take what is free in the last cluster, and the next cluster if that is not enough. Sets *@done. */
static int coroutine_fn append_locked(Qcow2Meta *meta, uint32_t bytes, uint64_t *host_offset, bool *done)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t at = meta->pack_at, next = (at >> g->cluster_bits) + 1, room = (next << g->cluster_bits) - at;
    uint64_t first, n = 0;
    int ret = 0;

    if (at == 0 || !ref_last_locked(meta, at, &ret)) {
        return ret;
    }
    meta->pack_at = bytes < room ? at + bytes : 0;
    if (bytes > room) {
        ret = qcow2_take_run_locked(meta, next, 1, true, &first, &n);
        if (ret < 0 || n == 0) {
            unref_locked(meta, next - 1);
            return ret;
        }
        meta->high_water = MAX(meta->high_water, next + 1);
        meta->pack_at = at + bytes;
    }
    *host_offset = at;
    *done = true;
    return 0;
}

static int coroutine_fn start_cluster_locked(Qcow2Meta *meta, uint32_t bytes, uint64_t *host_offset)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t first, n;
    int ret = qcow2_take_first_locked(meta, 1, &first, &n);

    if (ret < 0) {
        return ret;
    }
    meta->high_water = MAX(meta->high_water, first + 1);
    *host_offset = first << g->cluster_bits;
    meta->pack_at = bytes < g->cluster_size ? *host_offset + bytes : 0;
    return 0;
}

int coroutine_fn qcow2_alloc_packed(BlockDriverState *bs, uint32_t bytes, uint64_t *host_offset)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    bool done = false;

    if (atomic_load_explicit(&meta->s->corrupt, memory_order_relaxed)) {
        return -EIO;
    }
    bdrv_debug_event(bs, BDRV_EVENT_CLUSTER_ALLOC_BYTES);
    co_mutex_lock(&meta->pack_lock);
    pthread_mutex_lock(&meta->rc.lock);
    int ret = append_locked(meta, bytes, host_offset, &done);
    if (ret >= 0 && !done) {
        ret = start_cluster_locked(meta, bytes, host_offset);
    }
    bool crowded = qcow2_cache_crowded_locked(&meta->rc);
    pthread_mutex_unlock(&meta->rc.lock);
    co_mutex_unlock(&meta->pack_lock);
    qcow2_after_refcount_change(meta, crowded);
    return ret;
}

void coroutine_fn qcow2_release_packed(BlockDriverState *bs, uint64_t host_offset, uint32_t bytes)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    unsigned bits = meta->s->geometry.cluster_bits;
    uint64_t last = (host_offset + bytes - 1) >> bits;

    bdrv_debug_event(bs, BDRV_EVENT_CLUSTER_FREE);
    pthread_mutex_lock(&meta->rc.lock);
    for (uint64_t cluster = host_offset >> bits; cluster <= last; cluster++) {
        unref_locked(meta, cluster);
    }
    pthread_mutex_unlock(&meta->rc.lock);
    qcow2_background_stir(meta);
}
