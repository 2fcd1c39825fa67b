/* SPDX-License-Identifier: MIT */
/*
 * The map of clusters that hold metadata, filled when an image becomes writable, and whose they are. Guarding a write
 * looks into the map only (guard.c). What a hit hits is found out by walking the tables in memory: that is rare.
 */

#include <errno.h>
#include <inttypes.h>

#include "config.h"
#include "drivers/qcow2/meta/invariants.h"

/* What the map of metadata clusters may take in any case: enough for 8 GiB of data in clusters of 512 bytes. */
#define MAP_MIN_BYTES (8u << 20)

/* ---- whose a cluster is ---- */

/* Host clusters. */
typedef struct Range {
    uint64_t first, last;
} Range;

static Range range_of(const Qcow2Meta *meta, uint64_t host_offset, uint64_t bytes)
{
    unsigned bits = meta->s->geometry.cluster_bits;
    return (Range){ host_offset >> bits, (host_offset + bytes - 1) >> bits };
}

static unsigned owner_if(const Qcow2Meta *meta, Range range, uint64_t host_offset, uint64_t bytes, unsigned owner)
{
    if (bytes == 0) {
        return 0;
    }
    Range own = range_of(meta, host_offset, bytes);
    return own.first <= range.last && own.last >= range.first ? owner : 0;
}

/* The lock of @table held. */
static unsigned owner_if_target(const Qcow2Meta *meta, Range range, const Qcow2Table *table, uint64_t mask,
                                unsigned owner)
{
    unsigned bits = meta->s->geometry.cluster_bits;
    for (uint64_t i = 0; i < table->count; i++) {
        uint64_t offset = qcow2_table_get(table, i) & mask;
        if (offset && offset >> bits >= range.first && offset >> bits <= range.last) {
            return owner;
        }
    }
    return 0;
}

static unsigned snapshot_owners(const Qcow2Meta *meta, Range range)
{
    const Qcow2SnapshotTable *t = &meta->s->snapshots;
    unsigned owners = owner_if(meta, range, t->offset, t->bytes, QCOW2_OVERLAP_SNAPSHOT_TABLE);
    for (unsigned i = 0; i < t->count; i++) {
        owners |= owner_if(meta, range, t->snapshots[i].l1_table_offset, t->snapshots[i].l1_size * sizeof(uint64_t),
                           QCOW2_OVERLAP_INACTIVE_L1);
    }
    return owners;
}

static bool bitmap_directory(const Qcow2State *s, Qcow2BitmapsExtension *bitmaps)
{
    return s->extensions.bitmaps &&
           qcow2_bitmaps_extension_decode(s->extensions.bitmaps, s->extensions.bitmaps_bytes, bitmaps, NULL);
}

unsigned qcow2_overlap_owners(Qcow2Meta *meta, uint64_t host_offset, uint64_t bytes)
{
    Range range = range_of(meta, host_offset, bytes);
    Qcow2BitmapsExtension bitmaps;
    unsigned owners = owner_if(meta, range, 0, 1, QCOW2_OVERLAP_MAIN_HEADER) | snapshot_owners(meta, range);

    if (bitmap_directory(meta->s, &bitmaps)) {
        owners |= owner_if(meta, range, bitmaps.directory_offset, bitmaps.directory_size,
                           QCOW2_OVERLAP_BITMAP_DIRECTORY);
    }
    if (qcow2_cluster_set_has_any(&meta->inactive, range.first, range.last - range.first + 1)) {
        owners |= QCOW2_OVERLAP_INACTIVE_L2;
    }
    pthread_mutex_lock(&meta->l2.lock);
    owners |= owner_if(meta, range, meta->l1.host_offset, meta->l1.count * sizeof(uint64_t), QCOW2_OVERLAP_ACTIVE_L1) |
              owner_if_target(meta, range, &meta->l1, QCOW2_OFFSET_MASK, QCOW2_OVERLAP_ACTIVE_L2);
    pthread_mutex_unlock(&meta->l2.lock);
    pthread_mutex_lock(&meta->rc.lock);
    owners |= owner_if(meta, range, meta->reftable.host_offset, meta->reftable.count * sizeof(uint64_t),
                       QCOW2_OVERLAP_REFCOUNT_TABLE) |
              owner_if_target(meta, range, &meta->reftable, QCOW2_REFTABLE_OFFSET_MASK, QCOW2_OVERLAP_REFCOUNT_BLOCK);
    pthread_mutex_unlock(&meta->rc.lock);
    return owners;
}

