/* SPDX-License-Identifier: MIT */
/*
 * VDI under power loss and failing requests: histories of writes, zeroes, flushes and resizes on a simulated disk. After
 * each, whatever may be left of the image opens, has no corruption, and reads as the model allows.
 */
#include <bdrv/bdrv.h>
#include <bdrv/simdisk.h>
#include <errno.h>
#include <string.h>

#include "tests/lib/test-node.h"

#define SECTOR 512
#define BLOCK 1024
#define SIZE (300 * 1024) /* three sectors of the map */
#define MAX_SIZE (1200 * 1024)
#define SECTORS (MAX_SIZE / SECTOR)

/* Which values each sector may have: bit 0 is zeroes, bit v the value v. */
typedef struct Model {
    uint64_t allowed[SECTORS];
    uint8_t now[SECTORS];
    int64_t size, other_size; /* while a resize runs it is either of them */
} Model;

typedef struct Stand {
    Model model;
    BdrvGraph *graph;
    BdrvSimDisk *disk;
    BlockBackend *blk;
    uint64_t random, seed;
    unsigned states, per_cut; /* images judged; of each cut */
    bool judging;
} Stand;

static BlockBackend *open_image(BdrvGraph *graph, const char *disk, BdrvOpenFlags flags)
{
    g_autofree char *text = g_strdup_printf("driver=vdi,file.driver=simdisk,file.disk=%s", disk);
    GError *error = NULL;
    BlockBackend *blk = blk_open(graph, NULL, bdrv_options_parse(text, NULL, NULL), flags, &error);

    g_assert_no_error(error);
    return blk;
}

static void create_image(Stand *stand, const char *more)
{
    g_autofree char *text = g_strdup_printf("block_size=%d%s", BLOCK, more);
    BdrvOptions *options = bdrv_options_parse(text, NULL, NULL);
    GError *error = NULL;

    bdrv_options_set_int(options, "size", SIZE);
    stand->disk = bdrv_simdisk_new("vdi", 0);
    g_assert_true(bdrv_create_image(stand->graph, "vdi", "simdisk:vdi", options, &error));
    g_assert_no_error(error);
}

/* ---- judging ---- */

static void print_finding(void *opaque, const BdrvCheckKind *kind, const char *text)
{
    g_printerr("check: %s\n", text);
}

static void check_image(BlockBackend *blk, uint64_t seed)
{
    BdrvCheckResult result = { .report = NULL };
    GError *error = NULL;

    g_assert_true(blk_check(blk, &result, BDRV_FIX_NONE, &error));
    g_assert_no_error(error);
    if (result.corruptions || result.check_errors) {
        result.report = print_finding;
        blk_check(blk, &result, BDRV_FIX_NONE, NULL);
        g_error("seed %" G_GUINT64_FORMAT ": %" G_GINT64_FORMAT " corruptions", seed, result.corruptions);
    }
}

static void check_content(BlockBackend *blk, const Model *model, uint64_t seed)
{
    int64_t size = blk_length(blk);
    g_autofree uint8_t *content = g_malloc0(MAX_SIZE);

    if (size != model->size && size != model->other_size) {
        g_error("seed %" G_GUINT64_FORMAT ": size %" G_GINT64_FORMAT, seed, size);
    }
    g_assert_cmpint(blk_pread(blk, 0, size, content, 0), ==, 0);
    for (int64_t i = 0; i < size / SECTOR; i++) {
        const uint8_t *sector = content + i * SECTOR;

        for (unsigned at = 0; at < SECTOR; at++) {
            if (sector[at] >= 64 || !(model->allowed[i] & 1ull << sector[at])) {
                g_error("seed %" G_GUINT64_FORMAT ": sector %" G_GINT64_FORMAT " reads as %u, not one of the bits %"
                        G_GINT64_MODIFIER "x", seed, i, sector[at], model->allowed[i]);
            }
        }
    }
}

/* Opened by a writer, who goes on with what is there: half of a block may get a place that was left with anything in it. */
static void judge(const Stand *stand, BdrvSimDisk *disk, const char *name)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = open_image(graph, name, BDRV_O_RDWR);
    Model after = stand->model;
    uint8_t sector[SECTOR];

    check_image(blk, stand->seed);
    check_content(blk, &stand->model, stand->seed);
    for (int64_t i = 0; i < 202; i += 2) {
        g_assert_cmpint(blk_pread(blk, (i + 1) * SECTOR, SECTOR, sector, 0), ==, 0);
        after.allowed[i + 1] = 1ull << sector[0];
        after.allowed[i] = 1ull << 0x3f;
        memset(sector, 0x3f, SECTOR);
        g_assert_cmpint(blk_pwrite(blk, i * SECTOR, SECTOR, sector, 0), ==, 0);
    }
    g_assert_true(blk_close(blk, NULL));
    blk = open_image(graph, name, 0);
    check_image(blk, stand->seed);
    check_content(blk, &after, stand->seed);
    g_assert_true(blk_close(blk, NULL));
}

