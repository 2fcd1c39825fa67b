/* SPDX-License-Identifier: MIT */
/* Opening and closing of the cached metadata. Start reading at docs/qcow2-metadata.md, then commit.c. */

#include "drivers/qcow2/meta/meta.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/qcow2/inflight.h"
#include "drivers/qcow2/meta/meta_int.h"

/* ---- open ---- */

static bool no_memory(GError **errp, const char *what)
{
    g_set_error(errp, BDRV_ERROR, ENOMEM, "not enough memory for %s", what);
    return false;
}

/* Slices that a cache of @bytes has, but no more than all tables of @table_bytes need. */
static unsigned slice_count(int64_t bytes, uint64_t table_bytes, uint32_t slice_bytes)
{
    uint64_t wanted = bytes > 0 ? (uint64_t)bytes / slice_bytes : 0;
    uint64_t useful = table_bytes / slice_bytes + 1;
    return (unsigned)CLAMP(MIN(wanted, useful), 2, 1u << 20);
}

static bool make_caches(BlockDriverState *bs, const Qcow2MetaConfig *config, Qcow2Cache *l2_cache,
                        Qcow2Cache *rc_cache, GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    uint32_t slice = MIN(MAX(config->slice_bytes, QCOW2_SECTOR), s->geometry.cluster_size);
    uint64_t guest_clusters = (s->header.size >> s->geometry.cluster_bits) + 1;
    unsigned l2 = slice_count(config->l2_cache_bytes, guest_clusters * s->geometry.l2_entry_bytes, slice);
    unsigned rc = slice_count(config->refcount_cache_bytes, UINT64_MAX / 2, slice);

    if (!qcow2_cache_init(l2_cache, bs, l2, slice, BDRV_EVENT_L2_LOAD)) {
        return no_memory(errp, "the L2 cache; reduce l2-cache-size");
    }
    l2_cache->entry_words = s->geometry.l2_entry_bytes / sizeof(uint64_t);
    if (!qcow2_cache_init(rc_cache, bs, rc, slice, BDRV_EVENT_REFBLOCK_LOAD)) {
        qcow2_cache_destroy(l2_cache);
        return no_memory(errp, "the refcount cache; reduce refcount-cache-size");
    }
    return true;
}

static bool coroutine_fn load_table(Qcow2Meta *meta, Qcow2Table *table, uint64_t count, uint64_t host_offset,
                                    const char *what, GError **errp)
{
    if (!qcow2_table_init(table, count, host_offset)) {
        return no_memory(errp, what);
    }
    /* Read in place: the entries become atomic when the loop below is through. */
    int ret = count ? bdrv_co_pread(meta->bs->file, (int64_t)host_offset, (int64_t)(count * sizeof(uint64_t)),
                                    (void *)table->entries, 0)
                    : 0;
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "%s at offset %" PRIu64 " cannot be read: %s", what, host_offset,
                    g_strerror(-ret));
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t raw = atomic_load_explicit(&table->entries[i], memory_order_relaxed);
        atomic_store_explicit(&table->entries[i], GUINT64_FROM_BE(raw), memory_order_relaxed);
    }
    return true;
}

static bool coroutine_fn load(Qcow2Meta *meta, GError **errp)
{
    BlockDriverState *bs = meta->bs;
    const Qcow2State *s = meta->s;
    const Qcow2Header *header = &s->header;

    if (!load_table(meta, &meta->l1, header->l1_size, header->l1_table_offset, "the L1 table", errp)) {
        return false;
    }
    bdrv_debug_event(bs, BDRV_EVENT_REFTABLE_LOAD);
    uint64_t entries = (uint64_t)header->refcount_table_clusters * s->geometry.cluster_size / sizeof(uint64_t);
    if (!load_table(meta, &meta->reftable, entries, header->refcount_table_offset, "the refcount table", errp)) {
        return false;
    }
    int ret = bdrv_co_pread(bs->file, 0, QCOW2_SECTOR, meta->header_sector, 0);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "the header cannot be read: %s", g_strerror(-ret));
        return false;
    }
    int64_t length = atomic_load(&bs->file->bs->length);
    meta->high_water = ((uint64_t)length + s->geometry.cluster_size - 1) >> s->geometry.cluster_bits;
    return !meta->writable || qcow2_metadata_map_fill(meta, s->overlap_checks, errp);
}

static void free_meta(Qcow2Meta *meta)
{
    qcow2_background_destroy(meta);
    qcow2_limbo_free(meta);
    qcow2_table_destroy(&meta->l1);
    qcow2_table_destroy(&meta->reftable);
    qcow2_cache_destroy(&meta->l2);
    qcow2_cache_destroy(&meta->rc);
    qcow2_cluster_set_destroy(&meta->metadata);
    qcow2_cluster_set_destroy(&meta->disputed);
    qcow2_cluster_set_destroy(&meta->inactive);
    qcow2_cluster_set_destroy(&meta->busy);
    qcow2_cluster_set_destroy(&meta->unpunched);
    co_mutex_destroy(&meta->pack_lock);
    co_mutex_destroy(&meta->table_lock);
    co_mutex_destroy(&meta->grow_lock);
    co_mutex_destroy(&meta->commit_lock);
    co_mutex_destroy(&meta->header_lock);
    pthread_mutex_destroy(&meta->join_lock);
    bdrv_vfree(meta->arena);
    bdrv_vfree(meta->header_sector);
    free(meta->slots);
    qcow2_inflight_free(meta->s->inflight);
    meta->s->inflight = NULL;
    meta->s->meta = NULL;
    g_free(meta);
}

