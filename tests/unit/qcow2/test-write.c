/* SPDX-License-Identifier: MIT */
/* Reads, writes, write-zeroes, discard and status of one image, alone on its disk. */

#include <errno.h>
#include <string.h>

#include "tests/unit/qcow2/rig.h"

#define K 1024
#define M (1024 * K)

static const RigImage plain = { .disk = "d", .size = 1024 * K };

static void coroutine_fn unwritten_reads_zero(void)
{
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&plain);
    Rig rig = rig_open("d", "", NULL);
    rig_assert_filled(&rig, 0, 200 * K, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void coroutine_fn written_reads_back(void)
{
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&plain);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 64 * K + 512, 1024, 7), ==, 0);
    rig_assert_filled(&rig, 64 * K, 512, 0);
    rig_assert_filled(&rig, 64 * K + 512, 1024, 7);
    rig_assert_filled(&rig, 64 * K + 1536, 64 * K, 0);
    g_assert_cmpint(rig_write(&rig, 64 * K, 200 * K, 9), ==, 0);
    rig_assert_filled(&rig, 64 * K, 200 * K, 9);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
    rig = rig_open("d", "", NULL);
    rig_assert_filled(&rig, 64 * K, 200 * K, 9);
    rig_assert_filled(&rig, 264 * K, 100 * K, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void coroutine_fn copies_what_surrounds(void)
{
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&plain);
    Rig rig = rig_open("d", "", rig_backing("b", 100 * K + 512, 3));
    rig_assert_filled(&rig, 0, 100 * K + 512, 3);
    rig_assert_filled(&rig, 100 * K + 512, 64 * K, 0);
    g_assert_cmpint(rig_write(&rig, 65 * K, 1 * K, 5), ==, 0);
    rig_assert_filled(&rig, 0, 65 * K, 3);
    rig_assert_filled(&rig, 65 * K, 1 * K, 5);
    rig_assert_filled(&rig, 66 * K, 34 * K + 512, 3);
    rig_assert_filled(&rig, 100 * K + 512, 64 * K, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

static void coroutine_fn assert_status(const Rig *rig, int64_t offset, BlockExtentKind kind, bool allocated)
{
    BlockExtent extent;
    g_assert_cmpint(bdrv_co_block_status(rig->child, offset, 512, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, kind);
    g_assert_cmpint(extent.allocated, ==, allocated);
}

static void coroutine_fn zeroes_keep_or_drop(void)
{
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&plain);
    Rig rig = rig_open("d", "", rig_backing("b", 1024 * K, 3));
    g_assert_cmpint(rig_write(&rig, 0, 192 * K, 5), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 0, 64 * K, 0), ==, 0);
    assert_status(&rig, 0, EXTENT_ZERO, true);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 64 * K, 64 * K, BDRV_REQ_MAY_UNMAP), ==, 0);
    assert_status(&rig, 64 * K, EXTENT_ZERO, false);
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 128 * K, 128 * K), ==, 0);
    assert_status(&rig, 128 * K, EXTENT_ZERO, false);
    assert_status(&rig, 192 * K, EXTENT_ZERO, false);
    assert_status(&rig, 256 * K, EXTENT_BACKING, false);
    rig_assert_filled(&rig, 0, 256 * K, 0);
    rig_assert_filled(&rig, 256 * K, 64 * K, 3);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 300 * K, 10 * K, 0), ==, 0);
    rig_assert_filled(&rig, 300 * K, 10 * K, 0);
    rig_assert_filled(&rig, 256 * K, 44 * K, 3);
    assert_status(&rig, 300 * K, EXTENT_DATA, true);
    /* The kept cluster is used again. */
    g_assert_cmpint(rig_write(&rig, 512, 512, 8), ==, 0);
    assert_status(&rig, 0, EXTENT_DATA, true);
    rig_assert_filled(&rig, 0, 512, 0);
    rig_assert_filled(&rig, 512, 512, 8);
    rig_assert_filled(&rig, 1024, 63 * K, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

static void coroutine_fn version_2_forgets(void)
{
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = 1024 * K, .compat = "0.10" });
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 192 * K, 5), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 0, 64 * K, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 64 * K, 64 * K), ==, 0);
    assert_status(&rig, 0, EXTENT_BACKING, false);
    assert_status(&rig, 64 * K, EXTENT_BACKING, false);
    rig_assert_filled(&rig, 0, 128 * K, 0);
    rig_assert_filled(&rig, 128 * K, 64 * K, 5);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

static void coroutine_fn freed_clusters_are_used_again(void)
{
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&plain);
    Rig rig = rig_open("d", "", NULL);
    for (unsigned round = 0; round < 20; round++) {
        g_assert_cmpint(rig_write(&rig, 0, 512 * K, (uint8_t)round), ==, 0);
        g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
        rig_assert_filled(&rig, 0, 512 * K, (uint8_t)round);
        g_assert_cmpint(bdrv_co_pdiscard(rig.child, 0, 512 * K), ==, 0);
        g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    }
    g_assert_cmpint(bdrv_simdisk_length(disk), <, 3 * 1024 * K);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    g_assert_cmpint(bdrv_simdisk_allocated(disk), <, 512 * K); /* punched */
    rig_assert_clean("d");
}