/* Cuts are taken in the hook, where no I/O may be, and judged after the operation. */
typedef struct Cuts {
    GPtrArray *cuts;
} Cuts;

static void cut_here(void *opaque, BdrvSimDisk *disk, const BdrvSimRequest *request)
{
    Cuts *cuts = opaque;

    if (request->kind != BDRV_SIM_READ) {
        g_ptr_array_add(cuts->cuts, bdrv_simdisk_cut(disk));
    }
}

static void judge_cuts(Stand *stand, GPtrArray *cuts)
{
    for (guint i = 0; i < cuts->len; i++) {
        const BdrvSimCut *cut = cuts->pdata[i];
        g_autofree BdrvSimChoice *choices = g_new0(BdrvSimChoice, bdrv_simcut_count(cut) + 1);

        for (unsigned n = 0; n < stand->per_cut; n++) {
            bdrv_simcut_random(cut, test_random(&stand->random), choices);
            BdrvSimDisk *left = bdrv_simcut_disk(cut, n ? choices : NULL, "vdi-left");
            judge(stand, left, "vdi-left");
            bdrv_simdisk_unref(left);
            stand->states++;
        }
    }
    g_ptr_array_set_size(cuts, 0);
}

/* ---- operations: the model first allows what may be there meanwhile, then what must ---- */

static void fill(Stand *stand, int64_t offset, int64_t bytes, uint8_t value, bool zeroes)
{
    g_autofree uint8_t *buf = g_malloc((gsize)bytes);

    memset(buf, value, (size_t)bytes);
    for (int64_t i = offset / SECTOR; i < (offset + bytes) / SECTOR; i++) {
        stand->model.allowed[i] |= 1ull << value;
        stand->model.now[i] = value;
    }
    int ret = zeroes ? blk_pwrite_zeroes(stand->blk, offset, bytes, BDRV_REQ_MAY_UNMAP)
                     : blk_pwrite(stand->blk, offset, bytes, buf, 0);
    g_assert_cmpint(ret, ==, 0);
}

static void flush(Stand *stand)
{
    g_assert_cmpint(blk_flush(stand->blk), ==, 0);
}

static void settle(Stand *stand)
{
    for (unsigned i = 0; i < SECTORS; i++) {
        stand->model.allowed[i] = 1ull << stand->model.now[i];
    }
}