static void init_locks(Qcow2Meta *meta)
{
    co_mutex_init(&meta->pack_lock);
    co_mutex_init(&meta->table_lock);
    co_mutex_init(&meta->grow_lock);
    co_mutex_init(&meta->commit_lock);
    co_mutex_init(&meta->header_lock);
    pthread_mutex_init(&meta->join_lock, NULL);
    qcow2_background_init(meta);
}

bool coroutine_fn qcow2_meta_open(BlockDriverState *bs, const Qcow2MetaConfig *config, GError **errp)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Meta *meta = g_try_new0(Qcow2Meta, 1);

    if (!meta) {
        return no_memory(errp, "the metadata");
    }
    meta->bs = bs;
    meta->s = s;
    meta->writable = !bs->read_only;
    meta->open_commit = 1;
    meta->dirty_marked = s->header.incompatible_features & QCOW2_INCOMPAT_DIRTY;
    meta->clean = config->clean;
    if (!make_caches(bs, config, &meta->l2, &meta->rc, errp)) {
        g_free(meta);
        return false;
    }
    init_locks(meta);
    s->meta = meta;
    s->inflight = qcow2_inflight_new();
    meta->slots = aligned_alloc(64, AIO_CONTEXT_MAX * sizeof(*meta->slots));
    meta->header_sector = bdrv_try_blockalign(bs->file->bs, QCOW2_SECTOR);
    bool ok = qcow2_cluster_set_init(&meta->metadata) && qcow2_cluster_set_init(&meta->disputed) &&
              qcow2_cluster_set_init(&meta->inactive) && qcow2_cluster_set_init(&meta->busy) &&
              qcow2_cluster_set_init(&meta->unpunched) && s->inflight && meta->slots && meta->header_sector;
    if (!ok) {
        no_memory(errp, "the metadata");
    } else {
        memset(meta->slots, 0, AIO_CONTEXT_MAX * sizeof(*meta->slots));
        ok = load(meta, errp);
    }
    if (!ok) {
        free_meta(meta);
        return false;
    }
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    return true;
}

bool coroutine_fn qcow2_meta_prepare_writable(BlockDriverState *bs, unsigned overlap_checks, GError **errp)
{
    return qcow2_metadata_map_fill(qcow2_meta(bs), overlap_checks, errp);
}

void qcow2_meta_set_writable(BlockDriverState *bs, bool writable)
{
    qcow2_meta(bs)->writable = writable;
}

/* ---- forget and load again ---- */

unsigned coroutine_fn qcow2_meta_suspend(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    unsigned drained = meta->drained;

    qcow2_meta_drain_begin(bs); /* a background commit may be ending */
    free_meta(meta);
    return drained;
}

bool coroutine_fn qcow2_meta_resume(BlockDriverState *bs, unsigned drained, GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    Qcow2MetaConfig config = {
        .l2_cache_bytes = s->cache.l2_bytes,
        .refcount_cache_bytes = s->cache.refcount_bytes,
        .slice_bytes = s->cache.slice_bytes,
        .clean = s->cache.clean,
    };

    if (!qcow2_meta_open(bs, &config, errp)) {
        return false;
    }
    qcow2_meta(bs)->drained = drained;
    return true;
}

/* ---- caches of other sizes ---- */

struct Qcow2NewCaches {
    Qcow2Cache l2, rc;
};

Qcow2NewCaches *coroutine_fn qcow2_meta_prepare_caches(BlockDriverState *bs, const Qcow2MetaConfig *config,
                                                       GError **errp)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    int ret = meta->writable ? qcow2_meta_settle(bs) : 0;
    if (ret >= 0 && (meta->l2.dirty_count || meta->rc.dirty_count)) {
        ret = -EIO;
    }
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot write metadata before the caches get other sizes: %s",
                    g_strerror(-ret));
        return NULL;
    }
    Qcow2NewCaches *caches = g_new0(Qcow2NewCaches, 1);
    if (!make_caches(bs, config, &caches->l2, &caches->rc, errp)) {
        g_clear_pointer(&caches, g_free);
    }
    return caches;
}

void qcow2_meta_abort_caches(Qcow2NewCaches *caches)
{
    if (caches) {
        qcow2_cache_destroy(&caches->l2);
        qcow2_cache_destroy(&caches->rc);
        g_free(caches);
    }
}

void qcow2_meta_commit_caches(BlockDriverState *bs, Qcow2NewCaches *caches, const Qcow2MetaConfig *config)
{
    Qcow2Meta *meta = qcow2_meta(bs);

    if (caches) {
        /* No request is inside, but the caches may be ageing. */
        pthread_mutex_lock(&meta->rc.lock);
        qcow2_cache_swap(&meta->rc, &caches->rc);
        pthread_mutex_unlock(&meta->rc.lock);
        pthread_mutex_lock(&meta->l2.lock);
        qcow2_cache_swap(&meta->l2, &caches->l2);
        pthread_mutex_unlock(&meta->l2.lock);
        qcow2_meta_abort_caches(caches);
    }
    qcow2_background_set_clean(meta, config->clean);
}

/* ---- close ---- */

int coroutine_fn qcow2_meta_close(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    int ret = 0;

    qcow2_meta_drain_begin(bs);
    if (meta->writable) {
        ret = qcow2_meta_clean(bs);
    }
    free_meta(meta);
    return ret;
}
