/* SPDX-License-Identifier: MIT */
/* Entries of the bitmap directory (specification: "Bitmap directory"). */

#include "drivers/qcow2/format/format.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/util/bytes.h"

static uint64_t entry_bytes(uint32_t extra_bytes, size_t name_bytes)
{
    return ((uint64_t)QCOW2_BITMAP_FIXED_BYTES + extra_bytes + name_bytes + 7) & ~UINT64_C(7);
}

static bool ends_early(size_t size, uint64_t need, GError **errp)
{
    if (need > size) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the bitmap directory ends inside an entry: %zu bytes remain of %" PRIu64,
                    size, need);
    }
    return need > size;
}

bool qcow2_bitmap_decode(const uint8_t *buf, size_t size, Qcow2Bitmap *out, size_t *consumed, GError **errp)
{
    if (ends_early(size, QCOW2_BITMAP_FIXED_BYTES, errp)) {
        return false;
    }
    Qcow2Bitmap b = {
        .table_offset = load_be64(buf),
        .table_size = load_be32(buf + 8),
        .flags = load_be32(buf + 12),
        .type = buf[16],
        .granularity_bits = buf[17],
        .extra_bytes = load_be32(buf + 20),
    };
    uint16_t name_bytes = load_be16(buf + 18);
    uint64_t need = entry_bytes(b.extra_bytes, name_bytes);
    if (ends_early(size, need, errp)) {
        return false;
    }
    const uint8_t *name = buf + QCOW2_BITMAP_FIXED_BYTES + b.extra_bytes;
    if (name_bytes == 0 || name_bytes > QCOW2_MAX_BITMAP_NAME || memchr(name, 0, name_bytes)) {
        bool odd = name_bytes && name_bytes <= QCOW2_MAX_BITMAP_NAME;
        g_set_error(errp, BDRV_ERROR, EINVAL, "a bitmap has a name of %u bytes%s; 1 to %u are allowed", name_bytes,
                    odd ? ", one of which is 0" : "", QCOW2_MAX_BITMAP_NAME);
        return false;
    }
    b.name = g_strndup((const char *)name, name_bytes);
    b.extra = g_memdup2(buf + QCOW2_BITMAP_FIXED_BYTES, b.extra_bytes);
    *out = b;
    *consumed = need;
    return true;
}

static void forget_all(Qcow2BitmapTable *table)
{
    for (unsigned i = 0; i < table->count; i++) {
        g_free(table->bitmaps[i].name);
        g_free(table->bitmaps[i].extra);
    }
    g_free(table->bitmaps);
}

/* @names: those that have come before */
static bool is_new_name(GHashTable *names, const Qcow2Bitmap *bitmap, GError **errp)
{
    bool is_new = g_hash_table_add(names, bitmap->name);
    if (!is_new) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the name '%s' is that of another one, too", bitmap->name);
    }
    return is_new;
}

bool qcow2_bitmap_directory_decode(const uint8_t *buf, size_t size, unsigned count, Qcow2BitmapTable *table,
                                   GError **errp)
{
    Qcow2BitmapTable t = { .bitmaps = g_try_new0(Qcow2Bitmap, count) };
    if (count && !t.bitmaps) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for %u bitmaps", count);
        return false;
    }
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    size_t at = 0;
    unsigned n = 0;
    bool ok = true;
    for (; ok && n < count; n++) {
        size_t consumed;
        ok = qcow2_bitmap_decode(buf + at, size - at, &t.bitmaps[n], &consumed, errp);
        if (ok) {
            t.count++;
            at += consumed;
            ok = is_new_name(names, &t.bitmaps[n], errp);
        }
    }
    if (!ok) {
        g_prefix_error(errp, "bitmap %u of %u: ", n, count);
    } else if (at != size) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the bitmap directory has %zu bytes; its %u bitmaps take %zu", size,
                    count, at);
        ok = false;
    }
    if (!ok) {
        forget_all(&t);
        return false;
    }
    *table = t;
    return true;
}

uint64_t qcow2_bitmap_directory_bytes(const Qcow2BitmapTable *table)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < table->count; i++) {
        bytes += entry_bytes(table->bitmaps[i].extra_bytes, strlen(table->bitmaps[i].name));
    }
    return bytes;
}

