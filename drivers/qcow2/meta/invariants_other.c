/* SPDX-License-Identifier: MIT */
/*
 * What the header leads to besides the tables of the disk, while no request is inside: the bitmap directory, tables and
 * bits, the encryption header, the snapshot table. Their clusters are counted, and what is in memory of them is what the
 * file holds.
 */

#include <string.h>

#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/crypto.h"
#include "drivers/qcow2/meta/invariants.h"

/* False: it cannot be read, and nothing can be said. */
static bool coroutine_fn read_file(Qcow2Walk *walk, uint64_t offset, uint64_t bytes, void *buf)
{
    walk->failed |= bdrv_co_pread(walk->meta->bs->file, (int64_t)offset, (int64_t)bytes, buf, 0) < 0;
    return !walk->failed;
}

/* ---- the header ---- */

void coroutine_fn qcow2_walk_header(Qcow2Walk *walk)
{
    const Qcow2Header *h = &walk->meta->s->header;
    uint8_t raw[QCOW2_HEADER_KNOWN_BYTES];
    Qcow2Header in_file;

    if (!read_file(walk, 0, sizeof(raw), raw) || !qcow2_header_decode(raw, sizeof(raw), &in_file, NULL)) {
        return;
    }
    qcow2_must(in_file.size == h->size && in_file.crypt_method == h->crypt_method &&
                   in_file.l1_table_offset == walk->meta->l1.host_offset &&
                   in_file.nb_snapshots == h->nb_snapshots && in_file.snapshots_offset == h->snapshots_offset &&
                   in_file.autoclear_features == h->autoclear_features,
               "the header is not what the file holds");
}

/* ---- bitmaps ---- */

/* Which of them the directory calls in use depends on when the disk was last changed. */
static void compare_entry(const Qcow2State *s, const Qcow2Bitmap *b, const Qcow2Bitmap *in_file)
{
    bool tracked = qcow2_bitmap_is_tracked(b);
    bool marked = in_file->flags & QCOW2_BITMAP_IN_USE;

    qcow2_must(g_str_equal(b->name, in_file->name) && b->type == in_file->type &&
                   b->granularity_bits == in_file->granularity_bits && b->table_offset == in_file->table_offset &&
                   b->table_size == in_file->table_size &&
                   ((b->flags ^ in_file->flags) & ~QCOW2_BITMAP_IN_USE) == 0,
               "a bitmap is not what the directory says");
    qcow2_must(!tracked || marked || !atomic_load(&s->bitmaps_marked),
               "a bitmap in use is not marked in the directory");
    qcow2_must(marked == (bool)(b->flags & QCOW2_BITMAP_IN_USE) || (tracked && s->bitmaps_touched),
               "a bitmap that is not in use is marked in the directory");
    qcow2_must(!b->bits || !atomic_load(&b->bits->changed) || (tracked && s->bitmaps_touched),
               "a bitmap has changed, and the directory does not say so");
}

/* One table entry's share: @buf is the cluster that it leads to. */
static void compare_bits(Qcow2Walk *walk, const BdrvDirtyBits *bits, uint64_t index, uint64_t entry, const uint8_t *buf)
{
    uint32_t cluster_size = walk->meta->s->geometry.cluster_size;
    uint8_t *own = g_malloc0(cluster_size);
    BdrvBitsKind kind = bdrv_dirty_bits_export(bits, index * cluster_size, cluster_size, own);
    bool same = buf ? memcmp(own, buf, cluster_size) == 0
                    : entry & QCOW2_BITMAP_ALL_ONES || kind == BDRV_BITS_ZEROES;
    qcow2_must(same, "the bits of a bitmap that has not changed are not what the file holds");
    g_free(own);
}

static void coroutine_fn walk_table(Qcow2Walk *walk, const Qcow2Bitmap *b)
{
    const Qcow2Geometry *g = &walk->meta->s->geometry;
    uint64_t *table = qcow2_bitmap_read_table(walk->meta->bs, b->table_offset, b->table_size, NULL);

    qcow2_walk_count(walk, b->table_offset, (uint64_t)b->table_size * sizeof(uint64_t));
    walk->failed |= !table;
    for (uint32_t i = 0; i < b->table_size && !walk->failed; i++) {
        uint64_t offset = table[i] & QCOW2_OFFSET_MASK;
        if (offset & (g->cluster_size - 1)) {
            continue; /* a damaged image */
        }
        qcow2_walk_count(walk, offset, offset ? g->cluster_size : 0);
        if (b->bits && !atomic_load(&b->bits->changed) &&
            (!offset || read_file(walk, offset, g->cluster_size, walk->table))) {
            compare_bits(walk, b->bits, i, table[i], offset ? walk->table : NULL);
        }
    }
    g_free(table);
}

