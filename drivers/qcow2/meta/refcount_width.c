/* SPDX-License-Identifier: MIT */
/*
 * Refcounts of another width. New blocks and a new table are written behind all that is in use, then one sector of
 * header leads to them: the image has the old structures or the new ones. The new counts do not count the old
 * structures, so nothing is leaked either. In memory everything is made before, so that nothing can fail once the
 * header is written.
 *
 * Memory: the new table, a bit for each entry that a table can have, a few blocks.
 */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/qcow2/meta/bulk.h"
#include "drivers/qcow2/meta/meta_int.h"

#define MAX_BLOCKS (QCOW2_MAX_REFTABLE_BYTES / 8)

typedef struct Width {
    BlockDriverState *bs;
    Qcow2Meta *meta;
    Qcow2Geometry wide;   /* what the geometry will be */
    Qcow2Bulk bulk;       /* the old counts */
    Qcow2ClusterSet gone; /* clusters of the old structures */
    uint8_t *needed;      /* a bit for each new block: it counts something */
    uint64_t blocks;      /* that are needed */
    uint64_t first, table_clusters; /* the new table, and all blocks behind it */
    Qcow2Table table;
    Qcow2Progress *progress;
} Width;

static uint64_t end_of(const Width *w)
{
    return w->first + w->table_clusters + w->blocks;
}

static bool is_needed(const Width *w, uint64_t index)
{
    return w->needed[index / 8] & (1u << index % 8);
}

/* False if no table reaches so far. */
static bool need_block(Width *w, uint64_t index)
{
    if (index >= MAX_BLOCKS) {
        return false;
    }
    w->blocks += !is_needed(w, index);
    w->needed[index / 8] |= (uint8_t)(1u << index % 8);
    return true;
}

static bool too_far(const Width *w, GError **errp)
{
    g_set_error(errp, BDRV_ERROR, EFBIG,
                "with refcount_bits=%u the refcount table would have more than %u entries, the most that are supported",
                w->wide.refcount_bits, MAX_BLOCKS);
    return false;
}

/* ---- what there is ---- */

static bool coroutine_fn note_gone(Width *w, uint64_t offset, uint64_t clusters, GError **errp)
{
    uint64_t first = offset >> w->wide.cluster_bits, count;
    for (uint64_t i = 0; i < clusters; i++) {
        if (!qcow2_could(qcow2_bulk_get(&w->bulk, first + i, &count), "read refcounts", errp)) {
            return false;
        }
        if (count != 1 || qcow2_cluster_set_has_any(&w->gone, first + i, 1)) {
            g_set_error(errp, BDRV_ERROR, EINVAL,
                        "the refcount table or block at offset %" PRIu64 " is not counted once, but %" PRIu64
                        " times; run 'bdrv-img check'",
                        (first + i) << w->wide.cluster_bits, count);
            return false;
        }
        if (!qcow2_cluster_set_add(&w->gone, first + i, 1)) {
            return qcow2_could(-ENOMEM, "note the old refcount blocks", errp);
        }
    }
    return true;
}

static bool coroutine_fn find_old(Width *w, GError **errp)
{
    const Qcow2Table *old = &w->meta->reftable;
    bool ok = note_gone(w, old->host_offset, w->meta->s->header.refcount_table_clusters, errp);
    for (uint64_t i = 0; i < old->count && ok; i++) {
        uint64_t block = qcow2_table_get(old, i);
        ok = !block || note_gone(w, block, 1, errp);
    }
    return ok;
}

/* What the new structures have for a cluster before them. */
static int coroutine_fn new_count(Width *w, uint64_t cluster, uint64_t *count)
{
    *count = 0;
    return qcow2_cluster_set_has_any(&w->gone, cluster, 1) ? 0 : qcow2_bulk_get(&w->bulk, cluster, count);
}

static bool coroutine_fn look_at_block(Width *w, uint64_t first, uint64_t end, GError **errp)
{
    for (uint64_t cluster = first; cluster < end; cluster++) {
        uint64_t count;
        if (!qcow2_could(new_count(w, cluster, &count), "read refcounts", errp)) {
            return false;
        }
        if (count > w->wide.refcount_max) {
            g_set_error(errp, BDRV_ERROR, EINVAL,
                        "the cluster at host offset %" PRIu64 " has %" PRIu64
                        " references, but refcount_bits=%u can count only %" PRIu64 ": delete snapshots, or keep wider "
                        "refcounts",
                        cluster << w->wide.cluster_bits, count, w->wide.refcount_bits, w->wide.refcount_max);
            return false;
        }
        if (count && !need_block(w, cluster >> w->wide.refblock_bits)) {
            return too_far(w, errp);
        }
    }
    return true;
}

