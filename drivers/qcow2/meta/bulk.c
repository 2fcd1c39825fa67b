/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/meta/bulk.h"

#include <errno.h>

#include "drivers/qcow2/compressed.h"
#include "drivers/qcow2/meta/meta_int.h"

#define SLOTS_BYTES (4u << 20)
#define MIN_SLOTS 4u
#define MAX_SLOTS 4096u
#define MAX_FREED (1u << 16)

static void forget_caches(Qcow2Meta *meta)
{
    pthread_mutex_lock(&meta->rc.lock);
    qcow2_cache_forget_all_locked(&meta->rc);
    pthread_mutex_unlock(&meta->rc.lock);
    pthread_mutex_lock(&meta->l2.lock);
    qcow2_cache_forget_all_locked(&meta->l2);
    pthread_mutex_unlock(&meta->l2.lock);
}

int coroutine_fn qcow2_bulk_begin(Qcow2Bulk *bulk, BlockDriverState *bs, Qcow2DiscardType why)
{
    unsigned slots = CLAMP(SLOTS_BYTES >> qcow2_state(bs)->geometry.cluster_bits, MIN_SLOTS, MAX_SLOTS);

    *bulk = (Qcow2Bulk){ .bs = bs, .slot_count = slots, .why = why };
    bulk->slots = g_try_new0(Qcow2BulkSlot, slots);
    bulk->freed = g_try_new(Qcow2BulkRun, MAX_FREED);
    if (!bulk->slots || !bulk->freed) {
        qcow2_bulk_end(bulk);
        return -ENOMEM;
    }
    forget_caches(qcow2_meta(bs));
    return 0;
}

void qcow2_bulk_renew(Qcow2Bulk *bulk)
{
    for (unsigned i = 0; i < bulk->slot_count; i++) {
        bulk->slots[i].host_offset = 0;
        bulk->slots[i].dirty = false;
    }
    forget_caches(qcow2_meta(bulk->bs));
}

void qcow2_bulk_end(Qcow2Bulk *bulk)
{
    for (unsigned i = 0; bulk->slots && i < bulk->slot_count; i++) {
        bdrv_vfree(bulk->slots[i].counts);
    }
    g_free(bulk->slots);
    g_free(bulk->freed);
    if (bulk->bs) {
        forget_caches(qcow2_meta(bulk->bs));
    }
    *bulk = (Qcow2Bulk){ 0 };
}

/* ---- blocks ---- */

static int coroutine_fn write_slot(Qcow2Bulk *bulk, Qcow2BulkSlot *slot)
{
    int ret = 0;
    if (slot->dirty) {
        bdrv_debug_event(bulk->bs, BDRV_EVENT_REFBLOCK_UPDATE);
        ret = qcow2_write_meta(qcow2_meta(bulk->bs), slot->host_offset, qcow2_state(bulk->bs)->geometry.cluster_size,
                               slot->counts);
        slot->dirty = ret < 0;
    }
    return ret;
}

/* The block that counts @cluster; *@out is NULL if there is none. */
static int coroutine_fn get_slot(Qcow2Bulk *bulk, uint64_t cluster, Qcow2BulkSlot **out)
{
    Qcow2Meta *meta = qcow2_meta(bulk->bs);
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t index = cluster >> g->refblock_bits;
    uint64_t block = index < meta->reftable.count ? qcow2_table_get(&meta->reftable, index) : 0;
    Qcow2BulkSlot *slot = &bulk->slots[index % bulk->slot_count];

    *out = NULL;
    if (block & ~QCOW2_REFTABLE_OFFSET_MASK || block & (g->cluster_size - 1)) {
        return -EILSEQ;
    }
    if (block && slot->host_offset != block) {
        int ret = write_slot(bulk, slot);
        if (ret >= 0 && !slot->counts) {
            slot->counts = bdrv_try_blockalign(bulk->bs->file->bs, g->cluster_size);
            ret = slot->counts ? 0 : -ENOMEM;
        }
        if (ret < 0) {
            return ret;
        }
        slot->host_offset = 0;
        bdrv_debug_event(bulk->bs, BDRV_EVENT_REFBLOCK_LOAD);
        ret = bdrv_co_pread(bulk->bs->file, (int64_t)block, g->cluster_size, slot->counts, 0);
        if (ret < 0) {
            return ret;
        }
        slot->host_offset = block;
    }
    *out = block ? slot : NULL;
    return 0;
}

/* ---- freeing ---- */