/* Cluster size and refcount width decide how soon refcount blocks and table grow. */
static void coroutine_fn grow(int64_t cluster_size, int refcount_bits)
{
    int64_t size = MIN(cluster_size * 4000, 64 * 1024 * K);
    RigImage image = { .disk = "d", .size = size, .cluster_size = cluster_size, .refcount_bits = refcount_bits };
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    for (int64_t at = 0; at < size; at += 256 * K) {
        int64_t n = MIN(256 * K, size - at);
        g_assert_cmpint(rig_write(&rig, at, n, (uint8_t)(at / K / 256 + 1)), ==, 0);
    }
    for (int64_t at = 0; at < size; at += 256 * K) {
        rig_assert_filled(&rig, at, MIN(256 * K, size - at), (uint8_t)(at / K / 256 + 1));
    }
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

static void coroutine_fn tables_grow(void)
{
    static const int widths[] = { 1, 2, 4, 8, 16, 32, 64 };
    for (unsigned i = 0; i < G_N_ELEMENTS(widths); i++) {
        grow(512, widths[i]);
        grow(4096, widths[i]);
        grow(65536, widths[i]);
    }
}

/* Whole tables at a time: cluster by cluster this would take minutes. */
static void coroutine_fn a_huge_hole_is_one_extent(void)
{
    const int64_t size = INT64_C(1) << 50;
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = size });
    Rig rig = rig_open("d", "", NULL);
    BlockExtent extent;
    g_assert_cmpint(bdrv_co_block_status(rig.child, 0, size, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, EXTENT_BACKING);
    g_assert_cmpint(extent.bytes, ==, size);
    g_assert_cmpint(rig_write(&rig, size / 2, 512, 1), ==, 0);
    g_assert_cmpint(bdrv_co_block_status(rig.child, 4096, size - 4096, &extent), ==, 0);
    g_assert_cmpint(extent.bytes, ==, size / 2 - 4096);
    g_assert_cmpint(bdrv_co_block_status(rig.child, size / 2 + 64 * K, size / 2 - 64 * K, &extent), ==, 0);
    g_assert_cmpint(extent.bytes, ==, size / 2 - 64 * K);
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void status(Rig *rig, int64_t offset, int64_t bytes, bool hole, int64_t answer)
{
    BlockExtent extent;
    g_assert_cmpint(bdrv_co_block_status_above(rig->child, offset, bytes, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, EXTENT_DATA);
    g_assert_cmpint(extent.hole, ==, hole);
    g_assert_cmpint(extent.bytes, ==, answer);
}

static void coroutine_fn reserved_space_is_a_hole(void)
{
    const int64_t size = 64 * M;
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk =
        rig_create(&(RigImage){ .disk = "d", .size = size, .preallocation = "metadata" });
    Rig rig = rig_open("d", "", NULL);
    status(&rig, 0, size, true, size);
    status(&rig, 5 * M + 512, M, true, M);
    g_assert_cmpint(rig_write(&rig, 8 * M, 64 * K, 1), ==, 0);
    status(&rig, 0, size, true, 8 * M);
    status(&rig, 8 * M + 4 * K, size - 8 * M - 4 * K, false, 60 * K);
    status(&rig, 9 * M, size - 9 * M, true, size - 9 * M);
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

/* Given back, not reserved: who counts the clusters in use finds most of them stored. */
static void coroutine_fn freed_space_makes_no_holes(void)
{
    const int64_t size = 16 * M;
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = size });
    Rig rig = rig_open("d", "", NULL);
    for (int64_t offset = 0; offset < size; offset += M) {
        g_assert_cmpint(rig_write(&rig, offset, M, 1), ==, 0);
    }
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 0, size / 2), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    g_assert_cmpint(bdrv_simdisk_allocated(disk), <, size / 4 * 3);
    rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, M, 512, 1), ==, 0);
    status(&rig, M, 64 * K, false, 64 * K);
    status(&rig, size / 2, size / 2, false, size / 2);
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void add(const char *path, void (*body)(void))
{
    g_test_add_data_func(path, body, (GTestDataFunc)test_run);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("/qcow2/write/what was never written reads as zeroes", unwritten_reads_zero);
    add("/qcow2/write/what was written reads back, also after reopening", written_reads_back);
    add("/qcow2/write/a partial cluster keeps what the backing file shows", copies_what_surrounds);
    add("/qcow2/write/zeroes keep the space, unmap and discard drop it", zeroes_keep_or_drop);
    add("/qcow2/write/version 2 forgets zeroed clusters", version_2_forgets);
    add("/qcow2/write/freed clusters are used again and punched", freed_clusters_are_used_again);
    add("/qcow2/write/refcount blocks, refcount table and L2 tables grow", tables_grow);
    add("/qcow2/write/a huge hole is one extent", a_huge_hole_is_one_extent);
    add("/qcow2/write/reserved space that was never written is a hole", reserved_space_is_a_hole);
    add("/qcow2/write/space that was freed makes no holes", freed_space_makes_no_holes);
    return g_test_run();
}
