/* SPDX-License-Identifier: MIT */
/*
 * What must hold at every moment at which no commit runs, checked in builds with -Ddebug_invariants=true: clean
 * slices and sectors are what the file holds, the counters agree with the flags, nothing that is published or in
 * limbo could be allocated. And before phase B: what is about to be published is counted in the file.
 * invariants_walk.c adds what must hold while no request is inside.
 *
 * An image may come damaged, and be written to where nobody notices: then its counts were never true, and nothing is
 * said of counts. So it is checked before the first write.
 */

#include "drivers/qcow2/meta/invariants.h"

#include <string.h>

#include "block/util/bytes.h"
#include "drivers/qcow2/check.h"

void coroutine_fn qcow2_note_soundness(Qcow2Meta *meta)
{
    BdrvCheckResult result = { 0 };
    Qcow2Check check;
    int ret = qcow2_check_begin(&check, meta->bs, &result, BDRV_FIX_NONE);

    ret = ret < 0 ? ret : qcow2_check_analyse(&check);
    qcow2_check_end(&check);
    meta->was_sound = ret >= 0 && !result.corruptions && !result.check_errors;
}

void qcow2_must(bool condition, const char *what)
{
    if (!condition) {
        g_error("qcow2 metadata: %s", what); /* a debug build: stop where it is first seen */
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
            qcow2_must(word == atomic_load_explicit(&slice->entries[i], memory_order_relaxed),
                       "a clean slice is not what the file holds");
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
        qcow2_must(!cache->slices[i].committing, "a slice is committing without a commit");
    }
    qcow2_must(dirty == cache->dirty_count && cache->committing_count == 0, "the dirty slices are miscounted");
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
static void check_published_locked(Qcow2Meta *meta, Qcow2RawEntry raw)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    Qcow2L2Entry entry = qcow2_l2_entry_decode(raw, g);
    uint64_t cluster = entry.host_offset >> g->cluster_bits, block_index = cluster >> g->refblock_bits;
    bool in_use = entry.kind == QCOW2_CLUSTER_NORMAL || entry.kind == QCOW2_CLUSTER_MIXED;
    if (g->data_file || !in_use || !entry.host_offset || block_index >= meta->reftable.count) {
        return;
    }
    uint64_t in_block = cluster & ((UINT64_C(1) << g->refblock_bits) - 1);
    uint64_t tag = (qcow2_table_get(&meta->reftable, block_index) & QCOW2_REFTABLE_OFFSET_MASK) +
                   in_block / qcow2_refslice_entries(meta) * meta->rc.slice_bytes;
    Qcow2Slice *slice = qcow2_cache_find_locked(&meta->rc, tag);
    if (slice) {
        uint64_t count = qcow2_refcount_get(slice->bytes, qcow2_refslice_index(meta, cluster), g->refcount_order);
        qcow2_must(count > 0, "a published cluster has refcount 0: it could be allocated");
        qcow2_must(!entry.copied || count == 1, "COPIED is set on a cluster with another refcount than 1");
        qcow2_must(!qcow2_cluster_set_has_any(&meta->busy, cluster, 1), "a published cluster is about to become free");
    }
}

static void check_published(Qcow2Meta *meta)
{
    pthread_mutex_lock(&meta->rc.lock);
    pthread_mutex_lock(&meta->l2.lock);
    for (unsigned i = 0; i < meta->l2.count; i++) {
        const Qcow2Slice *slice = &meta->l2.slices[i];
        /* A clean slice of a freed table may linger; a dirty one is in use. */
        for (uint32_t e = 0; slice->dirty && e < meta->l2.slice_bytes / meta->s->geometry.l2_entry_bytes; e++) {
            check_published_locked(meta, qcow2_cache_load_locked(&meta->l2, slice, e));
        }
    }
    pthread_mutex_unlock(&meta->l2.lock);
    pthread_mutex_unlock(&meta->rc.lock);
}

/* Sectors of a table that is in memory whole; commit_lock and what else changes it held. */
static void coroutine_fn compare_table(Qcow2Meta *meta, const Qcow2Table *table, pthread_mutex_t *lock)
{
    for (uint64_t sector = 0; sector * QCOW2_SECTOR_ENTRIES < table->count; sector++) {
        uint8_t in_file[QCOW2_SECTOR], in_memory[QCOW2_SECTOR];
        uint64_t entries = MIN(table->count - sector * QCOW2_SECTOR_ENTRIES, QCOW2_SECTOR_ENTRIES);
        uint64_t at = table->host_offset + sector * QCOW2_SECTOR;
        if (bdrv_co_pread(meta->bs->file, (int64_t)at, (int64_t)(entries * 8), in_file, 0) < 0) {
            continue;
        }
        pthread_mutex_lock(lock);
        qcow2_table_copy_sector(table, sector, in_memory);
        qcow2_must(table->dirty[sector] || memcmp(in_file, in_memory, entries * 8) == 0,
                   "a clean sector of the L1 or refcount table is not what the file holds");
        pthread_mutex_unlock(lock);
    }
}