/* All counts fit, and which blocks they need. */
static bool coroutine_fn look_at_counts(Width *w, GError **errp)
{
    const Qcow2Table *old = &w->meta->reftable;
    unsigned bits = w->meta->s->geometry.refblock_bits;
    bool ok = true;
    for (uint64_t i = 0; i < old->count && ok; i++) {
        ok = !qcow2_table_get(old, i) || look_at_block(w, i << bits, MIN((i + 1) << bits, w->first), errp);
        ok = ok && qcow2_progress(w->progress, (int64_t)i, (int64_t)old->count * 2, errp);
        co_maybe_yield();
    }
    return ok;
}

/* ---- the new structures ---- */

/* Blocks and table are counted, too: until that needs no more of them. */
static bool lay_out(Width *w, GError **errp)
{
    for (uint64_t end = 0; end != end_of(w);) {
        end = end_of(w);
        uint64_t last = (end - 1) >> w->wide.refblock_bits;
        for (uint64_t i = w->first >> w->wide.refblock_bits; i <= last; i++) {
            if (!need_block(w, i)) {
                return too_far(w, errp);
            }
        }
        uint64_t entries = MAX_BLOCKS;
        while (entries > 1 && !is_needed(w, entries - 1)) {
            entries--;
        }
        w->table_clusters = qcow2_clusters_of(&w->wide, entries * sizeof(uint64_t));
    }
    return w->table_clusters << w->wide.cluster_bits <= QCOW2_MAX_REFTABLE_BYTES || too_far(w, errp);
}

static bool make_table(Width *w, GError **errp)
{
    uint64_t entries = (w->table_clusters << w->wide.cluster_bits) / sizeof(uint64_t);
    uint64_t block = (w->first + w->table_clusters) << w->wide.cluster_bits;
    if (!qcow2_table_init(&w->table, entries, w->first << w->wide.cluster_bits)) {
        return qcow2_could(-ENOMEM, "make a refcount table", errp);
    }
    for (uint64_t i = 0; i < entries && i < MAX_BLOCKS; i++) {
        if (is_needed(w, i)) {
            atomic_store(&w->table.entries[i], block);
            block += w->wide.cluster_size;
        }
    }
    return true;
}

static int coroutine_fn fill_block(Width *w, uint64_t index, void *buf)
{
    uint64_t first = index << w->wide.refblock_bits, count;
    int ret = 0;
    memset(buf, 0, w->wide.cluster_size);
    for (uint64_t i = 0; i < UINT64_C(1) << w->wide.refblock_bits && first + i < end_of(w) && ret >= 0; i++) {
        if (first + i >= w->first) {
            count = 1;
        } else {
            ret = new_count(w, first + i, &count);
        }
        if (ret >= 0) {
            qcow2_refcount_set(buf, i, w->wide.refcount_order, count);
        }
    }
    return ret;
}

static int coroutine_fn write_blocks(Width *w, void *buf)
{
    int ret = 0;
    bdrv_debug_event(w->bs, BDRV_EVENT_REFBLOCK_ALLOC_WRITE_BLOCKS);
    for (uint64_t i = 0; i < w->table.count && ret >= 0; i++) {
        uint64_t block = qcow2_table_get(&w->table, i);
        ret = block ? fill_block(w, i, buf) : 0;
        if (ret >= 0 && block) {
            ret = qcow2_write_meta(w->meta, block, w->wide.cluster_size, buf);
        }
        if (ret >= 0 && !qcow2_progress(w->progress, (int64_t)(w->table.count + i), (int64_t)w->table.count * 2, NULL)) {
            ret = -ECANCELED;
        }
        co_maybe_yield();
    }
    return ret;
}

static int coroutine_fn write_table(Width *w, uint8_t *buf)
{
    uint64_t sectors = w->wide.cluster_size / QCOW2_SECTOR;
    int ret = 0;
    bdrv_debug_event(w->bs, BDRV_EVENT_REFBLOCK_ALLOC_WRITE_TABLE);
    for (uint64_t at = 0; at < w->table.count / QCOW2_SECTOR_ENTRIES && ret >= 0; at += sectors) {
        for (uint64_t i = 0; i < sectors; i++) {
            qcow2_table_copy_sector(&w->table, at + i, buf + i * QCOW2_SECTOR);
        }
        ret = qcow2_write_meta(w->meta, w->table.host_offset + at * QCOW2_SECTOR, w->wide.cluster_size, buf);
    }
    return ret;
}

/* ---- the switch ---- */

static void edit_header(Qcow2Header *header, const void *opaque)
{
    const Width *w = opaque;
    header->refcount_table_offset = w->table.host_offset;
    header->refcount_table_clusters = (uint32_t)w->table_clusters;
    header->refcount_order = w->wide.refcount_order;
}

