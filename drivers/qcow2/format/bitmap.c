/* SPDX-License-Identifier: MIT */
/* Entries of the bitmap directory (specification: "Bitmap directory"). */

#include "drivers/qcow2/format/format.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/util/bytes.h"

#define MAX_NAME_BYTES 1023u

bool qcow2_bitmap_decode(const uint8_t *buf, size_t size, Qcow2Bitmap *out, size_t *consumed, GError **errp)
{
    if (size < QCOW2_BITMAP_FIXED_BYTES) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the bitmap directory ends inside an entry: %zu bytes remain of %u", size,
                    QCOW2_BITMAP_FIXED_BYTES);
        return false;
    }
    Qcow2Bitmap b = {
        .table_offset = load_be64(buf),
        .table_size = load_be32(buf + 8),
        .flags = load_be32(buf + 12),
        .type = buf[16],
        .granularity_bits = buf[17],
    };
    uint16_t name_bytes = load_be16(buf + 18);
    uint32_t extra = load_be32(buf + 20);
    uint64_t need = ((uint64_t)QCOW2_BITMAP_FIXED_BYTES + extra + name_bytes + 7) & ~UINT64_C(7);
    if (need > size) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the bitmap directory ends inside an entry: %zu bytes remain of %" PRIu64, size, need);
        return false;
    }
    if (name_bytes == 0 || name_bytes > MAX_NAME_BYTES) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "a bitmap has a name of %u bytes; 1 to %u are allowed",
                    name_bytes, MAX_NAME_BYTES);
        return false;
    }
    b.name = g_strndup((const char *)buf + QCOW2_BITMAP_FIXED_BYTES + extra, name_bytes);
    *out = b;
    *consumed = need;
    return true;
}

void qcow2_bitmap_table_clear(Qcow2BitmapTable *table)
{
    for (unsigned i = 0; i < table->count; i++) {
        g_free(table->bitmaps[i].name);
    }
    g_free(table->bitmaps);
    *table = (Qcow2BitmapTable){ 0 };
}

bool qcow2_bitmap_directory_decode(const uint8_t *buf, size_t size, unsigned count, Qcow2BitmapTable *table,
                                   GError **errp)
{
    Qcow2BitmapTable t = { .bitmaps = g_try_new0(Qcow2Bitmap, count) };
    if (count && !t.bitmaps) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for %u bitmaps", count);
        return false;
    }
    size_t at = 0;
    while (t.count < count) {
        size_t consumed;
        if (!qcow2_bitmap_decode(buf + at, size - at, &t.bitmaps[t.count], &consumed, errp)) {
            g_prefix_error(errp, "bitmap %u of %u: ", t.count + 1, count);
            qcow2_bitmap_table_clear(&t);
            return false;
        }
        at += consumed;
        t.count++;
    }
    *table = t;
    return true;
}