void coroutine_fn qcow2_walk_bitmaps(Qcow2Walk *walk)
{
    const Qcow2State *s = walk->meta->s;
    Qcow2BitmapsExtension b;
    Qcow2BitmapTable in_file = { 0 };

    if (!s->extensions.bitmaps || !(s->header.autoclear_features & QCOW2_AUTOCLEAR_BITMAPS) ||
        !qcow2_bitmaps_extension_decode(s->extensions.bitmaps, s->extensions.bitmaps_bytes, &b, NULL)) {
        qcow2_must(s->bitmaps.count == 0, "there are bitmaps of which the header does not tell");
        return;
    }
    uint8_t *directory = g_malloc(b.directory_size);
    qcow2_walk_count_metadata(walk, b.directory_offset, b.directory_size);
    if (read_file(walk, b.directory_offset, b.directory_size, directory)) {
        walk->failed = !qcow2_bitmap_directory_decode(directory, b.directory_size, b.nb_bitmaps, &in_file, NULL);
        qcow2_must(walk->failed || in_file.count == s->bitmaps.count,
                   "the bitmap directory is not what the file holds");
    }
    for (unsigned i = 0; i < s->bitmaps.count && !walk->failed; i++) {
        compare_entry(s, &s->bitmaps.bitmaps[i], &in_file.bitmaps[i]);
        walk_table(walk, &s->bitmaps.bitmaps[i]);
    }
    qcow2_bitmap_table_clear(&in_file);
    g_free(directory);
}

/* ---- the encryption header ---- */

/* A slot that could not be written, or whose write could not be flushed, may be the old or the new one in the file. */
static void forgive_slots(const BdrvLuksHeader *header, BdrvLuksHeader *in_file)
{
    for (unsigned i = 0; i < BDRV_LUKS_SLOTS; i++) {
        in_file->slots[i].active = header->slots[i].active;
        in_file->slots[i].iterations = header->slots[i].iterations;
        memcpy(in_file->slots[i].salt, header->slots[i].salt, sizeof(in_file->slots[i].salt));
    }
}

void coroutine_fn qcow2_walk_crypto(Qcow2Walk *walk)
{
    const Qcow2Crypto *crypto = walk->meta->s->crypto;
    uint8_t raw[BDRV_LUKS_HEADER_BYTES], own[BDRV_LUKS_HEADER_BYTES];
    BdrvLuksHeader in_file;

    if (!crypto || crypto->method != QCOW2_CRYPT_LUKS) {
        return;
    }
    qcow2_walk_count(walk, crypto->offset, crypto->length);
    if (read_file(walk, crypto->offset, sizeof(raw), raw)) {
        qcow2_must(bdrv_luks_header_decode(raw, sizeof(raw), &in_file, NULL), "the encryption header is none");
        forgive_slots(&crypto->luks.header, &in_file);
        bdrv_luks_header_encode(&in_file, raw);
        bdrv_luks_header_encode(&crypto->luks.header, own);
        qcow2_must(memcmp(raw, own, sizeof(raw)) == 0, "the encryption header is not what the file holds");
    }
}

/* ---- the snapshot table ---- */

/* A VM state lies behind the disk, where its L1 table must reach. */
static void check_vmstate(const Qcow2Geometry *g, const Qcow2Snapshot *snapshot)
{
    uint64_t entries = qcow2_l1_entries_of(g, snapshot->disk_size);
    qcow2_must(!snapshot->vm_state_size || g->data_file ||
                   entries + qcow2_l1_entries_of(g, snapshot->vm_state_size) <= snapshot->l1_size,
               "the L1 table of a snapshot does not reach to the end of its VM state");
}

void coroutine_fn qcow2_walk_snapshot_table(Qcow2Walk *walk)
{
    const Qcow2State *s = walk->meta->s;
    int64_t length = bdrv_co_getlength(walk->meta->bs->file);
    Qcow2SnapshotTable in_file = { 0 };

    qcow2_walk_count_metadata(walk, s->snapshots.offset, s->snapshots.bytes);
    if (s->snapshots.count == 0 || length < 0) {
        return;
    }
    if (!qcow2_load_snapshots(walk->meta->bs, length, &in_file, NULL, NULL)) {
        walk->failed = true;
        return;
    }
    qcow2_must(in_file.count == s->snapshots.count, "the snapshot table is not what the file holds");
    for (unsigned i = 0; i < in_file.count; i++) {
        const Qcow2Snapshot *a = &s->snapshots.snapshots[i], *b = &in_file.snapshots[i];
        qcow2_must(a->l1_table_offset == b->l1_table_offset && a->l1_size == b->l1_size &&
                       a->disk_size == b->disk_size && a->vm_state_size == b->vm_state_size &&
                       g_str_equal(a->id, b->id) && g_str_equal(a->name, b->name),
                   "a snapshot is not what the file holds");
        check_vmstate(&s->geometry, a);
    }
    qcow2_snapshot_table_clear(&in_file);
}
