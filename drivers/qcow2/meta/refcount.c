/* SPDX-License-Identifier: MIT */
/*
 * Refcount blocks and the refcount table.
 *
 * A new block lies in the range it describes and counts itself, so making one allocates nothing.
 * Whoever finds a range without a block holds grow_lock to make it: nobody can allocate there
 * meanwhile, since all of its clusters have no counts yet.
 */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/qcow2/meta/meta_int.h"

uint64_t qcow2_refslice_entries(const Qcow2Meta *meta)
{
    return (uint64_t)meta->rc.slice_bytes * 8 >> meta->s->geometry.refcount_order;
}

uint64_t qcow2_refslice_index(const Qcow2Meta *meta, uint64_t cluster)
{
    return cluster & (qcow2_refslice_entries(meta) - 1);
}

int coroutine_fn qcow2_refslice_get_locked(Qcow2Meta *meta, uint64_t cluster, bool wait, Qcow2Slice **slice)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t block_index = cluster >> g->refblock_bits;

    *slice = NULL;
    if (block_index >= meta->reftable.count) {
        return 0;
    }
    uint64_t block = qcow2_table_get(&meta->reftable, block_index) & QCOW2_REFTABLE_OFFSET_MASK;
    if (!block) {
        return 0;
    }
    if (block & (g->cluster_size - 1)) {
        pthread_mutex_unlock(&meta->rc.lock);
        qcow2_mark_corrupt(meta->bs, "a refcount block offset is not a multiple of the cluster size");
        pthread_mutex_lock(&meta->rc.lock);
        return -EIO;
    }
    uint64_t in_block = cluster & ((UINT64_C(1) << g->refblock_bits) - 1);
    uint64_t tag = block + in_block / qcow2_refslice_entries(meta) * meta->rc.slice_bytes;
    return qcow2_cache_get_locked(&meta->rc, tag, wait, slice);
}

int coroutine_fn qcow2_get_refcount(BlockDriverState *bs, uint64_t host_offset, uint64_t *refcount)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    uint64_t cluster = host_offset >> meta->s->geometry.cluster_bits;
    Qcow2Slice *slice;

    pthread_mutex_lock(&meta->rc.lock);
    int ret = qcow2_refslice_get_locked(meta, cluster, true, &slice);
    if (ret >= 0) {
        *refcount = slice ? qcow2_refcount_get(slice->bytes, qcow2_refslice_index(meta, cluster),
                                               meta->s->geometry.refcount_order)
                          : 0;
    }
    pthread_mutex_unlock(&meta->rc.lock);
    return ret;
}

int64_t coroutine_fn qcow2_meta_used_end(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t cluster = meta->reftable.count << g->refblock_bits, count = 0;

    while (cluster > 0 && count == 0) {
        uint64_t block = (cluster - 1) >> g->refblock_bits;
        if (!qcow2_table_get(&meta->reftable, block)) {
            cluster = block << g->refblock_bits;
            continue;
        }
        int ret = qcow2_get_refcount(bs, (cluster - 1) << g->cluster_bits, &count);
        if (ret < 0) {
            return ret;
        }
        cluster -= count == 0;
    }
    return (int64_t)(cluster << g->cluster_bits);
}

static uint64_t count_used(const Qcow2Meta *meta, const Qcow2Slice *slice, uint64_t cluster, uint64_t end)
{
    uint64_t used = 0;
    for (; cluster < end; cluster++) {
        used += qcow2_refcount_get(slice->bytes, qcow2_refslice_index(meta, cluster),
                                   meta->s->geometry.refcount_order) != 0;
    }
    return used;
}

int64_t coroutine_fn qcow2_meta_count_used(BlockDriverState *bs, uint64_t end, uint64_t enough)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    uint64_t used = 0, next;
    int ret = 0;

    end = MIN(end, meta->reftable.count << meta->s->geometry.refblock_bits);
    for (uint64_t cluster = 0; cluster < end && used < enough; cluster = next) {
        Qcow2Slice *slice;

        next = MIN(end, (cluster | (qcow2_refslice_entries(meta) - 1)) + 1);
        pthread_mutex_lock(&meta->rc.lock);
        ret = qcow2_refslice_get_locked(meta, cluster, true, &slice);
        used += ret >= 0 && slice ? count_used(meta, slice, cluster, next) : 0;
        pthread_mutex_unlock(&meta->rc.lock);
        if (ret < 0) {
            return ret;
        }
    }
    return (int64_t)used;
}

int coroutine_fn qcow2_stop_uncounted(Qcow2Meta *meta, uint64_t cluster)
{
    g_autofree char *text = g_strdup_printf("metadata lies at or behind host offset 0x%" PRIx64
                                            " in clusters that have no refcount; run 'bdrv-img check'",
                                            cluster << meta->s->geometry.cluster_bits);
    qcow2_mark_corrupt(meta->bs, text);
    return -EIO;
}

