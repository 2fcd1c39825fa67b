/* SPDX-License-Identifier: MIT */
/* L1 and L2 tables: looking up without a lock, making tables, publishing entries. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/qcow2/meta/meta_int.h"

/* Where the entry of a guest offset is. */
typedef struct Place {
    uint64_t l1_index;
    uint64_t slice_offset; /* of its slice in the table */
    unsigned slice_index;  /* in the slice */
} Place;

static unsigned slice_entries(const Qcow2Meta *meta)
{
    return meta->l2.slice_bytes / meta->s->geometry.l2_entry_bytes;
}

static Place place_of(const Qcow2Meta *meta, uint64_t guest_offset)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t cluster = guest_offset >> g->cluster_bits;
    uint64_t l2_index = cluster & (g->l2_entries - 1);
    return (Place){
        .l1_index = cluster >> g->l2_bits,
        .slice_offset = l2_index / slice_entries(meta) * meta->l2.slice_bytes,
        .slice_index = (unsigned)(l2_index % slice_entries(meta)),
    };
}

uint64_t qcow2_l2_slice_end(BlockDriverState *bs, uint64_t guest_offset)
{
    const Qcow2Meta *meta = qcow2_meta(bs);
    uint64_t bytes = (uint64_t)slice_entries(meta) << meta->s->geometry.cluster_bits;
    return (guest_offset / bytes + 1) * bytes;
}

static int coroutine_fn bad_l1_entry(Qcow2Meta *meta, uint64_t l1_index, uint64_t entry, const char *problem)
{
    g_autofree char *text = g_strdup_printf("L1 entry %" PRIu64 " is 0x%" PRIx64 ": %s", l1_index, entry, problem);
    qcow2_mark_corrupt(meta->bs, text);
    return -EIO;
}

/* The L1 entry, or -EIO. */
static int coroutine_fn get_l1(Qcow2Meta *meta, uint64_t l1_index, uint64_t *entry)
{
    if (G_UNLIKELY(l1_index >= meta->l1.count)) {
        *entry = 0;
        return 0;
    }
    *entry = qcow2_table_get(&meta->l1, l1_index);
    const char *problem = qcow2_l1_entry_problem(*entry, meta->s->geometry.cluster_bits);
    return G_LIKELY(!problem) ? 0 : bad_l1_entry(meta, l1_index, *entry, problem);
}

/* Every slice is dirty and a commit fails: answer from the file, which is right for what is not cached. */
static int coroutine_fn read_uncached(Qcow2Meta *meta, uint64_t host_offset, unsigned count, Qcow2RawEntry *entries)
{
    const Qcow2Geometry *g = &meta->s->geometry;
    uint64_t bytes = (uint64_t)count * g->l2_entry_bytes;
    uint8_t *buf = g_try_malloc(bytes);
    int ret = buf ? bdrv_co_pread(meta->bs->file, (int64_t)host_offset, (int64_t)bytes, buf, 0) : -ENOMEM;
    for (unsigned i = 0; i < count && ret >= 0; i++) {
        entries[i] = qcow2_l2_entry_load(buf, i, g);
    }
    g_free(buf);
    return ret < 0 ? ret : 0;
}

static int coroutine_fn read_slice_slow(Qcow2Meta *meta, uint64_t tag, unsigned first, unsigned count,
                                        Qcow2RawEntry *entries)
{
    Qcow2Slice *slice;
    pthread_mutex_lock(&meta->l2.lock);
    int ret = qcow2_cache_get_locked(&meta->l2, tag, true, &slice);
    if (ret >= 0) {
        for (unsigned i = 0; i < count; i++) {
            entries[i] = qcow2_cache_load_locked(&meta->l2, slice, first + i);
        }
    }
    bool full = !slice && meta->l2.dirty_count + meta->l2.committing_count >= meta->l2.count;
    pthread_mutex_unlock(&meta->l2.lock);
    return full ? read_uncached(meta, tag + (uint64_t)first * meta->s->geometry.l2_entry_bytes, count, entries) : ret;
}

