/* SPDX-License-Identifier: MIT */
/* blk_commit(): what an image has goes into the one below, and is given up only when it is there. */

#include <errno.h>
#include <string.h>

#include "tests/unit/qcow2/stand.h"

#define AT 100000
#define BYTES 50000

typedef struct Pair {
    BlockBackend *top, *base;
} Pair;

static void put(BlockBackend *blk, int64_t offset, uint8_t value)
{
    uint8_t data[BYTES];
    memset(data, value, sizeof(data));
    g_assert_cmpint(blk_pwrite(blk, offset, sizeof(data), data, 0), ==, 0);
}

static int byte_at(BlockBackend *blk, int64_t offset)
{
    uint8_t byte;
    int ret = blk_pread(blk, offset, 1, &byte, 0);
    return ret < 0 ? ret : byte;
}

/* Each opened by itself. */
static Pair begin(const char *top_size, const char *base_size)
{
    g_autofree char *base = g_strdup_printf("cluster_size=512,size=%s", base_size);
    g_autofree char *top = g_strdup_printf("cluster_size=4k,size=%s,backing_file=simdisk:base,backing_fmt=qcow2", top_size);
    stand_create("base", base);
    stand_create("top", top);
    Pair p = { .top = stand_must_open("top", NULL, BDRV_O_RDWR | BDRV_O_NO_BACKING),
               .base = stand_must_open("base", NULL, BDRV_O_RDWR) };
    put(p.base, AT - 1000, 9);
    put(p.top, AT, 1);
    g_assert_cmpint(blk_pwrite_zeroes(p.top, AT + 4096, 8192, 0), ==, 0);
    return p;
}

static void end(Pair p)
{
    stand_close(p.top);
    stand_close(p.base);
    stand_forget("top");
    stand_forget("base");
}

static bool has_data(BlockBackend *blk)
{
    BlockExtent extent;
    g_assert_cmpint(blk_block_status_above(blk, AT, 512, &extent), ==, 0);
    return extent.present;
}

static void check_base(BlockBackend *base)
{
    g_assert_cmpint(byte_at(base, AT - 1), ==, 0); /* of the top's first cluster, which had no backing file */
    g_assert_cmpint(byte_at(base, AT), ==, 1);
    g_assert_cmpint(byte_at(base, AT + 6000), ==, 0);
    g_assert_cmpint(byte_at(base, AT + BYTES - 1), ==, 1);
}

static void test_commit(void)
{
    Pair p = begin("1M", "1M");
    const BlkCommitOptions keep = { .keep_top = true }, empty = { 0 };
    g_assert_true(blk_commit(p.top, p.base, &keep, NULL));
    check_base(p.base);
    g_assert_true(has_data(p.top));
    g_assert_true(blk_commit(p.top, p.base, &empty, NULL));
    check_base(p.base);
    g_assert_false(has_data(p.top));
    end(p);
}

static void test_dry_run(void)
{
    Pair p = begin("1M", "1M");
    BlkMoved would, has;
    const BlkCommitOptions dry = { .dry_run = true, .moved = &would }, real = { .moved = &has };
    g_assert_true(blk_commit(p.top, p.base, &dry, NULL));
    g_assert_true(has_data(p.top));
    g_assert_cmpint(byte_at(p.base, AT), !=, 1);
    g_assert_cmpint(would.data, >, 0);
    g_assert_true(blk_commit(p.top, p.base, &real, NULL));
    g_assert_cmpint(would.data, ==, has.data);
    g_assert_cmpint(would.zeroes, ==, has.zeroes);
    end(p);
}

static void test_longer(void)
{
    Pair p = begin("2M", "1M");
    put(p.top, (2 << 20) - BYTES, 3);
    g_assert_true(blk_commit(p.top, p.base, &(BlkCommitOptions){ 0 }, NULL));
    g_assert_cmpint(blk_length(p.base), ==, 2 << 20);
    g_assert_cmpint(byte_at(p.base, (2 << 20) - 1), ==, 3);
    g_assert_cmpint(byte_at(p.base, (1 << 20) + 5), ==, 0);
    end(p);
}

static bool count_progress(void *opaque, int64_t done, int64_t total)
{
    *(int64_t *)opaque = done;
    g_assert_cmpint(done, <=, total);
    return true;
}

static void test_fails(void)
{
    for (unsigned nth = 1;; nth++) {
        Pair p = begin("1M", "1M");
        int64_t done = 0;
        g_autoptr(GError) error = NULL;
        g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("base");
        const BlkCommitOptions options = { .progress = count_progress, .opaque = &done };
        bdrv_simdisk_fail(disk, BDRV_SIM_WRITE | BDRV_SIM_FLUSH, nth, 1, EIO);
        bool ok = blk_commit(p.top, p.base, &options, &error);
        bdrv_simdisk_fail_none(disk);
        g_assert_true(ok == !error);
        if (!ok) {
            g_assert_true(has_data(p.top));
            g_assert_true(blk_commit(p.top, p.base, &options, NULL));
        }
        g_assert_cmpint(done, ==, 1 << 20);
        check_base(p.base);
        g_assert_false(has_data(p.top));
        end(p);
        if (ok) {
            g_assert_cmpuint(nth, >, 3);
            break;
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/commit/a dry run tells what is written and writes nothing", test_dry_run);
    g_test_add_func("/qcow2/commit/the data is below, and above only if it is to be kept", test_commit);
    g_test_add_func("/qcow2/commit/the image below becomes as long", test_longer);
    g_test_add_func("/qcow2/commit/a failure costs nothing, and trying again works", test_fails);
    return g_test_run();
}