/* ---- a larger table ---- */

/* Clusters of a new area at the start of the first range that the old table does not reach. */
typedef struct NewArea {
    uint64_t first;  /* cluster: blocks first, then the table */
    uint64_t blocks, table_clusters;
    uint64_t entries;
} NewArea;

static int plan_table(const Qcow2Meta *meta, uint64_t need_entries, NewArea *area)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t per_cluster = g->cluster_size / sizeof(uint64_t);
    uint64_t per_block = UINT64_C(1) << g->refblock_bits;
    uint64_t old = meta->reftable.count;
    uint64_t want = MAX(need_entries, old + old / 2);

    *area = (NewArea){ .first = old << g->refblock_bits, .blocks = 1 };
    for (;;) {
        area->table_clusters = (MAX(want, old + area->blocks) + per_cluster - 1) / per_cluster;
        uint64_t blocks = (area->blocks + area->table_clusters + per_block - 1) / per_block;
        if (blocks <= area->blocks) {
            break;
        }
        area->blocks = blocks;
    }
    area->entries = area->table_clusters * per_cluster;
    uint64_t end = area->first + area->blocks + area->table_clusters;
    bool fits = area->table_clusters << g->cluster_bits <= QCOW2_MAX_REFTABLE_BYTES &&
                end <= QCOW2_HOST_OFFSET_MAX >> g->cluster_bits;
    return fits ? 0 : -ENOSPC;
}

static int coroutine_fn write_area_blocks(Qcow2Meta *meta, const NewArea *area, void *buf)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t per_block = UINT64_C(1) << g->refblock_bits;
    uint64_t used = area->blocks + area->table_clusters;
    int ret = 0;

    bdrv_debug_event(meta->bs, BDRV_EVENT_REFBLOCK_ALLOC_WRITE_BLOCKS);
    for (uint64_t b = 0; b < area->blocks && ret >= 0; b++) {
        memset(buf, 0, g->cluster_size);
        for (uint64_t i = 0; i < per_block && b * per_block + i < used; i++) {
            qcow2_refcount_set(buf, i, g->refcount_order, 1);
        }
        ret = qcow2_write_meta(meta, (area->first + b) << g->cluster_bits, g->cluster_size, buf);
    }
    return ret;
}

static int coroutine_fn write_area_table(Qcow2Meta *meta, const Qcow2Table *table, uint8_t *buf)
{
    uint32_t cluster_size = meta->s->geometry.cluster_size;
    uint64_t sectors = cluster_size / QCOW2_SECTOR;
    int ret = 0;

    bdrv_debug_event(meta->bs, BDRV_EVENT_REFBLOCK_ALLOC_WRITE_TABLE);
    for (uint64_t at = 0; at < table->count / QCOW2_SECTOR_ENTRIES && ret >= 0; at += sectors) {
        for (uint64_t i = 0; i < sectors; i++) {
            qcow2_table_copy_sector(table, at + i, buf + i * QCOW2_SECTOR);
        }
        ret = qcow2_write_meta(meta, table->host_offset + at * QCOW2_SECTOR, cluster_size, buf);
    }
    return ret;
}

typedef struct NewTable {
    uint64_t host_offset;
    uint32_t clusters;
} NewTable;

static void edit_refcount_table(Qcow2Header *header, const void *opaque)
{
    const NewTable *table = opaque;
    header->refcount_table_offset = table->host_offset;
    header->refcount_table_clusters = table->clusters;
}

/* Write blocks and table, flush, switch the header. commit_lock and grow_lock held. */
static int coroutine_fn install_table(Qcow2Meta *meta, const NewArea *area, Qcow2Table *table)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t area_clusters = area->blocks + area->table_clusters;
    void *buf = bdrv_try_blockalign(meta->bs->file->bs, g->cluster_size);
    int ret = buf ? qcow2_note_metadata(meta, area->first << g->cluster_bits, area_clusters << g->cluster_bits)
                  : -ENOMEM;
    if (ret >= 0) {
        ret = write_area_blocks(meta, area, buf);
    }
    if (ret >= 0) {
        ret = write_area_table(meta, table, buf);
    }
    if (ret >= 0) {
        ret = bdrv_co_flush(meta->bs->file);
    }
    if (ret >= 0) {
        NewTable wanted = { table->host_offset, (uint32_t)area->table_clusters };
        bdrv_debug_event(meta->bs, BDRV_EVENT_REFBLOCK_ALLOC_SWITCH_TABLE);
        ret = qcow2_switch_header(meta, edit_refcount_table, &wanted);
    }
    bdrv_vfree(buf);
    return ret;
}

