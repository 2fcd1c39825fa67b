/* SPDX-License-Identifier: MIT */
/* Read the bitmap directory and, when they are wanted, the bits. All of it is hostile input. */

#include <errno.h>
#include <inttypes.h>

#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/open.h"

/* ---- the directory ---- */

void qcow2_bitmap_clear(Qcow2Bitmap *bitmap)
{
    g_free(bitmap->name);
    g_free(bitmap->extra);
    bdrv_dirty_bits_free(bitmap->bits);
    *bitmap = (Qcow2Bitmap){ 0 };
}

void qcow2_bitmap_table_clear(Qcow2BitmapTable *table)
{
    for (unsigned i = 0; i < table->count; i++) {
        qcow2_bitmap_clear(&table->bitmaps[i]);
    }
    g_free(table->bitmaps);
    *table = (Qcow2BitmapTable){ 0 };
}

bool qcow2_bitmap_table_copy(const Qcow2BitmapTable *table, Qcow2BitmapTable *copy, GError **errp)
{
    *copy = (Qcow2BitmapTable){ .bitmaps = g_try_new0(Qcow2Bitmap, table->count + 1) }; /* room for one more */
    if (!copy->bitmaps) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for %u bitmaps", table->count + 1);
        return false;
    }
    for (unsigned i = 0; i < table->count; i++) {
        Qcow2Bitmap *bitmap = &copy->bitmaps[i];
        *bitmap = table->bitmaps[i];
        bitmap->name = g_strdup(bitmap->name);
        bitmap->extra = g_memdup2(bitmap->extra, bitmap->extra_bytes);
        bdrv_dirty_bits_ref(bitmap->bits);
    }
    copy->count = table->count;
    return true;
}

static bool check_entries(const Qcow2State *s, int64_t file_length, GError **errp)
{
    for (unsigned i = 0; i < s->bitmaps.count; i++) {
        if (!qcow2_check_bitmap(s, &s->bitmaps.bitmaps[i], file_length, errp)) {
            return false;
        }
    }
    return true;
}

bool coroutine_fn qcow2_load_bitmaps(BlockDriverState *bs, int64_t file_length, GError **errp)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2BitmapsExtension b;
    if (!(s->header.autoclear_features & QCOW2_AUTOCLEAR_BITMAPS)) {
        return true;
    }
    if (!qcow2_bitmaps_extension_decode(s->extensions.bitmaps, s->extensions.bitmaps_bytes, &b, errp)) {
        return false;
    }
    uint8_t *directory = g_try_malloc(b.directory_size);
    int ret = directory ? bdrv_co_pread(bs->file, (int64_t)b.directory_offset, (int64_t)b.directory_size, directory, 0)
                        : -ENOMEM;
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot read the bitmap directory (%" PRIu64 " bytes at offset %" PRIu64
                    "): %s", b.directory_size, b.directory_offset, g_strerror(-ret));
    }
    bool ok = ret >= 0 &&
              qcow2_bitmap_directory_decode(directory, b.directory_size, b.nb_bitmaps, &s->bitmaps, errp);
    g_free(directory);
    return ok && check_entries(s, file_length, errp);
}

/* ---- the bits ---- */

bool qcow2_bitmap_entry_is_sound(uint64_t entry, const Qcow2Geometry *geometry, uint64_t file_length)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK;
    return !(entry & QCOW2_BITMAP_TABLE_RESERVED) && !(offset && (entry & QCOW2_BITMAP_ALL_ONES)) &&
           !(offset & (geometry->cluster_size - 1)) && (offset == 0 || offset < file_length);
}

uint64_t *coroutine_fn qcow2_bitmap_read_table(BlockDriverState *bs, uint64_t offset, uint32_t entries, GError **errp)
{
    uint64_t bytes = (uint64_t)entries * sizeof(uint64_t);
    uint64_t *table = g_try_malloc(MAX(bytes, 1));
    int ret = table ? bytes ? bdrv_co_pread(bs->file, (int64_t)offset, (int64_t)bytes, table, 0) : 0 : -ENOMEM;
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot read the bitmap table at offset %" PRIu64 ": %s", offset,
                    g_strerror(-ret));
        g_free(table);
        return NULL;
    }
    for (uint32_t i = 0; i < entries; i++) {
        table[i] = GUINT64_FROM_BE(table[i]);
    }
    return table;
}