int coroutine_fn qcow2_l2_read(BlockDriverState *bs, uint64_t guest_offset, Qcow2RawEntry *entries, unsigned max)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    Place place = place_of(meta, guest_offset);
    unsigned count = MIN(max, slice_entries(meta) - place.slice_index);
    uint64_t l1_entry;

    int ret = get_l1(meta, place.l1_index, &l1_entry);
    if (G_UNLIKELY(ret < 0)) {
        return ret;
    }
    uint64_t table = l1_entry & QCOW2_OFFSET_MASK;
    if (!table) {
        memset(entries, 0, count * sizeof(*entries));
        return (int)count;
    }
    uint64_t tag = table + place.slice_offset;
    if (G_UNLIKELY(!qcow2_cache_read_entries(&meta->l2, tag, place.slice_index, count, entries))) {
        ret = read_slice_slow(meta, tag, place.slice_index, count, entries);
    }
    return ret < 0 ? ret : (int)count;
}

uint64_t qcow2_l2_missing_end(BlockDriverState *bs, uint64_t guest_offset, uint64_t end)
{
    const Qcow2Meta *meta = qcow2_meta(bs);
    const Qcow2Geometry *g = &meta->s->geometry;
    unsigned shift = g->cluster_bits + g->l2_bits;
    uint64_t l1_index = guest_offset >> shift;

    while (guest_offset < end && (l1_index >= meta->l1.count || !qcow2_table_get(&meta->l1, l1_index))) {
        guest_offset = ++l1_index << shift;
    }
    return MIN(guest_offset, end);
}

/* Fill a new table: a copy of the shared one, or zeroes. */
static int coroutine_fn write_new_table(Qcow2Meta *meta, uint64_t old_offset, uint64_t new_offset)
{
    uint32_t bytes = meta->s->geometry.cluster_size;
    BlockDriverState *bs = meta->bs;
    void *buf = bdrv_try_blockalign(bs->file->bs, bytes);
    int ret = -ENOMEM;

    if (buf) {
        memset(buf, 0, bytes);
        ret = 0;
        if (old_offset) {
            bdrv_debug_event(bs, BDRV_EVENT_L2_ALLOC_COW_READ);
            ret = bdrv_co_pread(bs->file, (int64_t)old_offset, bytes, buf, 0);
        }
        if (ret >= 0) {
            bdrv_debug_event(bs, BDRV_EVENT_L2_ALLOC_WRITE);
            ret = qcow2_write_meta(meta, new_offset, bytes, buf);
        }
        bdrv_vfree(buf);
    }
    return ret < 0 ? ret : 0;
}

/*
 * Make the table: nothing durable leads to it until its L1 entry goes out in phase B. A shared table
 * is never changed in place, so the file has all of it. table_lock held.
 */
static int coroutine_fn make_table(Qcow2Meta *meta, uint64_t l1_index, uint64_t old_entry)
{
    BlockDriverState *bs = meta->bs;
    uint32_t cluster_size = meta->s->geometry.cluster_size;
    uint64_t old_offset = old_entry & QCOW2_OFFSET_MASK;
    Qcow2Allocation table;

    int ret = qcow2_alloc_clusters(bs, 0, 1, &table);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_note_metadata(meta, table.host_offset, cluster_size);
    if (ret >= 0) {
        pthread_mutex_lock(&meta->l2.lock);
        qcow2_cache_forget_locked(&meta->l2, table.host_offset, cluster_size);
        pthread_mutex_unlock(&meta->l2.lock);
        ret = write_new_table(meta, old_offset, table.host_offset);
    }
    if (ret < 0) {
        qcow2_release_clusters(bs, table.host_offset, 1);
        return ret;
    }
    bdrv_debug_event(bs, BDRV_EVENT_L1_UPDATE);
    pthread_mutex_lock(&meta->l2.lock);
    qcow2_table_set(&meta->l1, l1_index, table.host_offset | QCOW2_COPIED);
    pthread_mutex_unlock(&meta->l2.lock);
    if (old_offset) {
        qcow2_drop_clusters(bs, old_offset, 1, QCOW2_DISCARD_OTHER);
    }
    qcow2_background_stir(meta);
    return 0;
}

int coroutine_fn qcow2_l2_prepare(BlockDriverState *bs, uint64_t guest_offset)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    uint64_t l1_index = place_of(meta, guest_offset).l1_index;
    uint64_t entry;

    if (l1_index >= meta->l1.count) {
        return -EFBIG;
    }
    int ret = get_l1(meta, l1_index, &entry);
    if (ret < 0 || (entry & QCOW2_COPIED)) {
        return ret;
    }
    co_mutex_lock(&meta->table_lock);
    ret = get_l1(meta, l1_index, &entry);
    if (ret >= 0 && !(entry & QCOW2_COPIED)) {
        ret = make_table(meta, l1_index, entry);
    }
    co_mutex_unlock(&meta->table_lock);
    return ret;
}

