/* SPDX-License-Identifier: MIT */
/*
 * Another bitmap directory in place of the old one. Drained.
 *
 * Bits that have changed are written to new clusters, with a new table, and so is the directory. All is counted and
 * flushed, then the header cluster is switched: bitmaps extension, autoclear bit and disk size at once. What only the
 * old directory led to is dropped then. A power loss leaves the old bitmaps or the new ones, and at worst a leak.
 */

#include <errno.h>
#include <inttypes.h>

#include "block/util/bytes.h"
#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/meta/meta.h"

/* Bits written at a time. */
#define PIECE_BYTES (1u << 20)

static bool check_possible(const Qcow2State *s, GError **errp)
{
    if (s->geometry.version < 3) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "a version 2 image (compat=0.10) cannot have bitmaps");
        return false;
    }
    return qcow2_check_changeable(s, "bitmaps", errp);
}

bool qcow2_bitmap_change_begin(Qcow2BitmapChange *c, BlockDriverState *bs, GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    *c = (Qcow2BitmapChange){ .bs = bs, .disk_size = s->header.size };
    if (!check_possible(s, errp) || !qcow2_bitmap_table_copy(&s->bitmaps, &c->next, errp)) {
        return false;
    }
    c->made = g_array_new(FALSE, FALSE, sizeof(Qcow2BitmapSpan));
    c->gone = g_array_new(FALSE, FALSE, sizeof(Qcow2BitmapSpan));
    return true;
}

void qcow2_bitmap_change_end(Qcow2BitmapChange *c)
{
    qcow2_bitmap_table_clear(&c->next);
    if (c->made) {
        g_array_unref(c->made);
        g_array_unref(c->gone);
    }
}

/* The table that an entry has leads to nothing @next needs. */
static void leave_table(Qcow2BitmapChange *c, const Qcow2Bitmap *bitmap)
{
    Qcow2BitmapSpan span = { bitmap->table_offset, (uint64_t)bitmap->table_size * sizeof(uint64_t) };
    if (span.bytes) {
        g_array_append_val(c->gone, span);
    }
}

void qcow2_bitmap_change_drop(Qcow2BitmapChange *c, unsigned index)
{
    Qcow2Bitmap *bitmap = &c->next.bitmaps[index];
    leave_table(c, bitmap);
    qcow2_bitmap_clear(bitmap);
    memmove(bitmap, bitmap + 1, (c->next.count - index - 1) * sizeof(*bitmap));
    c->next.count--;
}

/* ---- writing what nothing leads to yet ---- */

static int coroutine_fn put(Qcow2BitmapChange *c, const void *buf, uint64_t bytes, uint64_t *host_offset)
{
    int ret = qcow2_meta_new_table(c->bs, buf, bytes, host_offset);
    if (ret >= 0) {
        Qcow2BitmapSpan span = { *host_offset, bytes };
        g_array_append_val(c->made, span);
    }
    return ret;
}

/* The clusters of bits that are not all alike, gathered to be written in one go. */
typedef struct Piece {
    uint8_t *buf;
    uint32_t first, count; /* table entries */
} Piece;

static int coroutine_fn put_piece(Qcow2BitmapChange *c, Piece *piece, uint8_t *table)
{
    uint32_t cluster_size = qcow2_state(c->bs)->geometry.cluster_size;
    uint64_t at;
    if (piece->count == 0) {
        return 0;
    }
    int ret = put(c, piece->buf, (uint64_t)piece->count * cluster_size, &at);
    for (uint32_t i = 0; i < piece->count && ret >= 0; i++) {
        store_be64(table + 8 * (uint64_t)(piece->first + i), at + (uint64_t)i * cluster_size);
    }
    piece->count = 0;
    return ret;
}

static int coroutine_fn put_bits(Qcow2BitmapChange *c, const BdrvDirtyBits *bits, uint32_t entries, uint8_t *table)
{
    uint32_t cluster_size = qcow2_state(c->bs)->geometry.cluster_size, room = MAX(PIECE_BYTES / cluster_size, 1);
    Piece piece = { .buf = bdrv_try_blockalign(c->bs->file->bs, (uint64_t)room * cluster_size) };
    int ret = piece.buf ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < entries && ret >= 0; i++) {
        uint8_t *at = piece.buf + (uint64_t)piece.count * cluster_size;
        BdrvBitsKind kind = bdrv_dirty_bits_export(bits, (uint64_t)i * cluster_size, cluster_size, at);
        store_be64(table + 8 * (uint64_t)i, kind == BDRV_BITS_ONES ? QCOW2_BITMAP_ALL_ONES : 0);
        if (kind == BDRV_BITS_MIXED) {
            piece.first = piece.count ? piece.first : i;
            piece.count++;
        }
        if (kind != BDRV_BITS_MIXED || piece.count == room) {
            ret = put_piece(c, &piece, table);
        }
    }
    ret = ret < 0 ? ret : put_piece(c, &piece, table);
    bdrv_vfree(piece.buf);
    return ret;
}