static void coroutine_fn free_run(Qcow2Bulk *bulk, const Qcow2BulkRun *run, bool durable)
{
    Qcow2Meta *meta = qcow2_meta(bulk->bs);
    unsigned bits = meta->s->geometry.cluster_bits;
    int64_t begin = (int64_t)(run->first << bits), end = (int64_t)((run->first + run->count) << bits);

    pthread_mutex_lock(&meta->rc.lock);
    qcow2_unmap_free_locked(meta, run->first, run->count);
    pthread_mutex_unlock(&meta->rc.lock);
    qcow2_compressed_forget(bulk->bs, (uint64_t)begin, (uint64_t)(end - begin));
    end = MIN(end, atomic_load(&bulk->bs->file->bs->length));
    if (durable && meta->s->discard.pass[bulk->why] && begin < end) {
        bdrv_co_pdiscard(bulk->bs->file, begin, end - begin); /* a hint */
    }
}

int coroutine_fn qcow2_bulk_sync(Qcow2Bulk *bulk)
{
    int ret = 0;
    for (unsigned i = 0; i < bulk->slot_count; i++) {
        int slot_ret = write_slot(bulk, &bulk->slots[i]);
        ret = ret < 0 ? ret : slot_ret;
        co_maybe_yield();
    }
    ret = ret < 0 ? ret : bdrv_co_flush(bulk->bs->file);
    if (bulk->freed_count) {
        bdrv_debug_event(bulk->bs, BDRV_EVENT_CLUSTER_FREE);
    }
    for (unsigned i = 0; i < bulk->freed_count; i++) {
        free_run(bulk, &bulk->freed[i], ret >= 0);
    }
    bulk->freed_count = 0;
    return ret;
}

/* @cluster's count is 0 now. There is room for it. */
static void note_freed(Qcow2Bulk *bulk, uint64_t cluster)
{
    Qcow2BulkRun *last = bulk->freed_count ? &bulk->freed[bulk->freed_count - 1] : NULL;
    if (last && last->first + last->count == cluster) {
        last->count++;
    } else {
        bulk->freed[bulk->freed_count++] = (Qcow2BulkRun){ cluster, 1 };
    }
}

/* ---- counts ---- */

int coroutine_fn qcow2_bulk_get(Qcow2Bulk *bulk, uint64_t cluster, uint64_t *count)
{
    const Qcow2Geometry *g = &qcow2_state(bulk->bs)->geometry;
    Qcow2BulkSlot *slot;
    int ret = get_slot(bulk, cluster, &slot);
    uint64_t in_block = cluster & ((UINT64_C(1) << g->refblock_bits) - 1);

    *count = ret >= 0 && slot ? qcow2_refcount_get(slot->counts, in_block, g->refcount_order) : 0;
    return ret;
}

/* One count of the block in @slot; @index: of @cluster in it. */
static int add_one(Qcow2Bulk *bulk, Qcow2BulkSlot *slot, uint64_t index, uint64_t cluster, int delta)
{
    const Qcow2Geometry *g = &qcow2_state(bulk->bs)->geometry;
    uint64_t count = qcow2_refcount_get(slot->counts, index, g->refcount_order);
    if (count == 0) {
        return -EILSEQ;
    }
    if (delta > 0 && count == g->refcount_max) {
        return -ERANGE;
    }
    count += delta > 0 ? 1 : -1;
    qcow2_refcount_set(slot->counts, index, g->refcount_order, count);
    slot->dirty = true;
    if (count == 0) {
        note_freed(bulk, cluster);
    }
    return 0;
}

int coroutine_fn qcow2_bulk_add(Qcow2Bulk *bulk, uint64_t first, uint64_t count, int delta, uint64_t *done)
{
    uint64_t mask = (UINT64_C(1) << qcow2_state(bulk->bs)->geometry.refblock_bits) - 1;

    for (*done = 0; *done < count;) {
        Qcow2BulkSlot *slot;
        uint64_t at = first + *done, index = at & mask, end = *done + MIN(count - *done, mask + 1 - index);
        int ret = bulk->freed_count > MAX_FREED / 2 ? qcow2_bulk_sync(bulk) : 0;
        end = MIN(end, *done + MAX_FREED / 2);
        ret = ret < 0 ? ret : get_slot(bulk, at, &slot);
        if (ret < 0 || !slot) {
            return ret < 0 ? ret : -EILSEQ;
        }
        while (*done < end) {
            ret = add_one(bulk, slot, index++, first + *done, delta);
            if (ret < 0) {
                return ret;
            }
            ++*done;
        }
    }
    return 0;
}
