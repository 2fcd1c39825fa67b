/* SPDX-License-Identifier: MIT */
/*
 * Never corrupt silently: every write is compared with the map of clusters known to hold metadata.
 * Also the header sector, which the corrupt bit lives in.
 */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/qcow2/meta/meta_int.h"

int qcow2_note_metadata(Qcow2Meta *meta, uint64_t host_offset, uint64_t bytes)
{
    unsigned bits = meta->s->geometry.cluster_bits;
    uint64_t first = host_offset >> bits;
    uint64_t end = (host_offset + bytes + (UINT64_C(1) << bits) - 1) >> bits;

    pthread_mutex_lock(&meta->rc.lock);
    bool ok = qcow2_cluster_set_add(&meta->metadata, first, end - first);
    /* They are about to be written: even if that fails the file may be longer and not all zeroes there. */
    meta->high_water = MAX(meta->high_water, end);
    pthread_mutex_unlock(&meta->rc.lock);
    return ok ? 0 : -ENOMEM;
}

static bool touches(const Qcow2Meta *meta, Qcow2ClusterSet *set, uint64_t host_offset, uint64_t bytes)
{
    unsigned bits = meta->s->geometry.cluster_bits;
    uint64_t first = host_offset >> bits, last = (host_offset + bytes - 1) >> bits;
    return qcow2_cluster_set_has_any(set, first, last - first + 1);
}

/* Whether a check that is on speaks against writing where @owners lie. What is not linked (yet) is guarded by any. */
static bool is_guarded(const Qcow2Meta *meta, unsigned owners)
{
    unsigned checks = meta->s->overlap_checks;
    return owners ? owners & checks : checks != 0;
}

static int coroutine_fn metadata_hit(BlockDriverState *bs, uint64_t host_offset, uint64_t bytes)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    unsigned owners = qcow2_overlap_owners(meta, host_offset, bytes);
    if (!is_guarded(meta, owners)) {
        return 0;
    }
    g_autofree char *names = qcow2_overlap_names(owners);
    g_autofree char *text = g_strdup_printf("a write of %" PRIu64 " guest data bytes at host offset 0x%" PRIx64
                                            " would overwrite metadata (%s); run 'bdrv-img check'",
                                            bytes, host_offset, names);
    qcow2_mark_corrupt(bs, text);
    return -EIO;
}

int coroutine_fn qcow2_check_data_write(BlockDriverState *bs, uint64_t host_offset, uint64_t bytes)
{
    Qcow2Meta *meta = qcow2_meta(bs);

    if (!meta->s->geometry.data_file && G_UNLIKELY(touches(meta, &meta->metadata, host_offset, bytes))) {
        return metadata_hit(bs, host_offset, bytes);
    }
    return 0;
}

/* What is wrong with writing metadata there, NULL: nothing */
static const char *meta_write_problem(Qcow2Meta *meta, uint64_t host_offset, uint64_t bytes)
{
    if (G_UNLIKELY(!touches(meta, &meta->metadata, host_offset, bytes))) {
        return "would hit a cluster that holds no metadata";
    }
    if (G_UNLIKELY(touches(meta, &meta->disputed, host_offset, bytes)) &&
        is_guarded(meta, qcow2_overlap_owners(meta, host_offset, bytes))) {
        return "would overwrite another table in the same cluster; run 'bdrv-img check'";
    }
    return NULL;
}

int coroutine_fn qcow2_write_meta(Qcow2Meta *meta, uint64_t host_offset, uint64_t bytes, const void *buf)
{
    if (G_UNLIKELY(atomic_load_explicit(&meta->s->corrupt, memory_order_relaxed))) {
        return -EIO;
    }
    const char *problem = meta_write_problem(meta, host_offset, bytes);
    if (G_UNLIKELY(problem)) {
        g_autofree char *text = g_strdup_printf("a metadata write at host offset 0x%" PRIx64 " %s", host_offset,
                                                problem);
        qcow2_mark_corrupt(meta->bs, text);
        return -EIO;
    }
    int ret = bdrv_co_pwrite(meta->bs->file, (int64_t)host_offset, (int64_t)bytes, buf, 0);
    return ret < 0 ? ret : 0;
}

int coroutine_fn qcow2_meta_write_table(BlockDriverState *bs, uint64_t host_offset, uint64_t bytes, const void *buf)
{
    return qcow2_write_meta(qcow2_meta(bs), host_offset, bytes, buf);
}

int qcow2_meta_note_table(BlockDriverState *bs, uint64_t host_offset)
{
    return qcow2_note_metadata(qcow2_meta(bs), host_offset, qcow2_state(bs)->geometry.cluster_size);
}

int coroutine_fn qcow2_meta_new_table(BlockDriverState *bs, const void *table, uint64_t bytes, uint64_t *host_offset)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    uint32_t cluster_size = meta->s->geometry.cluster_size;
    uint64_t clusters = qcow2_clusters_of(&meta->s->geometry, bytes), at;
    int ret = qcow2_alloc_contiguous(bs, clusters, &at);

    if (ret < 0) {
        return ret;
    }
    ret = qcow2_note_metadata(meta, at, clusters * cluster_size);
    if (ret >= 0) {
        ret = qcow2_write_meta(meta, at, bytes, table);
    }
    if (ret < 0) {
        qcow2_release_clusters(bs, at, clusters);
        return ret;
    }
    *host_offset = at;
    return 0;
}

void coroutine_fn qcow2_meta_release_table(BlockDriverState *bs, uint64_t host_offset, uint64_t bytes)
{
    qcow2_release_clusters(bs, host_offset, qcow2_clusters_of(&qcow2_state(bs)->geometry, bytes));
}