static bool coroutine_fn put_bitmap(Qcow2BitmapChange *c, Qcow2Bitmap *bitmap, GError **errp)
{
    const Qcow2Geometry *g = &qcow2_state(c->bs)->geometry;
    uint32_t entries = (uint32_t)qcow2_bitmap_table_size(bitmap->granularity_bits, g, c->disk_size);
    uint64_t bytes = ((uint64_t)entries * 8 + 511) & ~UINT64_C(511), at;
    uint8_t *table = bdrv_try_blockalign(c->bs->file->bs, MAX(bytes, 512));
    int ret = -ENOMEM;
    if (table) {
        memset(table, 0, MAX(bytes, 512));
        ret = put_bits(c, bitmap->bits, entries, table);
        ret = ret < 0 ? ret : put(c, table, bytes, &at);
    }
    bdrv_vfree(table);
    if (!qcow2_could(ret, "store its bits", errp)) {
        g_prefix_error(errp, "bitmap '%s': ", bitmap->name);
        return false;
    }
    leave_table(c, bitmap);
    bitmap->table_offset = at;
    bitmap->table_size = entries;
    return true;
}

static bool coroutine_fn put_bitmaps(Qcow2BitmapChange *c, GError **errp)
{
    for (unsigned i = 0; i < c->next.count; i++) {
        Qcow2Bitmap *bitmap = &c->next.bitmaps[i];
        if (bitmap->bits && atomic_load(&bitmap->bits->changed) && !put_bitmap(c, bitmap, errp)) {
            return false;
        }
    }
    return true;
}

static bool coroutine_fn put_directory(Qcow2BitmapChange *c, Qcow2BitmapsExtension *extension, GError **errp)
{
    uint64_t bytes = qcow2_bitmap_directory_bytes(&c->next);
    if (bytes > QCOW2_MAX_BITMAP_DIRECTORY_BYTES) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "the bitmap directory would have %" PRIu64 " bytes; at most %u are supported",
                    bytes, QCOW2_MAX_BITMAP_DIRECTORY_BYTES);
        return false;
    }
    uint64_t whole = (bytes + 511) & ~UINT64_C(511);
    uint8_t *buf = bdrv_try_blockalign(c->bs->file->bs, whole);
    *extension = (Qcow2BitmapsExtension){ .nb_bitmaps = c->next.count, .directory_size = bytes };
    int ret = -ENOMEM;
    if (buf) {
        memset(buf, 0, whole);
        qcow2_bitmap_directory_encode(&c->next, buf);
        ret = put(c, buf, whole, &extension->directory_offset);
    }
    bdrv_vfree(buf);
    return qcow2_could(ret, "write the bitmap directory", errp);
}

/* ---- the switch ---- */

/* What the old directory led to has lost its last reference. A table that cannot be read leaks what it leads to. */
static void coroutine_fn drop_table(BlockDriverState *bs, const Qcow2BitmapSpan *span)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint32_t entries = (uint32_t)(span->bytes / 8);
    uint64_t *table = qcow2_bitmap_read_table(bs, span->offset, entries, NULL);
    uint64_t length = (uint64_t)atomic_load(&bs->file->bs->length);
    for (uint32_t i = 0; table && i < entries; i++) {
        uint64_t offset = table[i] & QCOW2_OFFSET_MASK;
        if (offset && qcow2_bitmap_entry_is_sound(table[i], g, length)) {
            qcow2_drop_clusters(bs, offset, 1, QCOW2_DISCARD_OTHER);
        }
    }
    g_free(table);
    qcow2_drop_clusters(bs, span->offset, qcow2_clusters_of(g, span->bytes), QCOW2_DISCARD_OTHER);
}

static void coroutine_fn drop_gone(Qcow2BitmapChange *c)
{
    for (unsigned i = 0; i < c->gone->len; i++) {
        drop_table(c->bs, &g_array_index(c->gone, Qcow2BitmapSpan, i));
    }
}