/* grow_lock held: nobody else changes the table. */
static int coroutine_fn grow_table(Qcow2Meta *meta, uint64_t need_entries)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    NewArea area;
    Qcow2Table table;

    bdrv_debug_event(meta->bs, BDRV_EVENT_REFTABLE_GROW);
    /* In doubt which table the file has, no other may be written where one of them is. */
    int ret = qcow2_settle_header(meta);
    if (ret >= 0) {
        ret = plan_table(meta, need_entries, &area);
    }
    if (ret < 0) {
        return ret;
    }
    if (qcow2_cluster_set_has_any(&meta->metadata, area.first, area.blocks + area.table_clusters)) {
        return qcow2_stop_uncounted(meta, area.first);
    }
    if (!qcow2_table_init(&table, area.entries, (area.first + area.blocks) << g->cluster_bits)) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < meta->reftable.count; i++) {
        atomic_store_explicit(&table.entries[i], qcow2_table_get(&meta->reftable, i), memory_order_relaxed);
    }
    for (uint64_t b = 0; b < area.blocks; b++) {
        atomic_store_explicit(&table.entries[meta->reftable.count + b], (area.first + b) << g->cluster_bits,
                              memory_order_relaxed);
    }
    uint64_t old_offset = meta->reftable.host_offset, old_clusters = meta->s->header.refcount_table_clusters;
    co_mutex_lock(&meta->commit_lock);
    ret = install_table(meta, &area, &table);
    if (ret >= 0) {
        pthread_mutex_lock(&meta->rc.lock);
        Qcow2Table old = meta->reftable;
        meta->reftable = table;
        table = old;
        meta->high_water = MAX(meta->high_water, area.first + area.blocks + area.table_clusters);
        pthread_mutex_unlock(&meta->rc.lock);
    } else {
        /* Nobody gets these clusters before the next attempt, not even if the header is in doubt: no block counts them. */
        pthread_mutex_lock(&meta->rc.lock);
        qcow2_cluster_set_remove(&meta->metadata, area.first, area.blocks + area.table_clusters);
        pthread_mutex_unlock(&meta->rc.lock);
    }
    co_mutex_unlock(&meta->commit_lock);
    qcow2_table_destroy(&table);
    if (ret >= 0) {
        qcow2_drop_clusters(meta->bs, old_offset, old_clusters, QCOW2_DISCARD_OTHER);
    }
    return ret;
}

/* ---- a new block ---- */

/* Whether metadata lies in the range of a block that is not there: then what else lies there has no count either. */
static bool has_metadata(Qcow2Meta *meta, uint64_t block_index)
{
    unsigned bits = meta->s->geometry.refblock_bits;
    return qcow2_cluster_set_has_any(&meta->metadata, block_index << bits, UINT64_C(1) << bits);
}

/* The block goes to the start of its range, unless a lost block has counted something there. */
static int coroutine_fn choose_block_cluster(Qcow2Meta *meta, uint64_t block_index, uint64_t *cluster)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t first = block_index << g->refblock_bits;

    if ((first + 1) << g->cluster_bits > QCOW2_HOST_OFFSET_MAX) {
        return -ENOSPC;
    }
    if (has_metadata(meta, block_index)) {
        int ret = qcow2_settle_header(meta); /* in doubt, structures that were taken back are in the map as well */
        if (ret < 0 || has_metadata(meta, block_index)) {
            return ret < 0 ? ret : qcow2_stop_uncounted(meta, first);
        }
    }
    *cluster = first;
    return 0;
}

static int coroutine_fn write_new_block(Qcow2Meta *meta, uint64_t cluster)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t host_offset = cluster << g->cluster_bits;
    void *buf = bdrv_try_blockalign(meta->bs->file->bs, g->cluster_size);
    if (!buf) {
        return -ENOMEM;
    }
    memset(buf, 0, g->cluster_size);
    qcow2_refcount_set(buf, cluster & ((UINT64_C(1) << g->refblock_bits) - 1), g->refcount_order, 1);
    int ret = qcow2_note_metadata(meta, host_offset, g->cluster_size);
    if (ret >= 0) {
        bdrv_debug_event(meta->bs, BDRV_EVENT_REFBLOCK_ALLOC_WRITE);
        ret = qcow2_write_meta(meta, host_offset, g->cluster_size, buf);
    }
    if (ret < 0) {
        pthread_mutex_lock(&meta->rc.lock);
        qcow2_cluster_set_remove(&meta->metadata, cluster, 1);
        pthread_mutex_unlock(&meta->rc.lock);
    }
    bdrv_vfree(buf);
    return ret;
}

