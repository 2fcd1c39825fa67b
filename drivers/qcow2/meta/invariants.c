/* SPDX-License-Identifier: MIT */
/*
 * What must hold after every commit, checked in builds with -Ddebug_invariants=true: a clean cached
 * slice is what the file holds, the counters agree with the flags, and nothing that is published or
 * in limbo could be allocated.
 */

#include <stdlib.h>
#include <string.h>

#include "drivers/qcow2/meta/meta_int.h"

static void must(bool condition)
{
    if (!condition) {
        abort(); /* a debug build: stop where it is first seen */
    }
}

static bool is_clean(const Qcow2Slice *slice)
{
    return !slice->dirty && !slice->committing;
}

/* commit_lock held: what is clean before and after the read was not changed between. */
static void coroutine_fn compare_slice(Qcow2Cache *cache, Qcow2Slice *slice, uint8_t *buf)
{
    pthread_mutex_lock(&cache->lock);
    uint64_t tag = atomic_load(&slice->tag);
    bool wanted = tag && is_clean(slice);
    pthread_mutex_unlock(&cache->lock);
    if (!wanted || bdrv_co_pread(cache->bs->file, (int64_t)tag, cache->slice_bytes, buf, 0) < 0) {
        return;
    }
    pthread_mutex_lock(&cache->lock);
    if (atomic_load(&slice->tag) == tag && is_clean(slice)) {
        for (uint32_t i = 0; i < cache->slice_bytes / sizeof(uint64_t); i++) {
            uint64_t word;
            memcpy(&word, buf + i * sizeof(word), sizeof(word));
            must(word == atomic_load_explicit(&slice->entries[i], memory_order_relaxed));
        }
    }
    pthread_mutex_unlock(&cache->lock);
}

static void check_counts(Qcow2Cache *cache)
{
    unsigned dirty = 0;
    pthread_mutex_lock(&cache->lock);
    for (unsigned i = 0; i < cache->count; i++) {
        dirty += cache->slices[i].dirty;
        must(!cache->slices[i].committing);
    }
    must(dirty == cache->dirty_count && cache->committing_count == 0);
    pthread_mutex_unlock(&cache->lock);
}

static void coroutine_fn check_cache(Qcow2Cache *cache, uint8_t *buf)
{
    check_counts(cache);
    for (unsigned i = 0; i < cache->count; i++) {
        compare_slice(cache, &cache->slices[i], buf);
    }
}

/* A host cluster that the cache knows as published must have a count, unless its block is not cached. */
static void check_published_locked(Qcow2Meta *meta, uint64_t raw)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    Qcow2L2Entry entry = qcow2_l2_entry_decode(raw, g->version, g->cluster_bits);
    uint64_t cluster = entry.host_offset >> g->cluster_bits, block_index = cluster >> g->refblock_bits;
    if (entry.kind != QCOW2_CLUSTER_NORMAL || block_index >= meta->reftable.count) {
        return;
    }
    uint64_t in_block = cluster & ((UINT64_C(1) << g->refblock_bits) - 1);
    uint64_t tag = (qcow2_table_get(&meta->reftable, block_index) & QCOW2_REFTABLE_OFFSET_MASK) +
                   in_block / qcow2_refslice_entries(meta) * meta->rc.slice_bytes;
    Qcow2Slice *slice = qcow2_cache_find_locked(&meta->rc, tag);
    if (slice) {
        must(qcow2_refcount_get(slice->bytes, qcow2_refslice_index(meta, cluster), g->refcount_order) > 0);
        must(!qcow2_cluster_set_has_any(&meta->busy, cluster, 1));
    }
}

static void check_published(Qcow2Meta *meta)
{
    pthread_mutex_lock(&meta->rc.lock);
    pthread_mutex_lock(&meta->l2.lock);
    for (unsigned i = 0; i < meta->l2.count; i++) {
        const Qcow2Slice *slice = &meta->l2.slices[i];
        /* A clean slice of a freed table may linger; a dirty one is in use. */
        for (uint32_t e = 0; slice->dirty && e < meta->l2.slice_bytes / sizeof(uint64_t); e++) {
            check_published_locked(meta, GUINT64_FROM_BE(atomic_load(&slice->entries[e])));
        }
    }
    pthread_mutex_unlock(&meta->l2.lock);
    pthread_mutex_unlock(&meta->rc.lock);
}

void coroutine_fn qcow2_check_invariants(Qcow2Meta *meta)
{
    uint8_t *buf = bdrv_try_blockalign(meta->bs->file->bs, MAX(meta->l2.slice_bytes, meta->rc.slice_bytes));
    if (!buf || atomic_load(&meta->s->corrupt)) {
        bdrv_vfree(buf);
        return;
    }
    check_cache(&meta->l2, buf);
    check_cache(&meta->rc, buf);
    check_published(meta);
    bdrv_vfree(buf);
}
