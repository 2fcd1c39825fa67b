/* SPDX-License-Identifier: MIT */
/*
 * What must hold while no request is inside: every table is walked as the caches and the file together have it,
 * references are counted, and held against the refcounts, the metadata map and limbo.
 *
 * What belongs to neither disk nor snapshots is walked in invariants_other.c. This is not check.c: that one reads the file
 * alone, after everything was written.
 */

#include <string.h>

#include "block/util/bytes.h"
#include "drivers/qcow2/meta/invariants.h"

void qcow2_walk_count(Qcow2Walk *walk, uint64_t host_offset, uint64_t bytes)
{
    unsigned bits = walk->meta->s->geometry.cluster_bits;
    for (uint64_t cluster = host_offset >> bits; bytes && cluster <= (host_offset + bytes - 1) >> bits; cluster++) {
        gpointer key = GSIZE_TO_POINTER(cluster);
        gsize now = GPOINTER_TO_SIZE(g_hash_table_lookup(walk->counts, key));
        g_hash_table_insert(walk->counts, key, GSIZE_TO_POINTER(now + 1));
    }
}

void qcow2_walk_count_metadata(Qcow2Walk *walk, uint64_t host_offset, uint64_t bytes)
{
    unsigned bits = walk->meta->s->geometry.cluster_bits;
    qcow2_walk_count(walk, host_offset, bytes);
    for (uint64_t cluster = host_offset >> bits; bytes && cluster <= (host_offset + bytes - 1) >> bits; cluster++) {
        qcow2_must(!walk->meta->is_mapped || qcow2_cluster_set_has_any(&walk->meta->metadata, cluster, 1),
                   "metadata is not in the map of it");
    }
}

/* A table of a cluster, newer where the cache has it. */
static bool coroutine_fn load_table(Qcow2Walk *walk, Qcow2Cache *cache, uint64_t host_offset)
{
    uint32_t cluster_size = walk->meta->s->geometry.cluster_size;
    if (bdrv_co_pread(walk->meta->bs->file, (int64_t)host_offset, cluster_size, walk->table, 0) < 0) {
        walk->failed = true;
        return false;
    }
    pthread_mutex_lock(&cache->lock);
    for (uint32_t at = 0; at < cluster_size; at += cache->slice_bytes) {
        const Qcow2Slice *slice = qcow2_cache_find_locked(cache, host_offset + at);
        for (uint32_t i = 0; slice && i < cache->slice_bytes / sizeof(uint64_t); i++) {
            uint64_t word = atomic_load_explicit(&slice->entries[i], memory_order_relaxed);
            memcpy(walk->table + at + i * sizeof(word), &word, sizeof(word));
        }
    }
    pthread_mutex_unlock(&cache->lock);
    return true;
}

static void coroutine_fn count_l2(Qcow2Walk *walk, uint64_t table)
{
    const Qcow2Geometry *g = &walk->meta->s->geometry;
    if (!load_table(walk, &walk->meta->l2, table)) {
        return;
    }
    for (uint32_t i = 0; i < g->l2_entries && !g->data_file; i++) {
        Qcow2L2Entry entry = qcow2_l2_entry_decode(qcow2_l2_entry_load(walk->table, i, g), g);
        uint64_t bytes = entry.kind == QCOW2_CLUSTER_COMPRESSED ? entry.compressed_bytes : g->cluster_size;
        if (entry.host_offset && entry.kind != QCOW2_CLUSTER_INVALID) {
            qcow2_walk_count(walk, entry.host_offset, bytes);
            g_hash_table_add(walk->data, GSIZE_TO_POINTER(entry.host_offset >> g->cluster_bits));
        }
    }
}

static void coroutine_fn count_active(Qcow2Walk *walk)
{
    const Qcow2Meta *meta = walk->meta;
    qcow2_walk_count_metadata(walk, meta->l1.host_offset, meta->l1.count * sizeof(uint64_t));
    for (uint64_t i = 0; i < meta->l1.count; i++) {
        uint64_t table = qcow2_table_get(&meta->l1, i) & QCOW2_OFFSET_MASK;
        if (table && !(table & (meta->s->geometry.cluster_size - 1))) {
            qcow2_walk_count_metadata(walk, table, meta->s->geometry.cluster_size);
            count_l2(walk, table);
        }
    }
}

static void coroutine_fn count_snapshot(Qcow2Walk *walk, const Qcow2Snapshot *snapshot)
{
    const Qcow2Geometry *g = &walk->meta->s->geometry;
    qcow2_walk_count_metadata(walk, snapshot->l1_table_offset, snapshot->l1_size * sizeof(uint64_t));
    for (uint32_t i = 0; i < snapshot->l1_size; i++) {
        uint8_t raw[8];
        uint64_t at = snapshot->l1_table_offset + i * sizeof(raw);
        if (bdrv_co_pread(walk->meta->bs->file, (int64_t)at, sizeof(raw), raw, 0) < 0) {
            walk->failed = true;
            continue;
        }
        uint64_t table = load_be64(raw) & QCOW2_OFFSET_MASK;
        if (table && !(table & (g->cluster_size - 1))) {
            qcow2_walk_count(walk, table, g->cluster_size);
            count_l2(walk, table);
        }
    }
}

static void count_refcounts(Qcow2Walk *walk)
{
    const Qcow2Meta *meta = walk->meta;
    qcow2_walk_count_metadata(walk, meta->reftable.host_offset, meta->reftable.count * sizeof(uint64_t));
    for (uint64_t i = 0; i < meta->reftable.count; i++) {
        uint64_t block = qcow2_table_get(&meta->reftable, i) & QCOW2_REFTABLE_OFFSET_MASK;
        if (block) {
            qcow2_walk_count_metadata(walk, block, meta->s->geometry.cluster_size);
        }
    }
}

