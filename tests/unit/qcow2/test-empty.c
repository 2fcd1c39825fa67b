/* SPDX-License-Identifier: MIT */
/* Images made empty, and caches written back without a barrier. */

#include <bdrv/bdrv.h>
#include <errno.h>
#include <string.h>

#include "drivers/qcow2/meta/meta.h"
#include "tests/unit/qcow2/rig.h"
#include "tests/unit/qcow2/stand.h"
#include "tests/unit/qcow2/surgery.h"

#define K 1024

static int coroutine_fn make_empty(const Rig *rig)
{
    BlockDriverState *bs = rig->child->bs;
    bs->drv->bdrv_drain_begin(bs);
    int ret = bs->drv->bdrv_make_empty(bs);
    bs->drv->bdrv_drain_end(bs);
    return ret;
}

static const RigImage images[] = {
    { .disk = "d", .size = 1024 * K, .cluster_size = 64 * K },
    { .disk = "d", .size = 1024 * K, .cluster_size = 512 },
    { .disk = "d", .size = 1024 * K, .cluster_size = 512, .refcount_bits = 64 },
    { .disk = "d", .size = 1024 * K, .cluster_size = 512, .refcount_bits = 1 },
    { .disk = "d", .size = 1024 * K, .cluster_size = 4 * K, .compat = "0.10" },
    { .disk = "d", .size = 1024 * K, .cluster_size = 16 * K, .extended_l2 = true },
    { .disk = "d", .size = 1024 * K, .cluster_size = 4 * K, .preallocation = "metadata" },
    { .disk = "d", .size = INT64_C(4) << 30, .cluster_size = 512 }, /* its L1 table needs many refcount blocks */
};

static void coroutine_fn the_backing_file_shows(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(images); i++) {
        g_test_message("image %u", i);
        g_autoptr(BdrvSimDisk) disk = rig_create(&images[i]);
        int64_t empty_bytes = bdrv_simdisk_length(disk);
        Rig rig = rig_open("d", "", rig_backing("b", 700 * K, 5));
        g_assert_cmpint(rig_write(&rig, 0, 1024 * K, 1), ==, 0);
        g_assert_cmpint(rig_write(&rig, 100 * K, 64 * K, 2), ==, 0);
        g_assert_cmpint(make_empty(&rig), ==, 0);
        rig_assert_filled(&rig, 0, 700 * K, 5);
        rig_assert_filled(&rig, 700 * K, 324 * K, 0);
        if (!images[i].preallocation) {
            g_assert_cmpint(bdrv_simdisk_length(disk), <=, empty_bytes + 2 * images[i].cluster_size);
        }
        rig_assert_clean("d");
        g_assert_cmpint(rig_write(&rig, 100 * K, 300 * K, 3), ==, 0);
        rig_assert_filled(&rig, 100 * K, 300 * K, 3);
        rig_assert_filled(&rig, 400 * K, 300 * K, 5);
        g_assert_cmpint(rig_close(&rig), ==, 0);
        rig_assert_clean("d");
    }
}

static void coroutine_fn no_table_is_read(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&images[1]);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 1024 * K, 1), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig = rig_open("d", "", NULL);
    uint64_t reads = bdrv_simdisk_count(disk, BDRV_SIM_READ);
    g_assert_cmpint(make_empty(&rig), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_READ) - reads, <, 10); /* there are 32 L2 tables */
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void coroutine_fn snapshots_stay(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = 256 * K, .cluster_size = 4 * K });
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 128 * K, 1), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    surgery_add_snapshot(disk);
    rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 64 * K, 2), ==, 0);
    g_assert_cmpint(make_empty(&rig), ==, 0);
    rig_assert_filled(&rig, 0, 256 * K, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
    /* What the snapshot has is what the disk had: its L1 table instead of the disk's. */
    uint64_t directory = surgery_peek(disk, 64, 8);
    surgery_poke(disk, 40, 8, surgery_peek(disk, directory, 8));
    surgery_poke(disk, 60, 4, 0);
    rig = rig_open("d", "", NULL);
    rig_assert_filled(&rig, 0, 128 * K, 1);
    rig_close(&rig);
}