char *qcow2_overlap_names(unsigned owners)
{
    static const char *const names[QCOW2_OVERLAP_COUNT] = {
        "the header",         "the active L1 table",          "an active L2 table",
        "the refcount table", "a refcount block",             "the snapshot table",
        "an L1 table of a snapshot", "an L2 table of a snapshot", "the bitmap directory",
    };
    GString *text = g_string_new(owners ? NULL : "a table of a snapshot, or one that is not linked");
    for (unsigned i = 0; i < QCOW2_OVERLAP_COUNT; i++) {
        if (owners >> i & 1) {
            g_string_append_printf(text, "%s%s", text->len ? " and " : "", names[i]);
        }
    }
    return g_string_free(text, FALSE);
}

/* ---- filling ---- */

/* Of a damaged image two tables may lie in one cluster: neither may be written then. */
static bool note_disputed(Qcow2Meta *meta, uint64_t host_offset, uint64_t bytes)
{
    unsigned bits = meta->s->geometry.cluster_bits;
    uint64_t first = host_offset >> bits, last = (host_offset + bytes - 1) >> bits;
    bool ok = true;
    for (uint64_t cluster = first; ok && cluster <= last; cluster++) {
        ok = !qcow2_cluster_set_has_any(&meta->metadata, cluster, 1) ||
             qcow2_cluster_set_add(&meta->disputed, cluster, 1);
    }
    return ok;
}

static bool note_range(Qcow2Meta *meta, uint64_t host_offset, uint64_t bytes)
{
    return bytes == 0 || host_offset >= QCOW2_HOST_OFFSET_MAX ||
           (note_disputed(meta, host_offset, bytes) && qcow2_note_metadata(meta, host_offset, bytes) >= 0);
}

static bool note_targets(Qcow2Meta *meta, const Qcow2Table *table, uint64_t mask)
{
    for (uint64_t i = 0; i < table->count; i++) {
        uint64_t offset = qcow2_table_get(table, i) & mask;
        if (offset && !note_range(meta, offset, meta->s->geometry.cluster_size)) {
            return false;
        }
    }
    return true;
}

static bool note_snapshots(Qcow2Meta *meta)
{
    const Qcow2SnapshotTable *t = &meta->s->snapshots;
    bool ok = note_range(meta, t->offset, t->bytes);
    for (unsigned i = 0; ok && i < t->count; i++) {
        const Qcow2Snapshot *snapshot = &t->snapshots[i];
        ok = note_range(meta, snapshot->l1_table_offset, snapshot->l1_size * sizeof(uint64_t));
    }
    return ok;
}

/* What is known without reading: the "cached" set of checks. */
static bool note_known(Qcow2Meta *meta)
{
    const Qcow2State *s = meta->s;
    const Qcow2Header *h = &s->header;
    uint32_t cluster_size = s->geometry.cluster_size;
    Qcow2BitmapsExtension bitmaps;
    return note_range(meta, 0, cluster_size) &&
           note_range(meta, h->l1_table_offset, h->l1_size * sizeof(uint64_t)) &&
           note_range(meta, h->refcount_table_offset, (uint64_t)h->refcount_table_clusters * cluster_size) &&
           note_targets(meta, &meta->l1, QCOW2_OFFSET_MASK) &&
           note_targets(meta, &meta->reftable, QCOW2_REFTABLE_OFFSET_MASK) && note_snapshots(meta) &&
           (!bitmap_directory(s, &bitmaps) || note_range(meta, bitmaps.directory_offset, bitmaps.directory_size));
}

/* ---- L2 tables of snapshots ---- */

/* @active: L2 tables of the disk, which snapshots may share. */
static bool note_inactive_entry(Qcow2Meta *meta, Qcow2ClusterSet *active, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK, cluster = offset >> meta->s->geometry.cluster_bits;
    if (offset == 0 || qcow2_cluster_set_has_any(&meta->inactive, cluster, 1)) {
        return true;
    }
    return (qcow2_cluster_set_has_any(active, cluster, 1) ||
            note_range(meta, offset, meta->s->geometry.cluster_size)) &&
           qcow2_cluster_set_add(&meta->inactive, cluster, 1);
}