/* header_lock held. */
static int coroutine_fn write_sector_locked(Qcow2Meta *meta)
{
    int ret = bdrv_co_pwrite(meta->bs->file, 0, QCOW2_SECTOR, meta->header_sector, 0);
    return ret < 0 ? ret : bdrv_co_flush(meta->bs->file);
}

int coroutine_fn qcow2_replace_sector_locked(Qcow2Meta *meta, const uint8_t *sector)
{
    uint8_t old_sector[QCOW2_SECTOR];

    memcpy(old_sector, meta->header_sector, QCOW2_SECTOR);
    memcpy(meta->header_sector, sector, QCOW2_SECTOR);
    int ret = write_sector_locked(meta);
    if (ret < 0) {
        memcpy(meta->header_sector, old_sector, QCOW2_SECTOR);
        if (write_sector_locked(meta) < 0) {
            atomic_store(&meta->header_in_doubt, true);
        }
    }
    return ret;
}

/* header_lock held. Requests read the fields that stay as they are: only what is edited is written in s->header. */
static int coroutine_fn replace_header_locked(Qcow2Meta *meta, Qcow2HeaderEdit *edit, const void *opaque)
{
    uint8_t sector[QCOW2_SECTOR];
    Qcow2Header header = meta->s->header;

    memcpy(sector, meta->header_sector, QCOW2_SECTOR);
    edit(&header, opaque);
    qcow2_header_encode(&header, sector, QCOW2_SECTOR);
    int ret = qcow2_replace_sector_locked(meta, sector);
    if (ret >= 0) {
        edit(&meta->s->header, opaque);
    }
    return ret;
}

void qcow2_take_back(Qcow2Meta *meta, uint64_t first, uint64_t count)
{
    pthread_mutex_lock(&meta->rc.lock);
    if (atomic_load(&meta->header_in_doubt)) {
        meta->doubtful_first = first;
        meta->doubtful_count = count;
    } else {
        qcow2_unmap_free_locked(meta, first, count);
    }
    pthread_mutex_unlock(&meta->rc.lock);
}

/* Nothing leads there any more. */
static void release_doubtful(Qcow2Meta *meta)
{
    pthread_mutex_lock(&meta->rc.lock);
    if (meta->doubtful_count) {
        qcow2_unmap_free_locked(meta, meta->doubtful_first, meta->doubtful_count);
        meta->doubtful_count = 0;
    }
    pthread_mutex_unlock(&meta->rc.lock);
}

/* @sure: whether the header is to be written in any case */
static int coroutine_fn settle_header_locked(Qcow2Meta *meta, bool sure)
{
    bool in_doubt = atomic_load(&meta->header_in_doubt);
    int ret = in_doubt || sure ? write_sector_locked(meta) : 0;
    if (ret >= 0 && in_doubt) {
        release_doubtful(meta);
    }
    if (ret >= 0) {
        atomic_store(&meta->header_in_doubt, false);
    }
    return ret < 0 ? ret : 0;
}

int coroutine_fn qcow2_settle_header_locked(Qcow2Meta *meta)
{
    return settle_header_locked(meta, false);
}

int coroutine_fn qcow2_settle_header(Qcow2Meta *meta)
{
    if (G_LIKELY(!atomic_load(&meta->header_in_doubt))) {
        return 0;
    }
    co_mutex_lock(&meta->header_lock);
    int ret = qcow2_settle_header_locked(meta);
    co_mutex_unlock(&meta->header_lock);
    return ret;
}

int coroutine_fn qcow2_switch_header(Qcow2Meta *meta, Qcow2HeaderEdit *edit, const void *opaque)
{
    if (atomic_load(&meta->s->corrupt)) {
        return -EIO;
    }
    co_mutex_lock(&meta->header_lock);
    int ret = qcow2_settle_header_locked(meta);
    if (ret >= 0) {
        ret = replace_header_locked(meta, edit, opaque);
    }
    co_mutex_unlock(&meta->header_lock);
    return ret;
}

int coroutine_fn qcow2_edit_header(BlockDriverState *bs, Qcow2HeaderEdit *edit, const void *opaque)
{
    int ret = bdrv_co_flush(bs->file);
    return ret < 0 ? ret : qcow2_switch_header(qcow2_meta(bs), edit, opaque);
}

int coroutine_fn qcow2_meta_settle_header(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    co_mutex_lock(&meta->header_lock);
    int ret = settle_header_locked(meta, true);
    co_mutex_unlock(&meta->header_lock);
    return ret;
}

bool qcow2_meta_in_doubt(BlockDriverState *bs)
{
    return atomic_load(&qcow2_meta(bs)->header_in_doubt);
}

void coroutine_fn qcow2_mark_corrupt(BlockDriverState *bs, const char *message)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Meta *meta = s->meta;

    if (atomic_exchange(&s->corrupt, true)) {
        return;
    }
    char *none = NULL, *copy = g_strdup(message);
    if (!atomic_compare_exchange_strong(&s->corrupt_message, &none, copy)) {
        g_free(copy);
    }
    if (meta->writable && s->geometry.version >= 3) {
        co_mutex_lock(&meta->header_lock);
        s->header.incompatible_features |= QCOW2_INCOMPAT_CORRUPT;
        qcow2_header_encode(&s->header, meta->header_sector, QCOW2_SECTOR);
        write_sector_locked(meta); /* best effort: writes have stopped in any case */
        co_mutex_unlock(&meta->header_lock);
    }
}

const char *qcow2_corrupt_message(BlockDriverState *bs)
{
    return atomic_load(&qcow2_state(bs)->corrupt_message);
}