void qcow2_bitmap_directory_encode(const Qcow2BitmapTable *table, uint8_t *buf)
{
    for (unsigned i = 0; i < table->count; i++) {
        const Qcow2Bitmap *b = &table->bitmaps[i];
        size_t name_bytes = strlen(b->name);
        uint64_t bytes = entry_bytes(b->extra_bytes, name_bytes);
        memset(buf, 0, bytes);
        store_be64(buf, b->table_offset);
        store_be32(buf + 8, b->table_size);
        store_be32(buf + 12, b->flags);
        buf[16] = b->type;
        buf[17] = b->granularity_bits;
        store_be16(buf + 18, (uint16_t)name_bytes);
        store_be32(buf + 20, b->extra_bytes);
        if (b->extra_bytes) {
            memcpy(buf + QCOW2_BITMAP_FIXED_BYTES, b->extra, b->extra_bytes);
        }
        memcpy(buf + QCOW2_BITMAP_FIXED_BYTES + b->extra_bytes, b->name, name_bytes);
        buf += bytes;
    }
}

uint8_t *qcow2_bitmaps_extension_encode(const Qcow2BitmapsExtension *extension)
{
    uint8_t *buf = g_malloc0(QCOW2_BITMAPS_EXTENSION_BYTES);
    store_be32(buf, extension->nb_bitmaps);
    store_be64(buf + 8, extension->directory_size);
    store_be64(buf + 16, extension->directory_offset);
    return buf;
}

bool qcow2_bitmap_is_usable(const Qcow2Bitmap *bitmap)
{
    return bitmap->type == QCOW2_BITMAP_TYPE_DIRTY && !(bitmap->flags & QCOW2_BITMAP_IN_USE) &&
           (bitmap->extra_bytes == 0 || (bitmap->flags & QCOW2_BITMAP_EXTRA_COMPATIBLE));
}

bool qcow2_bitmap_is_tracked(const Qcow2Bitmap *bitmap)
{
    return (bitmap->flags & QCOW2_BITMAP_AUTO) && qcow2_bitmap_is_usable(bitmap);
}

static uint64_t divide_up(uint64_t value, unsigned shift)
{
    return shift > 63 ? value != 0 : (value >> shift) + ((value & ((UINT64_C(1) << shift) - 1)) != 0);
}

uint64_t qcow2_bitmap_table_size(unsigned granularity_bits, const Qcow2Geometry *geometry, uint64_t disk_size)
{
    return divide_up(disk_size, granularity_bits + 3 + geometry->cluster_bits);
}

char *qcow2_bitmap_problem(const Qcow2Bitmap *b, const Qcow2Geometry *g, uint64_t disk_size)
{
    if (b->flags & ~QCOW2_BITMAP_FLAGS) {
        return g_strdup_printf("flags are 0x%" PRIx32 ", of which 0x%" PRIx32 " are reserved and must be 0", b->flags,
                               b->flags & ~QCOW2_BITMAP_FLAGS);
    }
    if (b->table_offset & (g->cluster_size - 1)) {
        return g_strdup_printf("table offset %" PRIu64 " is not a multiple of the cluster size %" PRIu32,
                               b->table_offset, g->cluster_size);
    }
    if (b->table_offset == 0 && b->table_size) {
        return g_strdup("table offset 0 is the image header");
    }
    if (b->table_size > QCOW2_MAX_BITMAP_BYTES >> g->cluster_bits) {
        return g_strdup_printf("the table has %" PRIu32 " entries; at most %" PRIu64 " (512 MiB of bits) are supported",
                               b->table_size, QCOW2_MAX_BITMAP_BYTES >> g->cluster_bits);
    }
    if (b->type != QCOW2_BITMAP_TYPE_DIRTY) {
        return NULL; /* what it has besides is its own affair */
    }
    if (b->granularity_bits < QCOW2_MIN_GRANULARITY_BITS || b->granularity_bits > QCOW2_MAX_GRANULARITY_BITS) {
        return g_strdup_printf("granularity_bits %u is out of range; %u to %u are supported", b->granularity_bits,
                               QCOW2_MIN_GRANULARITY_BITS, QCOW2_MAX_GRANULARITY_BITS);
    }
    uint64_t need = qcow2_bitmap_table_size(b->granularity_bits, g, disk_size);
    if (!(b->flags & QCOW2_BITMAP_IN_USE) && b->table_size != need) {
        return g_strdup_printf("the table has %" PRIu32 " entries; a disk of %" PRIu64 " bytes needs %" PRIu64,
                               b->table_size, disk_size, need);
    }
    return NULL;
}
