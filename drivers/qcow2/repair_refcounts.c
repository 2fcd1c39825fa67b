/* SPDX-License-Identifier: MIT */
/* Refcounts of a repaired image: free clusters while its tree is made, new structures, counts changed in place. */

#include <errno.h>
#include <string.h>

#include "block/util/bytes.h"
#include "drivers/qcow2/repair.h"

uint64_t qcow2_repair_refcounts_end(const Qcow2Geometry *g)
{
    return MIN((uint64_t)(QCOW2_MAX_REFTABLE_BYTES / 8) << g->refblock_bits, (uint64_t)INT64_MAX >> g->cluster_bits);
}

/* ---- free clusters ---- */

/* Not referenced by the old tree or the new one, and not counted as leaked: what was lost may be looked for there. */
static bool coroutine_fn is_free(Qcow2Repair *r, uint64_t cluster)
{
    const Qcow2Geometry *g = &r->c->s->geometry;
    const uint8_t *disk;
    if (qcow2_check_refs_get(&r->c->refs, cluster) || qcow2_check_refs_get(&r->refs, cluster)) {
        return false;
    }
    int ret = qcow2_check_disk_block(r->c, cluster >> g->refblock_bits, &disk);
    uint64_t mask = (UINT64_C(1) << g->refblock_bits) - 1;
    return ret < 0 || !disk || qcow2_refcount_get(disk, cluster & mask, g->refcount_order) == 0;
}

int coroutine_fn qcow2_repair_alloc(Qcow2Repair *r, uint64_t count, uint64_t *host_offset)
{
    const Qcow2Geometry *g = &r->c->s->geometry;
    uint64_t limit = qcow2_repair_refcounts_end(g), run = 0, at = r->cursor;
    if (r->dry) {
        return -ECANCELED;
    }
    if (count > r->max_allocated - r->allocated) {
        return -EFBIG;
    }
    while (run < count && at < limit) {
        bool is = is_free(r, at++);
        run = is ? run + 1 : 0;
        if ((at & 0xffff) == 0) {
            co_maybe_yield();
        }
    }
    if (run < count) {
        return -ENOSPC;
    }
    uint64_t first = at - count;
    for (uint64_t i = 0; i < count; i++) {
        int ret = qcow2_check_refs_add(&r->refs, first + i);
        if (ret < 0) {
            return ret;
        }
    }
    /* Gaps that were too short for a table are left: free clusters abound behind them. */
    r->cursor = at;
    r->allocated += count;
    *host_offset = first << g->cluster_bits;
    return 0;
}

/* ---- new structures ---- */

typedef struct NewRefcounts {
    uint64_t *table;      /* host offset of each block, 0: none */
    uint64_t entries;     /* of the table, a whole number of clusters */
    uint64_t host_offset; /* of the table */
} NewRefcounts;

static bool block_in_use(Qcow2Repair *r, uint64_t index)
{
    const uint8_t *block = qcow2_check_refs_block(&r->refs, index);
    return block && !bdrv_buffer_is_zero(block, r->refs.block_bytes);
}

/* Blocks for all that is counted, themselves too. Sets *@end to the last index + 1. */
static int coroutine_fn allocate_blocks(Qcow2Repair *r, NewRefcounts *n, uint64_t *end)
{
    uint64_t max_entries = QCOW2_MAX_REFTABLE_BYTES / 8;
    bool more = true;
    *end = 0;
    while (more) {
        g_autofree int64_t *indexes = NULL;
        size_t count = qcow2_check_refs_from(&r->refs, 0, &indexes);
        more = false;
        for (size_t i = 0; i < count; i++) {
            uint64_t index = (uint64_t)indexes[i];
            if (!block_in_use(r, index)) {
                continue;
            }
            if (index >= max_entries) {
                return -EFBIG;
            }
            *end = MAX(*end, index + 1);
            if (!n->table[index]) {
                int ret = qcow2_repair_alloc(r, 1, &n->table[index]);
                if (ret < 0) {
                    return ret;
                }
                more = true;
            }
        }
    }
    return 0;
}