static int coroutine_fn make_block(Qcow2Meta *meta, uint64_t block_index)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t cluster;

    bdrv_debug_event(meta->bs, BDRV_EVENT_REFBLOCK_ALLOC);
    int ret = choose_block_cluster(meta, block_index, &cluster);
    if (ret >= 0) {
        ret = write_new_block(meta, cluster);
    }
    if (ret < 0) {
        return ret;
    }
    bdrv_debug_event(meta->bs, BDRV_EVENT_REFBLOCK_ALLOC_HOOKUP);
    pthread_mutex_lock(&meta->rc.lock);
    qcow2_cache_forget_locked(&meta->rc, cluster << g->cluster_bits, g->cluster_size);
    qcow2_table_set(&meta->reftable, block_index, cluster << g->cluster_bits);
    meta->high_water = MAX(meta->high_water, cluster + 1);
    pthread_mutex_unlock(&meta->rc.lock);
    qcow2_background_stir(meta);
    return 0;
}

/* ---- a run longer than a block describes ---- */

/* Index of the first block from which on none exists. */
static uint64_t first_unused_index(const Qcow2Meta *meta)
{
    uint64_t index = meta->reftable.count;
    while (index > 0 && !qcow2_table_get(&meta->reftable, index - 1)) {
        index--;
    }
    return index;
}

/* Blocks that count themselves and the run, written, then linked. grow_lock held. */
static int coroutine_fn make_area(Qcow2Meta *meta, const NewArea *area)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t index = area->first >> g->refblock_bits;
    void *buf = bdrv_try_blockalign(meta->bs->file->bs, g->cluster_size);
    int ret = buf ? qcow2_note_metadata(meta, area->first << g->cluster_bits, area->blocks << g->cluster_bits)
                  : -ENOMEM;
    if (ret >= 0) {
        ret = write_area_blocks(meta, area, buf);
    }
    bdrv_vfree(buf);
    pthread_mutex_lock(&meta->rc.lock);
    if (ret >= 0) {
        qcow2_cache_forget_locked(&meta->rc, area->first << g->cluster_bits, area->blocks << g->cluster_bits);
        for (uint64_t b = 0; b < area->blocks; b++) {
            qcow2_table_set(&meta->reftable, index + b, (area->first + b) << g->cluster_bits);
        }
        meta->high_water = MAX(meta->high_water, area->first + area->blocks + area->table_clusters);
    } else {
        qcow2_cluster_set_remove(&meta->metadata, area->first, area->blocks);
    }
    pthread_mutex_unlock(&meta->rc.lock);
    return ret;
}

int coroutine_fn qcow2_alloc_area(Qcow2Meta *meta, uint64_t count, uint64_t *first)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t per_block = UINT64_C(1) << g->refblock_bits, index;
    NewArea area = { .blocks = 1, .table_clusters = count };
    int ret = 0;

    while (area.blocks < (area.blocks + count + per_block - 1) / per_block) {
        area.blocks = (area.blocks + count + per_block - 1) / per_block;
    }
    co_mutex_lock(&meta->grow_lock);
    while (ret >= 0 && (index = first_unused_index(meta)) + area.blocks > meta->reftable.count) {
        ret = grow_table(meta, index + area.blocks + 1); /* its own block and table take part of the range */
    }
    if (ret >= 0) {
        area.first = index << g->refblock_bits;
        if (area.first + area.blocks + count > QCOW2_HOST_OFFSET_MAX >> g->cluster_bits) {
            ret = -ENOSPC;
        } else if (qcow2_cluster_set_has_any(&meta->metadata, area.first, area.blocks + count)) {
            ret = qcow2_stop_uncounted(meta, area.first);
        } else {
            bdrv_debug_event(meta->bs, BDRV_EVENT_REFBLOCK_ALLOC);
            ret = make_area(meta, &area);
        }
    }
    co_mutex_unlock(&meta->grow_lock);
    if (ret >= 0) {
        qcow2_background_stir(meta);
        *first = area.first + area.blocks;
    }
    return ret;
}

int coroutine_fn qcow2_grow_refblock(Qcow2Meta *meta, uint64_t cluster)
{
    uint64_t block_index = cluster >> meta->s->geometry.refblock_bits;
    int ret = 0;

    if (atomic_load_explicit(&meta->s->corrupt, memory_order_relaxed)) {
        return -EIO;
    }
    co_mutex_lock(&meta->grow_lock);
    if (block_index >= meta->reftable.count) {
        ret = grow_table(meta, block_index + 1);
    }
    uint64_t entry = ret >= 0 ? qcow2_table_get(&meta->reftable, block_index) : 0;
    bool reserved = entry & ~QCOW2_REFTABLE_OFFSET_MASK;
    if (ret >= 0 && entry == 0) {
        ret = make_block(meta, block_index);
    }
    co_mutex_unlock(&meta->grow_lock);
    if (reserved) {
        /* No block there for those who look it up, but no empty entry either. */
        qcow2_mark_corrupt(meta->bs, "a refcount table entry has reserved bits set");
        ret = -EIO;
    }
    return ret;
}
