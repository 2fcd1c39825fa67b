/* SPDX-License-Identifier: MIT */
#include "bitmaps.h"

#include <bdrv/bitmap.h>
#include <string.h>

#include "files.h"

static BlockBackend *must_open(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                               BdrvOpenFlags flags)
{
    g_autofree char *text = conformance_expand(stack->options, id, dir);
    GError *error = NULL;
    BlockBackend *blk = blk_open(graph, NULL, bdrv_options_parse(text, NULL, NULL), flags, &error);

    g_assert_no_error(error);
    return blk;
}

void conformance_add_bitmap(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir)
{
    BlockBackend *blk = must_open(stack, graph, id, dir, BDRV_O_RDWR);
    GError *error = NULL;

    blk_bitmap_add(blk, "b", 512, true, &error);
    g_assert_no_error(error);
    blk_close(blk, &error);
    g_assert_no_error(error);
}

void conformance_bitmap_setup(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                              uint8_t *content)
{
    conformance_file_setup(stack, graph, id, dir, content);
    conformance_add_bitmap(stack, graph, id, dir);
}

void conformance_check_bitmap(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir)
{
    static const uint8_t zeroes[512];
    conformance_check_image(stack, graph, id, dir);
    BlockBackend *blk = must_open(stack, graph, id, dir, 0);
    GError *error = NULL;
    g_autoptr(BdrvDirtyBits) bits = blk_bitmap_read(blk, "b", &error);
    int64_t length = blk_length(blk), start, bytes;
    g_autofree uint8_t *content = g_malloc0((gsize)length + 512);

    g_assert_no_error(error);
    g_assert_cmpint(blk_pread(blk, 0, length, content, 0), ==, 0);
    for (int64_t at = 0; at < length; at += 512) {
        bool is_set = bdrv_dirty_bits_next(bits, at, &start, &bytes) && start == at;
        g_assert_true(is_set || memcmp(content + at, zeroes, 512) == 0);
    }
    blk_close(blk, &error);
    g_assert_no_error(error);
}
