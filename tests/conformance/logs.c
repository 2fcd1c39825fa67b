/* SPDX-License-Identifier: MIT */
#include "logs.h"

#include <bdrv/simdisk.h>
#include <glib/gstdio.h>

#include "tools/log-replay/replay.h"

static BlockBackend *open_raw(BdrvGraph *graph, const char *filename, BdrvOpenFlags flags)
{
    BdrvOptions *options = bdrv_options_new();
    GError *error = NULL;
    BlockBackend *blk;

    bdrv_options_set_string(options, "driver", "raw");
    blk = blk_open(graph, filename, options, flags, &error);
    g_assert_no_error(error);
    return blk;
}

/* Before the first change the log is empty. */
static bool is_empty(BdrvGraph *graph, const char *filename)
{
    BlockBackend *log = open_raw(graph, filename, 0);
    bool empty = blk_length(log) == 0;

    g_assert_true(blk_close(log, NULL));
    return empty;
}

static void replay(BdrvGraph *graph, const char *log, BlockBackend *target)
{
    g_autofree LogEntry *entry = g_new(LogEntry, 1);
    LogReader reader;
    GError *error = NULL;

    log_reader_open(&reader, graph, log, &error);
    g_assert_no_error(error);
    while (log_reader_next(&reader, entry, &error)) {
        log_replay_entry(&reader, entry, target, true, &error);
        g_assert_no_error(error);
    }
    g_assert_no_error(error);
    log_reader_close(&reader);
}

/* What one is longer must be zeroes: the log does not tell of lengths. */
static void compare(BlockBackend *a, BlockBackend *b)
{
    int64_t length = MAX(blk_length(a), blk_length(b));
    g_autofree uint8_t *in_a = g_malloc0(length), *in_b = g_malloc0(length);

    g_assert_cmpint(blk_pread(a, 0, blk_length(a), in_a, 0), ==, 0);
    g_assert_cmpint(blk_pread(b, 0, blk_length(b), in_b, 0), ==, 0);
    for (int64_t i = 0; i < length; i++) {
        if (in_a[i] != in_b[i]) {
            g_error("byte %" G_GINT64_FORMAT ": the disk has 0x%02x, the replayed log 0x%02x", i, in_a[i], in_b[i]);
        }
    }
}

static void replay_and_compare(BdrvGraph *graph, const char *disk, const char *log, const char *target)
{
    BlockBackend *replayed = open_raw(graph, target, BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP), *now;

    blk_allow_write_beyond_eof(replayed, true);
    if (!is_empty(graph, log)) {
        replay(graph, log, replayed);
    }
    now = open_raw(graph, disk, 0);
    compare(now, replayed);
    g_assert_true(blk_close(now, NULL));
    g_assert_true(blk_close(replayed, NULL));
}

void conformance_sim_log_inspect(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir)
{
    g_autofree char *target_id = g_strconcat(id, "-replayed", NULL), *target = g_strconcat("simdisk:", target_id, NULL);
    g_autofree char *disk = g_strconcat("simdisk:", id, NULL), *log = g_strconcat(disk, "-log", NULL);
    g_autoptr(BdrvSimDisk) replayed = bdrv_simdisk_new(target_id, stack->length);

    replay_and_compare(graph, disk, log, target);
}

/* ---- files ---- */

static void copy_file(const char *dir, const char *from, const char *to)
{
    g_autofree char *source = g_build_filename(dir, from, NULL), *target = g_build_filename(dir, to, NULL);
    g_autofree char *data = NULL;
    gsize size;

    g_assert_true(g_file_get_contents(source, &data, &size, NULL));
    g_assert_true(g_file_set_contents(target, data, (gssize)size, NULL));
}

void conformance_file_log_setup(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                                uint8_t *content)
{
    g_autofree char *log = g_build_filename(dir, "log", NULL);

    conformance_file_setup(stack, graph, id, dir, content);
    copy_file(dir, "disk", "disk.start");
    g_assert_true(g_file_set_contents(log, "", 0, NULL));
}

void conformance_file_log_inspect(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir)
{
    g_autofree char *disk = g_build_filename(dir, "disk", NULL), *log = g_build_filename(dir, "log", NULL);
    g_autofree char *target = g_build_filename(dir, "disk.replayed", NULL);

    conformance_check_image(stack, graph, id, dir);
    copy_file(dir, "disk.start", "disk.replayed");
    replay_and_compare(graph, disk, log, target);
}

void conformance_file_log_teardown(const ConformanceStack *stack, const char *id, const char *dir)
{
    static const char *const names[] = { "disk.start", "disk.replayed", "log" };

    conformance_file_teardown(stack, id, dir);
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(dir, names[i], NULL);
        g_unlink(path);
    }
}