static void coroutine_fn a_full_host_is_no_obstacle(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&images[0]);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 512 * K, 1), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    bdrv_simdisk_set_capacity(disk, bdrv_simdisk_allocated(disk));
    g_assert_cmpint(make_empty(&rig), ==, 0);
    rig_assert_filled(&rig, 0, 512 * K, 0);
    bdrv_simdisk_set_capacity(disk, -1);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

static void test_refusals(void)
{
    g_autoptr(GError) error = NULL;
    stand_create("o", "size=1M");
    BlockBackend *blk = stand_must_open("o", NULL, 0);
    g_assert_false(blk_make_empty(blk, &error));
    g_assert_cmpint(bdrv_error_code(error), ==, EACCES);
    stand_close(blk);
    blk = stand_must_open("o", NULL, BDRV_O_RDWR);
    g_assert_cmpint(blk_pwrite(blk, 0, 4, "data", 0), ==, 0);
    g_assert_true(blk_make_empty(blk, NULL));
    uint8_t buf[4];
    g_assert_cmpint(blk_pread(blk, 0, 4, buf, 0), ==, 0);
    g_assert_cmpmem(buf, 4, "\0\0\0", 4);
    stand_close(blk);
    stand_forget("o");
}

/* ---- flush_to_os ---- */

static void coroutine_fn caches_are_written_without_a_barrier(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&images[0]);
    Rig rig = rig_open("d", "", NULL);
    BlockDriverState *bs = rig.child->bs;
    g_assert_cmpint(rig_write(&rig, 0, 64 * K, 1), ==, 0);
    uint64_t flushes = bdrv_simdisk_count(disk, BDRV_SIM_FLUSH), writes = bdrv_simdisk_count(disk, BDRV_SIM_WRITE);
    g_assert_cmpint(bs->drv->bdrv_co_flush_to_os(bs), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_FLUSH), ==, flushes);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_WRITE), ==, writes + 1); /* counts; pointers need a barrier */
    g_assert_cmpint(bs->drv->bdrv_co_flush_to_os(bs), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_WRITE), ==, writes + 1);
    g_assert_cmpint(bs->drv->bdrv_co_flush_to_disk(bs), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_FLUSH), ==, flushes + 2);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_WRITE), ==, writes + 3); /* and pointers of two levels */
    rig_assert_clean("d");
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void coroutine_fn counts_that_cannot_be_written_stay_dirty(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&images[0]);
    Rig rig = rig_open("d", "", NULL);
    BlockDriverState *bs = rig.child->bs;
    g_assert_cmpint(rig_write(&rig, 0, 64 * K, 1), ==, 0);
    bdrv_simdisk_fail(disk, BDRV_SIM_WRITE, 1, 1, EIO);
    g_assert_cmpint(bs->drv->bdrv_co_flush_to_os(bs), ==, -EIO);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    rig_assert_clean("d");
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void test_no_flush(void)
{
    stand_create("o", "size=1M");
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("o");
    BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    uint64_t flushes = bdrv_simdisk_count(disk, BDRV_SIM_FLUSH);
    g_assert_cmpint(blk_pwrite(blk, 0, 4, "data", 0), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_FLUSH), ==, flushes);
    stand_copy("o", "copy", -1); /* as the host has it, while the image is open */
    stand_close(blk);
    uint8_t buf[4];
    blk = stand_must_open("copy", NULL, 0);
    g_assert_cmpint(blk_pread(blk, 0, 4, buf, 0), ==, 0);
    g_assert_cmpmem(buf, 4, "data", 4);
    stand_close(blk);
    stand_forget("copy");
    stand_forget("o");
}

static void add(const char *path, void (*body)(void))
{
    g_test_add_data_func(path, body, (GTestDataFunc)test_run);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("/qcow2/empty/the backing file shows", the_backing_file_shows);
    add("/qcow2/empty/no table is read", no_table_is_read);
    add("/qcow2/empty/snapshots stay", snapshots_stay);
    add("/qcow2/empty/a full host is no obstacle", a_full_host_is_no_obstacle);
    g_test_add_func("/qcow2/empty/a read-only image is refused", test_refusals);
    add("/qcow2/flush/caches are written without a barrier", caches_are_written_without_a_barrier);
    add("/qcow2/flush/counts that cannot be written stay dirty", counts_that_cannot_be_written_stay_dirty);
    g_test_add_func("/qcow2/flush/without barriers a flush writes everything", test_no_flush);
    return g_test_run();
}