static bool coroutine_fn note_inactive_table(Qcow2Meta *meta, Qcow2ClusterSet *active, const Qcow2Snapshot *snapshot,
                                             GError **errp)
{
    uint64_t bytes = snapshot->l1_size * sizeof(uint64_t);
    if (bytes == 0) {
        return true;
    }
    uint64_t *entries = g_try_malloc(bytes);
    int ret = entries ? bdrv_co_pread(meta->bs->file, (int64_t)snapshot->l1_table_offset, (int64_t)bytes, entries, 0)
                      : -ENOMEM;
    for (uint64_t i = 0; ret >= 0 && i < snapshot->l1_size; i++) {
        ret = note_inactive_entry(meta, active, GUINT64_FROM_BE(entries[i])) ? ret : -ENOMEM;
    }
    g_free(entries);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret,
                    "cannot note the L2 tables of snapshot '%s' for overlap-check.inactive-l2=on: %s", snapshot->name,
                    g_strerror(-ret));
    }
    return ret >= 0;
}

static bool collect_active(const Qcow2Meta *meta, Qcow2ClusterSet *active)
{
    bool ok = true;
    for (uint64_t i = 0; ok && i < meta->l1.count; i++) {
        uint64_t offset = qcow2_table_get(&meta->l1, i) & QCOW2_OFFSET_MASK;
        ok = !offset || qcow2_cluster_set_add(active, offset >> meta->s->geometry.cluster_bits, 1);
    }
    return ok;
}

/* A crafted image may have many snapshots with one large table. */
static bool check_inactive_bytes(const Qcow2Meta *meta, GError **errp)
{
    const Qcow2SnapshotTable *t = &meta->s->snapshots;
    int64_t length = atomic_load(&meta->bs->file->bs->length);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < t->count; i++) {
        bytes += t->snapshots[i].l1_size * sizeof(uint64_t);
    }
    if (bytes > (uint64_t)length) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the L1 tables of all snapshots have %" PRIu64 " bytes, more than the file (%" PRId64
                    "): they overlap; run 'bdrv-img check'",
                    bytes, length);
        return false;
    }
    return true;
}

static bool coroutine_fn note_inactive(Qcow2Meta *meta, GError **errp)
{
    const Qcow2SnapshotTable *t = &meta->s->snapshots;
    Qcow2ClusterSet active;
    if (t->count == 0) {
        return true;
    }
    if (!check_inactive_bytes(meta, errp)) {
        return false;
    }
    bool ok = qcow2_cluster_set_init(&active) && collect_active(meta, &active);
    if (!ok) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for the map of L2 tables");
    }
    for (unsigned i = 0; ok && i < t->count; i++) {
        ok = note_inactive_table(meta, &active, &t->snapshots[i], errp);
    }
    qcow2_cluster_set_destroy(&active);
    return ok;
}

/* ---- both ---- */

static void set_bound(Qcow2Meta *meta, uint64_t max_bytes)
{
    qcow2_cluster_set_fill(&meta->metadata, max_bytes);
    qcow2_cluster_set_fill(&meta->disputed, max_bytes);
    qcow2_cluster_set_fill(&meta->inactive, max_bytes);
}

/*
 * The map takes a fraction of the space that the tables themselves take on the disk: a crafted sparse file may name
 * clusters that lie far apart.
 */
bool coroutine_fn qcow2_metadata_map_fill(Qcow2Meta *meta, unsigned overlap_checks, GError **errp)
{
    int64_t allocated = bdrv_co_get_allocated_file_size(meta->bs->file);
    if (allocated < 0) { /* not known there */
        allocated = atomic_load(&meta->bs->file->bs->length);
    }
    uint64_t max_bytes = MAX((uint64_t)allocated / 4, MAP_MIN_BYTES);
    set_bound(meta, max_bytes);
#ifdef CONFIG_DEBUG_INVARIANTS
    if (!meta->is_mapped) {
        qcow2_note_soundness(meta);
    }
#endif
    meta->is_mapped = meta->is_mapped || note_known(meta);
    if (!meta->is_mapped) {
        g_set_error(errp, BDRV_ERROR, ENOMEM,
                    "no memory for the map of metadata clusters: the image's tables lie too far apart for a file that "
                    "takes %" PRId64 " bytes (the map may take %" PRIu64 "); open it read-only, or convert it",
                    allocated, max_bytes);
    }
    bool wanted = overlap_checks & QCOW2_OVERLAP_INACTIVE_L2;
    if (meta->is_mapped && wanted && !meta->inactive_mapped) {
        meta->inactive_mapped = note_inactive(meta, errp);
    }
    set_bound(meta, 0);
    return meta->is_mapped && (!wanted || meta->inactive_mapped);
}
