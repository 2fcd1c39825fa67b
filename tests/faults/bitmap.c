/* SPDX-License-Identifier: MIT */
/* Dirty bitmaps: steps, and whether "b" tells of all that is no longer what the image began with. */

#include <bdrv/bitmap.h>
#include <inttypes.h>
#include <string.h>

#include "tests/faults/ops.h"

typedef enum Presence { MISSING, INCONSISTENT, USABLE } Presence;

/* -errno, or a Presence. */
static int presence(BlockBackend *blk, const char *name)
{
    g_autoptr(GError) error = NULL;
    BdrvBitmapInfo *list;
    int count = blk_bitmap_list(blk, &list, &error), found = MISSING;

    if (count < 0) {
        return -bdrv_error_code(error);
    }
    for (int i = 0; i < count; i++) {
        if (g_str_equal(list[i].name, name)) {
            found = list[i].usable ? USABLE : INCONSISTENT;
        }
    }
    bdrv_bitmap_list_free(list, count);
    return found;
}

/* What is set in "b" too, as far as that can be told. */
static bool merge(BlockBackend *blk, const char *name, GError **errp)
{
    if (presence(blk, "b") != USABLE) {
        return true;
    }
    g_autoptr(BdrvDirtyBits) bits = blk_bitmap_read(blk, "b", errp);
    return bits && blk_bitmap_merge(blk, name, bits, errp);
}

int bitmap_change(Stand *stand, const char *how)
{
    g_auto(GStrv) words = g_strsplit(how, " ", 2);
    g_autoptr(GError) error = NULL;
    BlockBackend *blk = stand->blk;
    const char *verb = words[0], *name = words[1];
    int there = presence(blk, name);
    bool ok = true;

    if (there < 0) {
        return there;
    }
    if (g_str_equal(verb, "add")) {
        ok = there != MISSING || blk_bitmap_add(blk, name, 512, true, &error);
    } else if (g_str_equal(verb, "remove")) {
        ok = there == MISSING || blk_bitmap_remove(blk, name, &error);
    } else if (there == USABLE && g_str_equal(verb, "clear")) {
        ok = blk_bitmap_clear(blk, name, &error);
    } else if (there == USABLE && g_str_equal(verb, "disable")) {
        ok = blk_bitmap_enable(blk, name, false, &error);
    } else if (there == USABLE) {
        ok = merge(blk, name, &error);
    }
    return ok ? 0 : -bdrv_error_code(error);
}

void bitmap_compare(BlockBackend *blk, const uint8_t *began, const uint8_t *content, int64_t bytes)
{
    static const uint8_t zeroes[512];
    g_autoptr(GError) error = NULL;
    g_autoptr(BdrvDirtyBits) bits = NULL;
    int64_t end = 0, start, n;

    if (!g_str_equal(blk_driver(blk), "qcow2") || presence(blk, "b") != USABLE) {
        return;
    }
    bits = blk_bitmap_read(blk, "b", &error);
    if (!bits) {
        stand_fail("reading a bitmap: %s", error->message);
    }
    for (int64_t at = 0; at < bytes; at += 512) {
        const uint8_t *old = at < DISK_BYTES ? began + at : zeroes;
        if (at >= end && bdrv_dirty_bits_next(bits, at, &start, &n)) {
            end = start == at ? start + n : end;
        }
        if (at >= end && memcmp(content + at, old, (size_t)MIN(512, bytes - at)) != 0) {
            stand_fail("sector %" PRId64 " was written; a bitmap that is not in use does not tell so", at / 512);
        }
    }
}