/* Table and blocks describe each other: until a round adds nothing. */
static int coroutine_fn allocate_structures(Qcow2Repair *r, NewRefcounts *n)
{
    const Qcow2Geometry *g = &r->c->s->geometry;
    uint64_t per_cluster = g->cluster_size / 8, end;
    int ret = allocate_blocks(r, n, &end);
    while (ret >= 0 && end > n->entries) {
        for (uint64_t i = 0; i < n->entries / per_cluster; i++) { /* too short: somewhere else, longer */
            qcow2_check_refs_drop(&r->refs, (n->host_offset >> g->cluster_bits) + i);
        }
        uint64_t clusters = (end + per_cluster - 1) / per_cluster;
        ret = qcow2_repair_alloc(r, clusters, &n->host_offset);
        if (ret >= 0) {
            n->entries = clusters * per_cluster;
            ret = allocate_blocks(r, n, &end);
        }
    }
    return ret;
}

static int coroutine_fn write_structures(Qcow2Repair *r, NewRefcounts *n, uint8_t *cluster)
{
    uint32_t cluster_size = r->c->s->geometry.cluster_size;
    uint64_t per_cluster = cluster_size / 8;
    int ret = 0;
    for (uint64_t i = 0; i < n->entries && ret >= 0; i++) {
        if (n->table[i]) {
            const uint8_t *block = qcow2_check_refs_block(&r->refs, i);
            ret = qcow2_rewrite(r->rewrite, QCOW2_REWRITE_NEW, n->table[i], cluster_size, block);
        }
    }
    for (uint64_t at = 0; at < n->entries && ret >= 0; at += per_cluster) {
        for (uint64_t i = 0; i < per_cluster; i++) {
            store_be64(cluster + 8 * i, n->table[at + i]);
        }
        ret = qcow2_rewrite(r->rewrite, QCOW2_REWRITE_NEW, n->host_offset + at * 8, cluster_size, cluster);
    }
    return ret;
}

int coroutine_fn qcow2_repair_write_refcounts(Qcow2Repair *r)
{
    uint32_t cluster_size = r->c->s->geometry.cluster_size;
    NewRefcounts n = { .table = g_try_malloc0(QCOW2_MAX_REFTABLE_BYTES) };
    uint8_t *cluster = g_try_malloc(cluster_size);
    int ret = n.table && cluster ? allocate_structures(r, &n) : -ENOMEM;
    if (ret >= 0) {
        ret = write_structures(r, &n, cluster);
    }
    if (ret >= 0) {
        r->header.refcount_table_offset = n.host_offset;
        r->header.refcount_table_clusters = (uint32_t)(n.entries * 8 / cluster_size);
    }
    g_free(cluster);
    g_free(n.table);
    return ret;
}

/* ---- in place ---- */

/* @block becomes what @phase may make of it; false if that is what it was. */
static bool adjust_block(Qcow2Check *c, uint8_t *block, const uint8_t *counted, uint64_t entries,
                         Qcow2RewritePhase phase)
{
    unsigned order = c->s->geometry.refcount_order;
    bool changed = false;
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t refcount = qcow2_refcount_get(block, i, order);
        uint64_t references = counted ? qcow2_refcount_get(counted, i, order) : 0;
        if (phase == QCOW2_REWRITE_RAISE ? refcount < references : refcount > references) {
            qcow2_refcount_set(block, i, order, references);
            changed = true;
        }
    }
    return changed;
}

int coroutine_fn qcow2_repair_in_place(Qcow2Check *c, Qcow2Rewrite *rewrite, Qcow2RewritePhase phase)
{
    const Qcow2Geometry *g = &c->s->geometry;
    uint8_t *block = g_try_malloc(g->cluster_size);
    int ret = block ? 0 : -ENOMEM;
    for (uint64_t index = 0; ret >= 0 && index < c->refcount_table_entries; index++) {
        uint64_t first = index << g->refblock_bits;
        const uint8_t *disk, *counted = qcow2_check_refs_block(&c->refs, index);
        if (first >= c->end_clusters || qcow2_check_disk_block(c, index, &disk) < 0 || !disk) {
            continue;
        }
        memcpy(block, disk, g->cluster_size);
        uint64_t entries = MIN(UINT64_C(1) << g->refblock_bits, c->end_clusters - first);
        if (adjust_block(c, block, counted, entries, phase)) {
            uint64_t offset = load_be64(c->refcount_table + 8 * index) & QCOW2_REFTABLE_OFFSET_MASK;
            ret = qcow2_rewrite(rewrite, phase, offset, g->cluster_size, block);
            c->disk_block_index[index % c->disk_block_slots] = -1; /* read it again */
        }
    }
    g_free(block);
    return ret;
}