/* What the allocator relies on. */
static void check_allocator(Qcow2Meta *meta)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t slice_entries = qcow2_refslice_entries(meta);

    pthread_mutex_lock(&meta->rc.lock);
    for (uint64_t cluster = 0; cluster < meta->free_hint; cluster += slice_entries) {
        uint64_t block = cluster >> g->refblock_bits;
        uint64_t in_block = cluster & ((UINT64_C(1) << g->refblock_bits) - 1);
        if (block >= meta->reftable.count || !qcow2_table_get(&meta->reftable, block)) {
            continue;
        }
        const Qcow2Slice *slice = qcow2_cache_find_locked(
            &meta->rc, (qcow2_table_get(&meta->reftable, block) & QCOW2_REFTABLE_OFFSET_MASK) +
                           in_block / slice_entries * meta->rc.slice_bytes);
        for (uint64_t i = 0; slice && i < MIN(slice_entries, meta->free_hint - cluster); i++) {
            qcow2_must(qcow2_refcount_get(slice->bytes, i, g->refcount_order) > 0 ||
                           qcow2_cluster_set_has_any(&meta->busy, cluster + i, 1) ||
                           qcow2_cluster_set_has_any(&meta->metadata, cluster + i, 1),
                       "a free cluster lies before the hint");
        }
    }
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
    if (!atomic_load(&meta->header_in_doubt)) {
        compare_table(meta, &meta->l1, &meta->l2.lock);
    }
    if (meta->was_sound) {
        check_published(meta);
        check_allocator(meta);
    }
    bdrv_vfree(buf);
}

/* ---- before phase B ---- */

typedef struct FileCounts {
    Qcow2Meta *meta;
    uint8_t *block; /* the refcount block at @offset, as the file has it */
    uint64_t offset;
} FileCounts;

/* Whether the file counts the cluster; in doubt it does. */
static bool coroutine_fn is_counted(FileCounts *counts, uint64_t host_offset)
{
    const Qcow2Geometry *g = &counts->meta->s->geometry;
    BdrvChild *file = counts->meta->bs->file;
    uint64_t cluster = host_offset >> g->cluster_bits;
    uint64_t at = counts->meta->s->header.refcount_table_offset + (cluster >> g->refblock_bits) * 8;
    uint8_t raw[8];

    if (bdrv_co_pread(file, (int64_t)at, 8, raw, 0) < 0) {
        return true;
    }
    uint64_t offset = load_be64(raw) & QCOW2_REFTABLE_OFFSET_MASK;
    if (offset && offset != counts->offset) {
        counts->offset = 0;
        if (bdrv_co_pread(file, (int64_t)offset, g->cluster_size, counts->block, 0) < 0) {
            return true;
        }
        counts->offset = offset;
    }
    uint64_t index = cluster & ((UINT64_C(1) << g->refblock_bits) - 1);
    return offset && qcow2_refcount_get(counts->block, index, g->refcount_order) > 0;
}

static bool is_of_l1(const Qcow2Meta *meta, uint64_t host_offset)
{
    return host_offset >= meta->l1.host_offset && host_offset < meta->l1.host_offset + meta->l1.count * 8;
}

void coroutine_fn qcow2_check_phase_b(Qcow2Meta *meta, uint64_t host_offset, uint64_t bytes, const uint8_t *data)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    FileCounts counts = { .meta = meta };
    uint64_t last = 0;

    if (!meta->was_sound || atomic_load(&meta->dirty_marked)) {
        return;
    }
    counts.block = bdrv_try_blockalign(meta->bs->file->bs, g->cluster_size);
    for (uint64_t at = 0; counts.block && at < bytes;) {
        bool of_l1 = is_of_l1(meta, host_offset + at); /* adjacent pieces are written as one */
        uint64_t target = of_l1 ? load_be64(data + at) & QCOW2_OFFSET_MASK
                                : qcow2_l2_entry_decode(qcow2_l2_entry_load(data + at, 0, g), g).host_offset;
        at += of_l1 ? 8 : g->l2_entry_bytes;
        target = of_l1 || !g->data_file ? target : 0; /* not counted */
        target &= ~(uint64_t)(g->cluster_size - 1);
        if (target && target != last) {
            qcow2_must(is_counted(&counts, target),
                       "an entry is about to be published whose target the file does not count");
            last = target;
        }
    }
    bdrv_vfree(counts.block);
}
