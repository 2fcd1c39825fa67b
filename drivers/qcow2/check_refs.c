/* SPDX-License-Identifier: MIT */
/* Counts of references, in blocks of the layout of refcount blocks. */

#include <errno.h>
#include <stdlib.h>

#include "drivers/qcow2/check.h"

void qcow2_check_refs_init(Qcow2CheckRefs *refs, const Qcow2Geometry *geometry, uint64_t max_bytes)
{
    *refs = (Qcow2CheckRefs){
        .order = geometry->refcount_order,
        .refblock_bits = geometry->refblock_bits,
        .block_bytes = geometry->cluster_size,
        .max_bytes = max_bytes,
        .blocks = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free),
        .last_index = -1,
    };
}

void qcow2_check_refs_clear(Qcow2CheckRefs *refs)
{
    g_clear_pointer(&refs->blocks, g_hash_table_unref);
}

uint8_t *qcow2_check_refs_block(Qcow2CheckRefs *refs, uint64_t index)
{
    if (refs->last_index != (int64_t)index) {
        gint64 key = (gint64)index;
        refs->last = g_hash_table_lookup(refs->blocks, &key);
        refs->last_index = (int64_t)index;
    }
    return refs->last;
}

static int compare_indexes(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

size_t qcow2_check_refs_from(Qcow2CheckRefs *refs, uint64_t first, int64_t **indexes)
{
    size_t count = 0;
    int64_t *out = g_new(int64_t, g_hash_table_size(refs->blocks) + 1);
    GHashTableIter iter;
    void *key;
    g_hash_table_iter_init(&iter, refs->blocks);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        if (*(gint64 *)key >= (int64_t)first) {
            out[count++] = *(gint64 *)key;
        }
    }
    qsort(out, count, sizeof(*out), compare_indexes);
    *indexes = out;
    return count;
}

static uint8_t *block_for_writing(Qcow2CheckRefs *refs, uint64_t index)
{
    uint8_t *block = qcow2_check_refs_block(refs, index);
    if (!block && refs->bytes + refs->block_bytes <= refs->max_bytes) {
        block = g_try_malloc0(refs->block_bytes);
        if (block) {
            refs->bytes += refs->block_bytes;
            gint64 *key = g_new(gint64, 1);
            *key = (gint64)index;
            g_hash_table_insert(refs->blocks, key, block);
            refs->last = block;
        }
    }
    return block;
}

uint64_t qcow2_check_refs_get(Qcow2CheckRefs *refs, uint64_t cluster)
{
    const uint8_t *block = qcow2_check_refs_block(refs, cluster >> refs->refblock_bits);
    uint64_t mask = (UINT64_C(1) << refs->refblock_bits) - 1;
    return block ? qcow2_refcount_get(block, cluster & mask, refs->order) : 0;
}

int qcow2_check_refs_add(Qcow2CheckRefs *refs, uint64_t cluster)
{
    uint8_t *block = block_for_writing(refs, cluster >> refs->refblock_bits);
    if (!block) {
        return -ENOMEM;
    }
    uint64_t index = cluster & ((UINT64_C(1) << refs->refblock_bits) - 1);
    uint64_t count = qcow2_refcount_get(block, index, refs->order);
    if (count == qcow2_refcount_limit(refs->order)) {
        return -ERANGE;
    }
    qcow2_refcount_set(block, index, refs->order, count + 1);
    return 0;
}

void qcow2_check_refs_drop(Qcow2CheckRefs *refs, uint64_t cluster)
{
    uint8_t *block = qcow2_check_refs_block(refs, cluster >> refs->refblock_bits);
    uint64_t index = cluster & ((UINT64_C(1) << refs->refblock_bits) - 1);
    uint64_t count = block ? qcow2_refcount_get(block, index, refs->order) : 0;
    if (count) {
        qcow2_refcount_set(block, index, refs->order, count - 1);
    }
}