int coroutine_fn qcow2_l2_publish(BlockDriverState *bs, uint64_t guest_offset, const Qcow2RawEntry *entries,
                                  unsigned count, Qcow2RawEntry *old)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    Place place = place_of(meta, guest_offset);
    Qcow2Slice *slice = NULL;
    bool crowded = false;

    if (atomic_load_explicit(&meta->s->corrupt, memory_order_relaxed)) {
        return -EIO;
    }
    int ret = qcow2_l2_prepare(bs, guest_offset);
    if (ret < 0) {
        return ret;
    }
    bdrv_debug_event(bs, BDRV_EVENT_L2_UPDATE);
    co_maybe_yield();
    pthread_mutex_lock(&meta->l2.lock);
    /* Once prepared the table stays: it could only become shared with the node drained. */
    uint64_t table = qcow2_table_get(&meta->l1, place.l1_index) & QCOW2_OFFSET_MASK;
    ret = qcow2_cache_get_locked(&meta->l2, table + place.slice_offset, true, &slice);
    if (ret >= 0) {
        qcow2_cache_store_locked(&meta->l2, slice, place.slice_index, entries, count, old);
        crowded = qcow2_cache_crowded_locked(&meta->l2);
    }
    pthread_mutex_unlock(&meta->l2.lock);
    if (ret >= 0) {
        qcow2_background_stir(meta);
    }
    if (crowded) {
        qcow2_background_commit(meta);
    }
    return ret;
}

void qcow2_meta_drop_tables(BlockDriverState *bs, uint64_t guest_offset)
{
    Qcow2Meta *meta = qcow2_meta(bs);

    for (uint64_t i = place_of(meta, guest_offset).l1_index; i < meta->l1.count; i++) {
        uint64_t table = qcow2_table_get(&meta->l1, i) & QCOW2_OFFSET_MASK;

        if (table) {
            pthread_mutex_lock(&meta->l2.lock);
            qcow2_table_set(&meta->l1, i, 0);
            qcow2_cache_forget_locked(&meta->l2, table, meta->s->geometry.cluster_size); /* its space may go */
            pthread_mutex_unlock(&meta->l2.lock);
            qcow2_drop_clusters(bs, table, 1, QCOW2_DISCARD_OTHER);
        }
    }
    qcow2_background_stir(meta);
}

static void edit_l1(Qcow2Header *header, const void *opaque)
{
    const Qcow2Table *table = opaque;
    header->l1_table_offset = table->host_offset;
    header->l1_size = (uint32_t)table->count;
}

/* The new table with the old entries, written and flushed, is what the header is switched to. */
static int coroutine_fn switch_l1(Qcow2Meta *meta, Qcow2Table *table)
{
    uint64_t bytes = (table->count + QCOW2_SECTOR_ENTRIES - 1) / QCOW2_SECTOR_ENTRIES * QCOW2_SECTOR;
    uint8_t *buf = bdrv_try_blockalign(meta->bs->file->bs, bytes);
    if (!buf) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < meta->l1.count; i++) {
        atomic_store_explicit(&table->entries[i], qcow2_table_get(&meta->l1, i), memory_order_relaxed);
    }
    for (uint64_t sector = 0; sector < bytes / QCOW2_SECTOR; sector++) {
        qcow2_table_copy_sector(table, sector, buf + sector * QCOW2_SECTOR);
    }
    bdrv_debug_event(meta->bs, BDRV_EVENT_L1_GROW_WRITE_TABLE);
    int ret = qcow2_write_meta(meta, table->host_offset, bytes, buf);
    bdrv_vfree(buf);
    if (ret >= 0) {
        ret = bdrv_co_flush(meta->bs->file);
    }
    if (ret >= 0) {
        bdrv_debug_event(meta->bs, BDRV_EVENT_L1_GROW_ACTIVATE_TABLE);
        ret = qcow2_switch_header(meta, edit_l1, table);
    }
    return ret;
}