static int coroutine_fn write_and_switch(Width *w)
{
    void *buf = bdrv_try_blockalign(w->bs->file->bs, w->wide.cluster_size);
    int ret = buf ? write_blocks(w, buf) : -ENOMEM;
    ret = ret < 0 ? ret : write_table(w, buf);
    ret = ret < 0 ? ret : bdrv_co_flush(w->bs->file);
    bdrv_vfree(buf);
    if (ret < 0) {
        return ret;
    }
    bdrv_debug_event(w->bs, BDRV_EVENT_REFBLOCK_ALLOC_SWITCH_TABLE);
    return qcow2_switch_header(w->meta, edit_header, w);
}

/* Must not fail. w->table is the old one then. */
static void install(Width *w)
{
    pthread_mutex_lock(&w->meta->rc.lock);
    qcow2_table_swap(&w->meta->reftable, &w->table);
    w->meta->s->geometry = w->wide;
    qcow2_cache_forget_all_locked(&w->meta->rc);
    pthread_mutex_unlock(&w->meta->rc.lock);
}

static void coroutine_fn free_clusters(Width *w, uint64_t offset, uint64_t clusters)
{
    Qcow2Meta *meta = w->meta;
    int64_t bytes = (int64_t)(clusters << w->wide.cluster_bits);
    pthread_mutex_lock(&meta->rc.lock);
    qcow2_unmap_free_locked(meta, offset >> w->wide.cluster_bits, clusters);
    pthread_mutex_unlock(&meta->rc.lock);
    if (meta->s->discard.pass[QCOW2_DISCARD_OTHER]) {
        bdrv_co_pdiscard(w->bs->file, (int64_t)offset, bytes); /* a hint */
    }
}

/* The structures of old, which no count counts any more. */
static void coroutine_fn free_old(Width *w, uint64_t old_clusters)
{
    for (uint64_t i = 0; i < w->table.count; i++) {
        uint64_t block = qcow2_table_get(&w->table, i);
        if (block) {
            free_clusters(w, block, 1);
        }
    }
    free_clusters(w, w->table.host_offset, old_clusters);
}

static bool coroutine_fn replace(Width *w, GError **errp)
{
    Qcow2Meta *meta = w->meta;
    uint64_t clusters = end_of(w) - w->first, old_clusters = meta->s->header.refcount_table_clusters;
    if (qcow2_cluster_set_has_any(&meta->metadata, w->first, clusters)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "metadata lies behind host offset %" PRIu64
                    ", in clusters that have no refcount; run 'bdrv-img check'",
                    w->first << w->wide.cluster_bits);
        return false;
    }
    int ret = qcow2_note_metadata(meta, w->first << w->wide.cluster_bits, clusters << w->wide.cluster_bits);
    if (!qcow2_could(ret, "note the new refcount blocks", errp)) {
        return false;
    }
    co_mutex_lock(&meta->commit_lock);
    ret = write_and_switch(w);
    if (ret >= 0) {
        install(w);
        free_old(w, old_clusters);
    } else {
        qcow2_take_back(meta, w->first, clusters);
    }
    co_mutex_unlock(&meta->commit_lock);
    return qcow2_could(ret, "write refcounts of another width", errp);
}

static bool coroutine_fn begin(Width *w, Qcow2Header *wanted, GError **errp)
{
    int64_t used_end = qcow2_meta_used_end(w->bs);
    if (!qcow2_could((int)MIN(used_end, 0), "read refcounts", errp)) {
        return false;
    }
    qcow2_geometry_init(&w->wide, wanted);
    w->first = MAX((uint64_t)used_end >> w->wide.cluster_bits, 1);
    w->table_clusters = 1;
    w->needed = g_try_malloc0(MAX_BLOCKS / 8);
    bool ok = qcow2_cluster_set_init(&w->gone) && w->needed &&
              qcow2_bulk_begin(&w->bulk, w->bs, QCOW2_DISCARD_OTHER) >= 0;
    return ok || qcow2_could(-ENOMEM, "change the width of refcounts", errp);
}

bool coroutine_fn qcow2_meta_set_refcount_order(BlockDriverState *bs, unsigned order, Qcow2Progress *progress,
                                                GError **errp)
{
    Width w = { .bs = bs, .meta = qcow2_meta(bs), .progress = progress };
    Qcow2Header wanted = w.meta->s->header;
    wanted.refcount_order = order;
    /* clang-format off */
    bool ok = begin(&w, &wanted, errp) &&
              find_old(&w, errp) &&
              look_at_counts(&w, errp) &&
              lay_out(&w, errp) &&
              make_table(&w, errp) &&
              replace(&w, errp);
    /* clang-format on */
    qcow2_bulk_end(&w.bulk);
    qcow2_cluster_set_destroy(&w.gone);
    qcow2_table_destroy(&w.table);
    g_free(w.needed);
    return ok;
}