static void resize(Stand *stand, int64_t size)
{
    Model *model = &stand->model;
    GError *error = NULL;

    model->other_size = size;
    for (int64_t i = size / SECTOR; i < SECTORS; i++) {
        model->allowed[i] |= 1;
        model->now[i] = 0;
    }
    g_assert_true(blk_truncate(stand->blk, size, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_no_error(error);
}

static int64_t random_sectors(Stand *stand, int64_t below)
{
    return (int64_t)test_random_below(&stand->random, (uint64_t)below);
}

static void one_operation(Stand *stand, unsigned n, bool *settles)
{
    int64_t sectors = stand->model.size / SECTOR;
    int64_t first = random_sectors(stand, sectors), count = 1 + random_sectors(stand, MIN(sectors - first, 7));
    int64_t what = random_sectors(stand, 14);

    *settles = false;
    if (what < 7) {
        fill(stand, first * SECTOR, count * SECTOR, (uint8_t)(1 + n % 60), false);
    } else if (what < 8) {
        fill(stand, first * SECTOR, count * SECTOR, 0, true);
    } else if (what < 10) {
        flush(stand);
        *settles = true;
    } else {
        int64_t size = (202 + random_sectors(stand, SECTORS - 202)) * SECTOR;
        resize(stand, what == 10 && size > stand->model.size ? stand->model.size : size);
        *settles = true;
    }
}

/* What a resize made durable of writes before it is not promised, but it flushes. */
static void run_history(Stand *stand, unsigned operations)
{
    Cuts cuts = { .cuts = g_ptr_array_new_with_free_func((GDestroyNotify)bdrv_simcut_unref) };
    bool settles;

    stand->blk = open_image(stand->graph, "vdi", BDRV_O_RDWR | BDRV_O_RESIZE);
    bdrv_simdisk_set_hook(stand->disk, cut_here, &cuts);
    for (unsigned n = 0; n < operations; n++) {
        one_operation(stand, n, &settles);
        judge_cuts(stand, cuts.cuts);
        stand->model.size = stand->model.other_size;
        if (settles) {
            settle(stand);
        }
    }
    bdrv_simdisk_set_hook(stand->disk, NULL, NULL);
    g_assert_true(blk_close(stand->blk, NULL));
    settle(stand);
    judge(stand, stand->disk, "vdi");
    g_ptr_array_unref(cuts.cuts);
}

static void history(uint64_t seed, const char *options)
{
    g_autofree Stand *stand = g_new0(Stand, 1);

    *stand = (Stand){ .graph = bdrv_graph_new(), .random = seed, .seed = seed, .per_cut = 3,
                      .model = { .size = SIZE, .other_size = SIZE } };
    for (unsigned i = 0; i < SECTORS; i++) {
        stand->model.allowed[i] = 1;
    }
    create_image(stand, options);
    run_history(stand, 40);
    g_test_message("seed %" G_GUINT64_FORMAT "%s: %u images", seed, options, stand->states);
    g_assert_cmpuint(stand->states, >, 10);
    bdrv_simdisk_unref(stand->disk);
    bdrv_simdisk_forget("vdi");
    bdrv_graph_unref(stand->graph);
}

static void test_power_loss(void)
{
    uint64_t seed = test_seed();

    for (unsigned i = 0; i < (g_getenv("BDRV_TEST_LONG") ? 100 : 3); i++) {
        history(seed + i, "");
        history(seed + i, ",static=on");
    }
}

/* ---- failing requests ---- */

/* Returns whether anything failed. */
static bool with_failure(unsigned nth, unsigned kinds)
{
    g_autofree Stand *stand = g_new0(Stand, 1);
    bool failed = false;
    uint8_t buf[3 * BLOCK];

    stand->graph = bdrv_graph_new();
    create_image(stand, "");
    stand->blk = open_image(stand->graph, "vdi", BDRV_O_RDWR | BDRV_O_RESIZE);
    bdrv_simdisk_fail(stand->disk, kinds, nth, 1, EIO);
    for (unsigned i = 0; i < 5; i++) {
        memset(buf, (int)i + 1, sizeof(buf));
        failed |= blk_pwrite(stand->blk, i * 50 * BLOCK + 100, sizeof(buf), buf, 0) < 0;
        failed |= i % 2 && blk_flush(stand->blk) < 0;
    }
    failed |= !blk_truncate(stand->blk, MAX_SIZE, true, BDRV_PREALLOC_OFF, 0, NULL);
    failed |= !blk_truncate(stand->blk, 120 * BLOCK, true, BDRV_PREALLOC_OFF, 0, NULL);
    bdrv_simdisk_fail_none(stand->disk);
    /* Requests that come after it work. */
    memset(buf, 9, sizeof(buf));
    g_assert_cmpint(blk_pwrite(stand->blk, 0, sizeof(buf), buf, 0), ==, 0);
    check_image(stand->blk, nth);
    blk_close(stand->blk, NULL);
    stand->blk = open_image(stand->graph, "vdi", 0);
    check_image(stand->blk, nth);
    g_assert_cmpint(blk_pread(stand->blk, 0, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpint(buf[0], ==, 9);
    g_assert_true(blk_close(stand->blk, NULL));
    bdrv_simdisk_unref(stand->disk);
    bdrv_simdisk_forget("vdi");
    bdrv_graph_unref(stand->graph);
    return failed;
}

static void test_failures(void)
{
    static const unsigned kinds[] = { BDRV_SIM_READ, BDRV_SIM_WRITE, BDRV_SIM_ZERO, BDRV_SIM_TRUNCATE, BDRV_SIM_FLUSH };

    for (unsigned k = 0; k < G_N_ELEMENTS(kinds); k++) {
        unsigned failures = 0;

        for (unsigned nth = 1; with_failure(nth, kinds[k]); nth++) {
            failures++;
        }
        g_test_message("kind %u: %u failures", kinds[k], failures);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vdi/power loss at any request leaves flushed data and no corruption", test_power_loss);
    g_test_add_func("/vdi/a request that fails leaves no corruption", test_failures);
    return g_test_run();
}
