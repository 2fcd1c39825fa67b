/* SPDX-License-Identifier: MIT */
/*
 * Empty tables in place of all that there are: an L1 table, and refcount structures that count the header and
 * themselves. They are written where nothing is, then one sector of header leads to them: the image is the old one or
 * an empty one. In memory they are made before, so that nothing can fail once the header is written.
 */

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/meta/meta_int.h"

/* The structures of an empty image, in a row from cluster @first on: refcount table, blocks, L1 table. */
typedef struct Layout {
    uint64_t first, table_clusters, blocks, l1_clusters;
    uint64_t block_first, block_end; /* indices of blocks that describe them; block 0 is there in any case */
    uint64_t l1_entries;
} Layout;

static uint64_t end_of(const Layout *l)
{
    return l->first + l->table_clusters + l->blocks + l->l1_clusters;
}

/* False if a refcount table cannot reach so far. */
static bool lay_out(const Qcow2State *s, uint64_t first, Layout *l)
{
    const Qcow2Geometry *g = &s->geometry;
    uint64_t entries = qcow2_l1_entries_of(g, s->header.size);
    *l = (Layout){ .first = first, .table_clusters = 1, .l1_entries = MAX(entries, 1) };
    l->l1_clusters = qcow2_clusters_of(g, l->l1_entries * sizeof(uint64_t));
    for (uint64_t end = 0; end != end_of(l);) {
        end = end_of(l);
        l->block_first = first >> g->refblock_bits;
        l->block_end = ((end - 1) >> g->refblock_bits) + 1;
        l->blocks = l->block_end - l->block_first + (l->block_first > 0);
        l->table_clusters = qcow2_clusters_of(g, l->block_end * sizeof(uint64_t));
    }
    return l->table_clusters << g->cluster_bits <= QCOW2_MAX_REFTABLE_BYTES;
}

static uint64_t nth_block(const Layout *l, uint64_t n)
{
    return l->block_first == 0 ? n : n == 0 ? 0 : l->block_first + n - 1;
}

static void fill_block(const Qcow2Geometry *g, const Layout *l, uint64_t index, void *block)
{
    uint64_t base = index << g->refblock_bits;
    for (uint64_t i = 0; i < UINT64_C(1) << g->refblock_bits; i++) {
        bool used = base + i == 0 || (base + i >= l->first && base + i < end_of(l));
        qcow2_refcount_set(block, i, g->refcount_order, used);
    }
}

/* What is written, and what is installed then. */
typedef struct Emptying {
    Qcow2Meta *meta;
    Layout layout;
    Qcow2Table l1, reftable;
} Emptying;

static uint64_t offset_of(const Emptying *e, uint64_t cluster)
{
    return cluster << e->meta->s->geometry.cluster_bits;
}

static bool make_tables(Emptying *e)
{
    const Layout *l = &e->layout;
    uint64_t entries = offset_of(e, l->table_clusters) / sizeof(uint64_t);
    if (!qcow2_table_init(&e->reftable, entries, offset_of(e, l->first)) ||
        !qcow2_table_init(&e->l1, l->l1_entries, offset_of(e, end_of(l) - l->l1_clusters))) {
        return false;
    }
    for (uint64_t n = 0; n < l->blocks; n++) {
        atomic_store(&e->reftable.entries[nth_block(l, n)], offset_of(e, l->first + l->table_clusters + n));
    }
    return true;
}

/* All of a table, with what is behind it in its last cluster. */
static int coroutine_fn write_table(const Emptying *e, const Qcow2Table *table, uint64_t clusters)
{
    uint64_t bytes = offset_of(e, clusters), sectors = (table->count + QCOW2_SECTOR_ENTRIES - 1) / QCOW2_SECTOR_ENTRIES;
    uint8_t *buf = bdrv_try_blockalign(e->meta->bs->file->bs, bytes);
    if (!buf) {
        return -ENOMEM;
    }
    memset(buf, 0, bytes);
    for (uint64_t sector = 0; sector < sectors; sector++) {
        qcow2_table_copy_sector(table, sector, buf + sector * QCOW2_SECTOR);
    }
    int ret = bdrv_co_pwrite(e->meta->bs->file, (int64_t)table->host_offset, (int64_t)bytes, buf, 0);
    bdrv_vfree(buf);
    return ret < 0 ? ret : 0;
}

