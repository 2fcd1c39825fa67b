/* SPDX-License-Identifier: MIT */
/* Where tables may lie: aligned, inside the file, clear of the header and of each other. */

#include <errno.h>
#include <inttypes.h>

#include "drivers/qcow2/open.h"

/* A table of the image, for messages and comparisons. */
typedef struct Table {
    char name[64];
    uint64_t offset, bytes;
} Table;

static bool check_place(const Qcow2State *s, const Table *t, int64_t file_length, GError **errp)
{
    uint32_t cluster_size = s->geometry.cluster_size;
    if (t->offset % cluster_size) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "%s offset %" PRIu64 " is not a multiple of the cluster size %" PRIu32
                    "; run 'bdrv-img check'",
                    t->name, t->offset, cluster_size);
        return false;
    }
    if (t->offset == 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "%s offset 0 is the image header; run 'bdrv-img check'",
                    t->name);
        return false;
    }
    if (t->offset > (uint64_t)file_length || t->bytes > (uint64_t)file_length - t->offset) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "%s of %" PRIu64 " bytes at offset %" PRIu64
                    " reaches past the end of the image file (%" PRId64 " bytes); the file may be truncated",
                    t->name, t->bytes, t->offset, file_length);
        return false;
    }
    return true;
}

static Table l1_table(const Qcow2State *s)
{
    return (Table){ "L1 table", s->header.l1_table_offset, (uint64_t)s->header.l1_size * 8 };
}

static Table refcount_table(const Qcow2State *s)
{
    return (Table){ "refcount table", s->header.refcount_table_offset,
                    (uint64_t)s->header.refcount_table_clusters << s->geometry.cluster_bits };
}

bool qcow2_check_l1_table(const Qcow2State *s, int64_t file_length, GError **errp)
{
    const Qcow2Header *h = &s->header;
    uint64_t need = qcow2_l1_entries_of(&s->geometry, h->size);
    if ((uint64_t)h->l1_size * 8 > QCOW2_MAX_L1_BYTES) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "the L1 table has %" PRIu32 " entries; at most %u are supported",
                    h->l1_size, QCOW2_MAX_L1_BYTES / 8);
        return false;
    }
    if (need > QCOW2_MAX_L1_BYTES / 8) {
        g_set_error(errp, BDRV_ERROR, EFBIG,
                    "a disk of %" PRIu64 " bytes needs %" PRIu64
                    " L1 table entries; at most %u are supported "
                    "(%" PRIu64 " bytes with this cluster size)",
                    h->size, need, QCOW2_MAX_L1_BYTES / 8,
                    (uint64_t)(QCOW2_MAX_L1_BYTES / 8) << (s->geometry.cluster_bits + s->geometry.l2_bits));
        return false;
    }
    if (h->l1_size < need) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the L1 table has %" PRIu32 " entries; a disk of %" PRIu64 " bytes needs %" PRIu64,
                    h->l1_size, h->size, need);
        return false;
    }
    Table t = l1_table(s);
    return h->l1_size == 0 || check_place(s, &t, file_length, errp);
}

bool qcow2_check_refcount_table(const Qcow2State *s, int64_t file_length, GError **errp)
{
    uint32_t clusters = s->header.refcount_table_clusters;
    uint32_t max = QCOW2_MAX_REFTABLE_BYTES >> s->geometry.cluster_bits;
    if (clusters == 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the image has no refcount table: refcount_table_clusters is 0");
        return false;
    }
    if (clusters > max) {
        g_set_error(errp, BDRV_ERROR, EFBIG,
                    "the refcount table has %" PRIu32 " clusters; at most %" PRIu32 " (8 MiB) are supported",
                    clusters, max);
        return false;
    }
    Table t = refcount_table(s);
    return check_place(s, &t, file_length, errp);
}

static Table snapshot_l1(const Qcow2State *s, unsigned n)
{
    const Qcow2Snapshot *snapshot = &s->snapshots.snapshots[n];
    Table t = { .offset = snapshot->l1_table_offset, .bytes = (uint64_t)snapshot->l1_size * 8 };
    g_snprintf(t.name, sizeof(t.name), "snapshot %u: L1 table", n + 1);
    return t;
}

