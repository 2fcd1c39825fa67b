/* SPDX-License-Identifier: MIT */
#include "tests/unit/qcow2/stand.h"

#include <string.h>

BdrvGraph *stand_graph(void)
{
    static BdrvGraph *graph;
    if (!graph) {
        graph = bdrv_graph_new();
        bdrv_graph_set_opener_gate(graph, bdrv_gate_any, NULL);
    }
    return graph;
}

static char *filename(const char *name)
{
    return g_strconcat("simdisk:", name, NULL);
}

static bool create(const char *name, const char *text, GError **errp)
{
    g_autofree char *file = filename(name);
    BdrvOptions *options = bdrv_options_parse(text, NULL, errp);
    bdrv_simdisk_forget(name);
    return options && bdrv_create_image(stand_graph(), "qcow2", file, options, errp);
}

void stand_create(const char *name, const char *options)
{
    GError *error = NULL;
    bool ok = create(name, options, &error);
    g_assert_no_error(error);
    g_assert_true(ok);
}

char *stand_create_error(const char *name, const char *options, int *code)
{
    g_autoptr(GError) error = NULL;
    g_assert_false(create(name, options, &error));
    g_assert_nonnull(error);
    *code = bdrv_error_code(error);
    return g_strdup(error->message);
}

void stand_copy(const char *from, const char *name, int64_t length)
{
    g_autoptr(BdrvSimDisk) source = bdrv_simdisk_find(from);
    g_assert_nonnull(source);
    int64_t there = bdrv_simdisk_length(source);
    length = length < 0 ? there : length;
    /* Creating gives a disk that lives until it is forgotten. */
    g_autofree char *file = filename(name);
    BdrvOptions *options = bdrv_options_new();
    GError *error = NULL;
    bdrv_options_set_int(options, "size", length);
    bdrv_simdisk_forget(name);
    g_assert_true(bdrv_create_image(stand_graph(), "simdisk", file, options, &error));
    g_assert_no_error(error);
    g_autoptr(BdrvSimDisk) copy = bdrv_simdisk_find(name);
    g_autofree uint8_t *buf = g_malloc(65536);
    for (int64_t at = 0; at < MIN(there, length); at += 65536) {
        int64_t n = MIN(65536, MIN(there, length) - at);
        bdrv_simdisk_peek(source, at, buf, (size_t)n);
        if (!bdrv_buffer_is_zero(buf, (size_t)n)) {
            bdrv_simdisk_poke(copy, at, buf, (size_t)n);
        }
    }
}

void stand_forget(const char *name)
{
    bdrv_simdisk_forget(name);
}

int64_t stand_length(const char *name)
{
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find(name);
    return bdrv_simdisk_length(disk);
}

void stand_put(const char *name, int64_t offset, unsigned width, uint64_t value)
{
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find(name);
    uint8_t bytes[8];
    for (unsigned i = 0; i < width; i++) {
        bytes[i] = (uint8_t)(value >> (8 * (width - 1 - i)));
    }
    g_assert_nonnull(disk);
    bdrv_simdisk_poke(disk, offset, bytes, width);
}

uint64_t stand_get(const char *name, int64_t offset, unsigned width)
{
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find(name);
    uint8_t bytes[8];
    uint64_t value = 0;
    bdrv_simdisk_peek(disk, offset, bytes, width);
    for (unsigned i = 0; i < width; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

BlockBackend *stand_open(const char *name, const char *text, BdrvOpenFlags flags, GError **errp)
{
    g_autofree char *file = filename(name);
    BdrvOptions *options = bdrv_options_parse(text ? text : "", NULL, errp);
    g_assert_nonnull(options);
    bdrv_options_set_string(options, "driver", "qcow2");
    return blk_open(stand_graph(), file, options, flags, errp);
}

BlockBackend *stand_must_open(const char *name, const char *options, BdrvOpenFlags flags)
{
    GError *error = NULL;
    BlockBackend *blk = stand_open(name, options, flags, &error);
    g_assert_no_error(error);
    g_assert_nonnull(blk);
    return blk;
}

void stand_close(BlockBackend *blk)
{
    GError *error = NULL;
    g_assert_true(blk_close(blk, &error));
    g_assert_no_error(error);
}

bool stand_matches(const char *pattern, const char *text)
{
    bool ok = g_pattern_match_simple(pattern, text);
    if (!ok) {
        g_test_message("expected: %s", pattern);
        g_test_message("     got: %s", text);
    }
    return ok;
}