static int coroutine_fn write_blocks(const Emptying *e)
{
    const Qcow2Geometry *g = &e->meta->s->geometry;
    const Layout *l = &e->layout;
    void *block = bdrv_try_blockalign(e->meta->bs->file->bs, g->cluster_size);
    int ret = block ? 0 : -ENOMEM;
    for (uint64_t n = 0; ret >= 0 && n < l->blocks; n++) {
        fill_block(g, l, nth_block(l, n), block);
        ret = bdrv_co_pwrite(e->meta->bs->file, (int64_t)offset_of(e, l->first + l->table_clusters + n),
                             g->cluster_size, block, 0);
    }
    bdrv_vfree(block);
    return ret < 0 ? ret : 0;
}

static void edit_tables(Qcow2Header *header, const void *opaque)
{
    const Emptying *e = opaque;
    header->refcount_table_offset = e->reftable.host_offset;
    header->refcount_table_clusters = (uint32_t)e->layout.table_clusters;
    header->l1_table_offset = e->l1.host_offset;
    header->l1_size = (uint32_t)e->l1.count;
}

static int coroutine_fn write_and_switch(const Emptying *e)
{
    int ret = write_table(e, &e->reftable, e->layout.table_clusters);
    ret = ret < 0 ? ret : write_blocks(e);
    ret = ret < 0 ? ret : write_table(e, &e->l1, e->layout.l1_clusters);
    ret = ret < 0 ? ret : bdrv_co_flush(e->meta->bs->file);
    return ret < 0 ? ret : qcow2_switch_header(e->meta, edit_tables, e);
}

/* rc.lock held. [first, end) holds no tables. */
static void unmap_locked(Qcow2Meta *meta, uint64_t first, uint64_t end)
{
    if (first < end) {
        qcow2_cluster_set_remove(&meta->metadata, first, end - first);
        qcow2_cluster_set_remove(&meta->disputed, first, end - first);
    }
}

/* Must not fail. */
static void install(Emptying *e)
{
    Qcow2Meta *meta = e->meta;

    pthread_mutex_lock(&meta->rc.lock);
    qcow2_table_swap(&meta->reftable, &e->reftable);
    qcow2_cache_forget_all_locked(&meta->rc);
    unmap_locked(meta, 1, e->layout.first);
    unmap_locked(meta, end_of(&e->layout), meta->high_water);
    meta->free_hint = 0;
    meta->frees++;
    pthread_mutex_unlock(&meta->rc.lock);
    pthread_mutex_lock(&meta->l2.lock);
    qcow2_table_swap(&meta->l1, &e->l1);
    qcow2_cache_forget_all_locked(&meta->l2);
    pthread_mutex_unlock(&meta->l2.lock);
}

static int coroutine_fn empty(Emptying *e)
{
    Qcow2Meta *meta = e->meta;
    const Layout *l = &e->layout;
    uint64_t clusters = end_of(l) - l->first;
    int ret = make_tables(e) ? qcow2_note_metadata(meta, offset_of(e, l->first), offset_of(e, clusters)) : -ENOMEM;
    if (ret < 0) {
        return ret;
    }
    co_mutex_lock(&meta->commit_lock);
    ret = write_and_switch(e);
    if (ret >= 0) {
        install(e);
    } else {
        qcow2_take_back(meta, l->first, clusters);
    }
    co_mutex_unlock(&meta->commit_lock);
    return ret;
}

int coroutine_fn qcow2_meta_empty(BlockDriverState *bs, uint64_t first, uint64_t used, uint64_t *end)
{
    Emptying e = { .meta = qcow2_meta(bs) };

    if (!lay_out(e.meta->s, first, &e.layout)) {
        return -EFBIG;
    }
    if (first < used && end_of(&e.layout) > used) {
        return -ENOSPC;
    }
    int ret = empty(&e);
    qcow2_table_destroy(&e.l1);
    qcow2_table_destroy(&e.reftable);
    *end = end_of(&e.layout);
    return ret;
}