/* The references that are given up, but whose decrement waits, are still in the counts. */
static void count_drops(Qcow2Walk *walk)
{
    unsigned bits = walk->meta->s->geometry.cluster_bits;
    pthread_mutex_lock(&walk->meta->rc.lock);
    for (const Qcow2Limbo *limbo = walk->meta->waiting.first; limbo; limbo = limbo->next) {
        qcow2_walk_count(walk, limbo->first << bits, limbo->count << bits);
    }
    qcow2_must(!walk->meta->applying, "a dropped cluster is being applied without a commit");
    pthread_mutex_unlock(&walk->meta->rc.lock);
}

/* ---- comparing ---- */

static bool is_in(const Qcow2LimboList *list, uint64_t cluster)
{
    for (const Qcow2Limbo *limbo = list->first; limbo; limbo = limbo->next) {
        if (cluster >= limbo->first && cluster < limbo->first + limbo->count) {
            return true;
        }
    }
    return false;
}

static void compare_cluster(Qcow2Walk *walk, uint64_t cluster, uint64_t refcount, bool exact)
{
    Qcow2Meta *meta = walk->meta;
    uint64_t references = GPOINTER_TO_SIZE(g_hash_table_lookup(walk->counts, GSIZE_TO_POINTER(cluster)));
    bool busy = qcow2_cluster_set_has_any(&meta->busy, cluster, 1);
    bool metadata = qcow2_cluster_set_has_any(&meta->metadata, cluster, 1);
    bool doubtful = cluster - meta->doubtful_first < meta->doubtful_count;

    qcow2_must(refcount >= references, "a refcount is below the number of references");
    qcow2_must(!exact || refcount == references, "a cluster is leaked");
    qcow2_must(!busy || refcount == 0, "a cluster that is about to become free has a reference");
    qcow2_must(!exact || !busy || is_in(&meta->applied, cluster) || is_in(&meta->punching, cluster),
               "a busy cluster is in nobody's list");
    qcow2_must(!qcow2_cluster_set_has_any(&meta->unpunched, cluster, 1) || busy,
               "a cluster waits to be punched and could be allocated");
    qcow2_must(!metadata || refcount > 0 || busy || doubtful, "a free cluster is in the map of metadata");
    qcow2_must(!metadata || !g_hash_table_contains(walk->data, GSIZE_TO_POINTER(cluster)),
               "guest data is in the map of metadata");
}

static void coroutine_fn compare_block(Qcow2Walk *walk, uint64_t index, uint64_t block, bool exact)
{
    const Qcow2Geometry *g = &walk->meta->s->geometry;
    if (!load_table(walk, &walk->meta->rc, block)) {
        return;
    }
    pthread_mutex_lock(&walk->meta->rc.lock);
    for (uint64_t i = 0; i < UINT64_C(1) << g->refblock_bits; i++) {
        uint64_t cluster = (index << g->refblock_bits) + i;
        compare_cluster(walk, cluster, qcow2_refcount_get(walk->table, i, g->refcount_order), exact);
        g_hash_table_remove(walk->counts, GSIZE_TO_POINTER(cluster));
    }
    pthread_mutex_unlock(&walk->meta->rc.lock);
}

static void coroutine_fn compare(Qcow2Walk *walk, bool exact)
{
    Qcow2Meta *meta = walk->meta;
    for (uint64_t i = 0; i < meta->reftable.count && !walk->failed; i++) {
        uint64_t block = qcow2_table_get(&meta->reftable, i) & QCOW2_REFTABLE_OFFSET_MASK;
        if (block) {
            compare_block(walk, i, block, exact);
        }
    }
    qcow2_must(walk->failed || g_hash_table_size(walk->counts) == 0, "a cluster in use has no refcount block");
}

static void check_nobody_inside(Qcow2Meta *meta)
{
    for (unsigned i = 0; i < AIO_CONTEXT_MAX; i++) {
        qcow2_must(!atomic_load(&meta->slots[i].inside[0]) && !atomic_load(&meta->slots[i].inside[1]),
                   "a request that has ended is still counted in its epoch");
    }
}

/* What the header tells of but does not vouch for is not counted: the next change of bitmaps drops it. */
static bool all_known(const Qcow2State *s)
{
    return !s->extensions.bitmaps || (s->header.autoclear_features & QCOW2_AUTOCLEAR_BITMAPS);
}

void coroutine_fn qcow2_check_references(Qcow2Meta *meta, bool exact)
{
    const Qcow2State *s = meta->s;
    Qcow2Walk walk = { .meta = meta, .table = bdrv_try_blockalign(meta->bs->file->bs, s->geometry.cluster_size) };

    if (!walk.table) {
        return;
    }
    check_nobody_inside(meta);
    if (!atomic_load(&meta->header_in_doubt)) {
        qcow2_walk_header(&walk);
    }
    walk.counts = g_hash_table_new(NULL, NULL);
    walk.data = g_hash_table_new(NULL, NULL);
    qcow2_walk_count_metadata(&walk, 0, s->geometry.cluster_size);
    count_refcounts(&walk);
    count_active(&walk);
    qcow2_walk_bitmaps(&walk);
    qcow2_walk_crypto(&walk);
    qcow2_walk_snapshot_table(&walk);
    for (unsigned i = 0; i < s->snapshots.count; i++) {
        count_snapshot(&walk, &s->snapshots.snapshots[i]);
    }
    count_drops(&walk);
    if (!walk.failed) {
        compare(&walk, exact && all_known(s));
    }
    g_hash_table_unref(walk.counts);
    g_hash_table_unref(walk.data);
    bdrv_vfree(walk.table);
}