/* One table entry's share of the bits. */
static bool coroutine_fn load_cluster(BlockDriverState *bs, BdrvDirtyBits *bits, uint32_t index, uint64_t entry,
                                      uint8_t *buf, GError **errp)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint64_t offset = entry & QCOW2_OFFSET_MASK, first = (uint64_t)index << g->cluster_bits;
    int64_t length = atomic_load(&bs->file->bs->length);
    if (!qcow2_bitmap_entry_is_sound(entry, g, (uint64_t)length)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "table entry %" PRIu32 " is 0x%" PRIx64 ": no flag (0 or 1), nor the offset of a cluster in the file of "
                    "%" PRId64 " bytes; run 'bdrv-img check'", index, entry, length);
        return false;
    }
    if (offset == 0) {
        if (entry & QCOW2_BITMAP_ALL_ONES) {
            bdrv_dirty_bits_import(bits, first, g->cluster_size, NULL);
        }
        return true;
    }
    uint64_t there = MIN(g->cluster_size, (uint64_t)length - offset);
    memset(buf + there, 0, g->cluster_size - there);
    int ret = bdrv_co_pread(bs->file, (int64_t)offset, (int64_t)there, buf, 0);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot read its bits at offset %" PRIu64 ": %s", offset, g_strerror(-ret));
        return false;
    }
    bdrv_dirty_bits_import(bits, first, g->cluster_size, buf);
    return true;
}

/* A crafted image has many large bitmaps, all bits of which are set by one flag. */
bool qcow2_check_bits_room(const Qcow2State *s, unsigned granularity_bits, GError **errp)
{
    uint64_t bytes = bdrv_dirty_bits_bytes(granularity_bits, s->header.size);
    for (unsigned i = 0; i < s->bitmaps.count; i++) {
        const Qcow2Bitmap *b = &s->bitmaps.bitmaps[i];
        bytes += b->bits ? bdrv_dirty_bits_bytes(b->granularity_bits, s->header.size) : 0;
    }
    if (bytes > QCOW2_MAX_LOADED_BITS) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "the bitmaps in use would take %" PRIu64 " bytes of memory; at most %" PRIu64
                    " are supported: remove some of them", bytes, QCOW2_MAX_LOADED_BITS);
    }
    return bytes <= QCOW2_MAX_LOADED_BITS;
}

static bool coroutine_fn load_clusters(BlockDriverState *bs, BdrvDirtyBits *bits, const uint64_t *table,
                                       uint32_t entries, GError **errp)
{
    uint32_t cluster_size = qcow2_state(bs)->geometry.cluster_size;
    uint8_t *buf = bdrv_try_blockalign(bs->file->bs, cluster_size);
    bool ok = buf != NULL;
    if (!ok) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for a cluster of %" PRIu32 " bytes", cluster_size);
    }
    for (uint32_t i = 0; ok && i < entries; i++) {
        ok = load_cluster(bs, bits, i, table[i], buf, errp);
    }
    bdrv_vfree(buf);
    return ok;
}

bool coroutine_fn qcow2_load_bits(BlockDriverState *bs, Qcow2Bitmap *bitmap, GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    if (bitmap->bits) {
        return true;
    }
    BdrvDirtyBits *bits = NULL;
    uint64_t *table = NULL;
    bool ok = qcow2_check_bits_room(s, bitmap->granularity_bits, errp);
    if (ok) {
        bits = bdrv_dirty_bits_new(bitmap->granularity_bits, s->header.size);
        if (!bits) {
            g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for its bits");
        }
        table = bits ? qcow2_bitmap_read_table(bs, bitmap->table_offset, bitmap->table_size, errp) : NULL;
        ok = table && load_clusters(bs, bits, table, bitmap->table_size, errp);
    }
    g_free(table);
    if (!ok) {
        bdrv_dirty_bits_free(bits);
        g_prefix_error(errp, "bitmap '%s': ", bitmap->name);
        return false;
    }
    bitmap->bits = bits;
    return true;
}