/* A failure before the switch. */
static void coroutine_fn release_made(Qcow2BitmapChange *c)
{
    for (unsigned i = 0; i < c->made->len && !qcow2_meta_in_doubt(c->bs); i++) {
        const Qcow2BitmapSpan *span = &g_array_index(c->made, Qcow2BitmapSpan, i);
        qcow2_meta_release_table(c->bs, span->offset, span->bytes);
    }
}

/*
 * If it is unknown which header the file has, marks in the old directory may be those of none: the next write has to make
 * sure, also if the old one has nothing to track.
 */
static void suspect(Qcow2BitmapChange *c, Qcow2Tracker **tracker)
{
    Qcow2State *s = qcow2_state(c->bs);
    if (!qcow2_meta_in_doubt(c->bs)) {
        return;
    }
    atomic_store(&s->bitmaps_marked, false);
    if (!s->tracker && *tracker) {
        s->tracker = g_steal_pointer(tracker);
        s->tracker->count = 0;
    }
}

static bool old_directory(const Qcow2State *s, Qcow2BitmapSpan *span)
{
    Qcow2BitmapsExtension b;
    if (!s->extensions.bitmaps ||
        !qcow2_bitmaps_extension_decode(s->extensions.bitmaps, s->extensions.bitmaps_bytes, &b, NULL)) {
        return false;
    }
    *span = (Qcow2BitmapSpan){ b.directory_offset, b.directory_size };
    return true;
}

static bool coroutine_fn switch_header(Qcow2BitmapChange *c, const Qcow2BitmapsExtension *directory, GError **errp)
{
    Qcow2State *s = qcow2_state(c->bs);
    Qcow2Header header = s->header;
    Qcow2HeaderExtensions extensions = s->extensions;
    bool any = c->next.count != 0;

    header.size = c->disk_size;
    header.autoclear_features &= ~QCOW2_AUTOCLEAR_BITMAPS;
    header.autoclear_features |= any ? QCOW2_AUTOCLEAR_BITMAPS : 0;
    extensions.bitmaps = any ? qcow2_bitmaps_extension_encode(directory) : NULL;
    extensions.bitmaps_bytes = any ? QCOW2_BITMAPS_EXTENSION_BYTES : 0;
    if (!qcow2_replace_header(c->bs, &header, &extensions, c->bs->backing_filename, errp)) {
        g_free(extensions.bitmaps);
        return false;
    }
    g_free(s->extensions.bitmaps);
    s->extensions.bitmaps = extensions.bitmaps;
    s->extensions.bitmaps_bytes = extensions.bitmaps_bytes;
    return true;
}

/* The image leads to @next: so does memory. */
static void coroutine_fn adopt(Qcow2BitmapChange *c, Qcow2Tracker *tracker, const Qcow2BitmapSpan *directory)
{
    Qcow2State *s = qcow2_state(c->bs);
    Qcow2BitmapTable old = s->bitmaps;

    s->bitmaps = c->next;
    c->next = old;
    g_free(s->tracker);
    s->tracker = tracker;
    s->bitmaps_touched = false;
    atomic_store(&s->bitmaps_marked, false);
    for (unsigned i = 0; i < s->bitmaps.count; i++) {
        if (s->bitmaps.bitmaps[i].bits) {
            atomic_store(&s->bitmaps.bitmaps[i].bits->changed, false);
        }
    }
    drop_gone(c);
    if (directory->bytes) {
        qcow2_drop_clusters(c->bs, directory->offset, qcow2_clusters_of(&s->geometry, directory->bytes),
                            QCOW2_DISCARD_OTHER);
    }
}

bool coroutine_fn qcow2_bitmap_change_commit(Qcow2BitmapChange *c, GError **errp)
{
    Qcow2BitmapsExtension directory = { 0 };
    Qcow2BitmapSpan old = { 0 };
    Qcow2Tracker *tracker = NULL;

    old_directory(qcow2_state(c->bs), &old);
    /* clang-format off */
    bool ok = qcow2_tracker_new(&c->next, &tracker, errp) &&
              put_bitmaps(c, errp) &&
              (c->next.count == 0 || put_directory(c, &directory, errp)) &&
              qcow2_could(qcow2_meta_settle(c->bs), "write metadata", errp) &&
              switch_header(c, &directory, errp);
    /* clang-format on */
    if (ok) {
        adopt(c, tracker, &old);
    } else {
        suspect(c, &tracker);
        g_free(tracker);
        release_made(c);
    }
    return ok;
}