bool qcow2_check_snapshot_l1(const Qcow2State *s, unsigned n, int64_t file_length, GError **errp)
{
    Table t = snapshot_l1(s, n);
    if (t.bytes > QCOW2_MAX_L1_BYTES) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "%s has %" PRIu64 " entries; at most %u are supported", t.name,
                    t.bytes / 8, QCOW2_MAX_L1_BYTES / 8);
        return false;
    }
    return t.bytes == 0 || check_place(s, &t, file_length, errp);
}

bool qcow2_check_bitmaps_extension(const Qcow2State *s, int64_t file_length, GError **errp)
{
    Qcow2BitmapsExtension b;
    if (!qcow2_bitmaps_extension_decode(s->extensions.bitmaps, s->extensions.bitmaps_bytes, &b, errp)) {
        return false;
    }
    if (b.directory_size > QCOW2_MAX_BITMAP_DIRECTORY_BYTES ||
        b.directory_size < (uint64_t)b.nb_bitmaps * QCOW2_BITMAP_FIXED_BYTES) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the bitmap directory has %" PRIu64 " bytes; %" PRIu32 " bitmaps need %" PRIu64 " to %u",
                    b.directory_size, b.nb_bitmaps, (uint64_t)b.nb_bitmaps * QCOW2_BITMAP_FIXED_BYTES,
                    QCOW2_MAX_BITMAP_DIRECTORY_BYTES);
        return false;
    }
    Table t = { "bitmap directory", b.directory_offset, b.directory_size };
    return check_place(s, &t, file_length, errp);
}

bool qcow2_check_bitmap(const Qcow2State *s, const Qcow2Bitmap *bitmap, int64_t file_length, GError **errp)
{
    g_autofree char *problem = qcow2_bitmap_problem(bitmap, &s->geometry, s->header.size);
    Table t = { "table", bitmap->table_offset, (uint64_t)bitmap->table_size * 8 };
    if (problem) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "%s; run 'bdrv-img check'", problem);
    }
    if (problem || (t.bytes && !check_place(s, &t, file_length, errp))) {
        g_prefix_error(errp, "bitmap '%s': ", bitmap->name);
        return false;
    }
    return true;
}

static uint64_t last_cluster(const Qcow2State *s, const Table *t)
{
    return (t->offset + t->bytes - 1) >> s->geometry.cluster_bits;
}

static bool check_apart(const Qcow2State *s, const Table *a, const Table *b, GError **errp)
{
    if (a->bytes == 0 || b->bytes == 0) {
        return true;
    }
    unsigned bits = s->geometry.cluster_bits;
    if (a->offset >> bits > last_cluster(s, b) || b->offset >> bits > last_cluster(s, a)) {
        return true;
    }
    g_set_error(errp, BDRV_ERROR, EINVAL,
                "%s (%" PRIu64 " bytes at offset %" PRIu64 ") overlaps %s (%" PRIu64
                " bytes at offset %" PRIu64 "); run 'bdrv-img check'",
                a->name, a->bytes, a->offset, b->name, b->bytes, b->offset);
    return false;
}

bool qcow2_check_overlaps(const Qcow2State *s, GError **errp)
{
    const Table fixed[] = {
        { "the image header", 0, s->geometry.cluster_size },
        refcount_table(s),
        l1_table(s),
        { "snapshot table", s->snapshots.offset, s->snapshots.bytes },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(fixed); i++) {
        for (unsigned k = 0; k < i; k++) {
            if (!check_apart(s, &fixed[i], &fixed[k], errp)) {
                return false;
            }
        }
        for (unsigned n = 0; n < s->snapshots.count; n++) {
            Table t = snapshot_l1(s, n);
            if (!check_apart(s, &t, &fixed[i], errp)) {
                return false;
            }
        }
    }
    return true;
}