/* @table becomes the one in use and gets the old one, which no reader is on: drained. commit_lock held. */
static void exchange_l1(Qcow2Meta *meta, Qcow2Table *table)
{
    pthread_mutex_lock(&meta->l2.lock);
    qcow2_table_swap(&meta->l1, table);
    pthread_mutex_unlock(&meta->l2.lock);
}

/* Replace meta->l1 by a table of @count entries at @host_offset; the old one's clusters go to limbo. */
static int coroutine_fn move_l1(Qcow2Meta *meta, uint64_t count, uint64_t host_offset, uint64_t *old_clusters)
{
    Qcow2Table table;
    if (!qcow2_table_init(&table, count, host_offset)) {
        return -ENOMEM;
    }
    co_mutex_lock(&meta->commit_lock);
    int ret = switch_l1(meta, &table);
    if (ret >= 0) {
        exchange_l1(meta, &table);
        *old_clusters = qcow2_clusters_of(&meta->s->geometry, table.count * sizeof(uint64_t));
    }
    co_mutex_unlock(&meta->commit_lock);
    qcow2_table_destroy(&table);
    return ret;
}

int coroutine_fn qcow2_meta_grow_l1(BlockDriverState *bs, uint64_t entries)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    uint32_t cluster_size = meta->s->geometry.cluster_size;
    uint64_t old_offset = meta->l1.host_offset, old_clusters = 0, host_offset;

    if (entries <= meta->l1.count) {
        return 0;
    }
    if (entries > QCOW2_MAX_L1_BYTES / sizeof(uint64_t)) {
        return -EFBIG;
    }
    uint64_t clusters = qcow2_clusters_of(&meta->s->geometry, entries * sizeof(uint64_t));
    bdrv_debug_event(bs, BDRV_EVENT_L1_GROW_ALLOC_TABLE);
    int ret = qcow2_alloc_contiguous(bs, clusters, &host_offset);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_note_metadata(meta, host_offset, clusters * cluster_size);
    if (ret >= 0) {
        /* Refcounts of the new table, and all that the L1 entries in memory say, before the switch. */
        ret = qcow2_meta_commit(bs);
    }
    if (ret >= 0) {
        ret = move_l1(meta, entries, host_offset, &old_clusters);
    }
    if (ret < 0) {
        if (!meta->header_in_doubt) {
            qcow2_release_clusters(bs, host_offset, clusters);
        }
        return ret;
    }
    if (old_clusters) {
        qcow2_drop_clusters(bs, old_offset, old_clusters, QCOW2_DISCARD_OTHER);
    }
    return 0;
}

/* ---- the table as a whole ---- */

uint64_t qcow2_meta_l1_entries(BlockDriverState *bs)
{
    return qcow2_meta(bs)->l1.count;
}

void qcow2_meta_get_l1(BlockDriverState *bs, uint64_t *entries)
{
    const Qcow2Table *l1 = &qcow2_meta(bs)->l1;
    for (uint64_t i = 0; i < l1->count; i++) {
        entries[i] = qcow2_table_get(l1, i);
    }
}

void qcow2_meta_set_l1(BlockDriverState *bs, const uint64_t *entries)
{
    Qcow2Meta *meta = qcow2_meta(bs);

    pthread_mutex_lock(&meta->l2.lock);
    for (uint64_t i = 0; i < meta->l1.count; i++) {
        if (qcow2_table_get(&meta->l1, i) != entries[i]) {
            qcow2_table_set(&meta->l1, i, entries[i]);
        }
    }
    pthread_mutex_unlock(&meta->l2.lock);
    qcow2_background_stir(meta);
}

int coroutine_fn qcow2_meta_replace_l1(BlockDriverState *bs, const uint64_t *entries, uint64_t count,
                                       uint64_t host_offset, Qcow2HeaderEdit *edit, const void *opaque)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    Qcow2Table table;

    if (!qcow2_table_init(&table, count, host_offset)) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < count; i++) {
        atomic_store_explicit(&table.entries[i], entries[i], memory_order_relaxed);
    }
    co_mutex_lock(&meta->commit_lock);
    bdrv_debug_event(bs, BDRV_EVENT_L1_UPDATE);
    int ret = edit ? qcow2_switch_header(meta, edit, opaque) : 0;
    if (ret >= 0) {
        exchange_l1(meta, &table);
    }
    co_mutex_unlock(&meta->commit_lock);
    qcow2_table_destroy(&table);
    return ret;
}
