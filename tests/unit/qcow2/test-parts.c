/* SPDX-License-Identifier: MIT */
/*
 * Extents of one request, and writes of one commit phase, go on side by side. The clock is virtual and each
 * request of the disk takes 1 ms of it, so the time that passes counts the requests in a row.
 */

#include <errno.h>

#include "drivers/qcow2/fanout.h"
#include "tests/unit/qcow2/rig.h"

#define K 1024
#define MS (INT64_C(1000) * 1000)
#define EXTENTS 32

static const RigImage image = { .disk = "d", .size = 4096 * K, .cluster_size = 4096 };

static int64_t coroutine_fn now_ms(void)
{
    return aio_clock_ns(aio_context_current()) / MS;
}

/* Every second cluster, from the last to the first: no two lie side by side. */
static Rig coroutine_fn open_fragmented(BdrvSimDisk *disk)
{
    Rig rig = rig_open("d", "", NULL);
    for (int i = EXTENTS - 1; i >= 0; i--) {
        g_assert_cmpint(rig_write(&rig, (int64_t)i * 4096, 4096, (uint8_t)(i + 1)), ==, 0);
    }
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    bdrv_simdisk_set_delay(disk, MS, MS);
    return rig;
}

static void coroutine_fn close_clean(Rig *rig, BdrvSimDisk *disk)
{
    bdrv_simdisk_set_delay(disk, 0, 0);
    g_assert_cmpint(rig_close(rig), ==, 0);
    rig_assert_clean("d");
}

static void coroutine_fn reads_go_side_by_side(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    g_autofree uint8_t *buf = g_malloc(EXTENTS * 4096);
    Rig rig = open_fragmented(disk);
    uint64_t reads = bdrv_simdisk_count(disk, BDRV_SIM_READ);
    int64_t start = now_ms();
    g_assert_cmpint(rig_read(&rig, 0, EXTENTS * 4096, buf), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_READ) - reads, ==, EXTENTS);
    g_assert_cmpint(now_ms() - start, ==, EXTENTS / QCOW2_FANOUT_MAX);
    for (int i = 0; i < EXTENTS * 4096; i++) {
        g_assert_cmpuint(buf[i], ==, i / 4096 + 1);
    }
    close_clean(&rig, disk);
}

static void coroutine_fn writes_go_side_by_side(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = open_fragmented(disk);
    int64_t start = now_ms();
    g_assert_cmpint(rig_write(&rig, 0, EXTENTS * 4096, 0x77), ==, 0);
    g_assert_cmpint(now_ms() - start, ==, EXTENTS / QCOW2_FANOUT_MAX);
    rig_assert_filled(&rig, 0, EXTENTS * 4096, 0x77);
    close_clean(&rig, disk);
}

/* In place, to be allocated, in place …: cut at each change. */
static void coroutine_fn mixed_writes_go_side_by_side(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = open_fragmented(disk);
    for (int i = 0; i < EXTENTS; i += 2) {
        g_assert_cmpint(bdrv_co_pdiscard(rig.child, i * 4096, 4096), ==, 0);
    }
    int64_t start = now_ms();
    g_assert_cmpint(rig_write(&rig, 0, EXTENTS * 4096, 0x66), ==, 0);
    g_assert_cmpint(now_ms() - start, <=, EXTENTS / QCOW2_FANOUT_MAX + 1);
    rig_assert_filled(&rig, 0, EXTENTS * 4096, 0x66);
    rig_assert_filled(&rig, EXTENTS * 4096, 4096, 0);
    close_clean(&rig, disk);
}

/* The error of any part is the request's; none is left behind. */
static void coroutine_fn any_part_may_fail(void)
{
    for (unsigned nth = 1; nth <= EXTENTS; nth++) {
        g_autoptr(BdrvSimDisk) disk = rig_create(&image);
        g_autofree uint8_t *buf = g_malloc(EXTENTS * 4096);
        Rig rig = open_fragmented(disk);
        bdrv_simdisk_fail(disk, BDRV_SIM_READ, nth, 1, EIO);
        g_assert_cmpint(rig_read(&rig, 0, EXTENTS * 4096, buf), ==, -EIO);
        bdrv_simdisk_fail(disk, BDRV_SIM_WRITE, nth, 1, ENOSPC);
        g_assert_cmpint(rig_write(&rig, 0, EXTENTS * 4096, 0x55), ==, 0); /* tried again after settling */
        bdrv_simdisk_fail(disk, BDRV_SIM_WRITE, nth, 1, EIO);
        g_assert_cmpint(rig_write(&rig, 0, EXTENTS * 4096, 0x44), ==, -EIO);
        bdrv_simdisk_fail_none(disk);
        close_clean(&rig, disk);
    }
}

/* Slices far from each other: one phase writes them all. */
static void coroutine_fn a_phase_writes_side_by_side(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = 4096 * K, .cluster_size = 512 });
    Rig rig = rig_open("d", "", NULL);
    for (int64_t i = 0; i < EXTENTS; i++) {
        g_assert_cmpint(rig_write(&rig, i * 128 * K, 512, 1), ==, 0);
    }
    uint64_t writes = bdrv_simdisk_count(disk, BDRV_SIM_WRITE), reads = bdrv_simdisk_count(disk, BDRV_SIM_READ);
    bdrv_simdisk_set_delay(disk, MS, MS);
    int64_t start = now_ms();
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    writes = bdrv_simdisk_count(disk, BDRV_SIM_WRITE) - writes;
    reads = bdrv_simdisk_count(disk, BDRV_SIM_READ) - reads; /* only a build that checks invariants reads here */
    g_assert_cmpuint(writes, >=, EXTENTS);
    int64_t writing = now_ms() - start - (int64_t)reads;
    g_assert_cmpint(writing, <=, (int64_t)writes / QCOW2_FANOUT_MAX + 4); /* and two or three flushes */
    close_clean(&rig, disk);
}

static void add(const char *path, void (*body)(void))
{
    g_test_add_data_func(path, body, (GTestDataFunc)test_run);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("/qcow2/parts/extents of a read go side by side", reads_go_side_by_side);
    add("/qcow2/parts/extents of a write go side by side", writes_go_side_by_side);
    add("/qcow2/parts/extents in place and allocated go side by side", mixed_writes_go_side_by_side);
    add("/qcow2/parts/the error of any part is that of the request", any_part_may_fail);
    add("/qcow2/parts/writes of a commit phase go side by side", a_phase_writes_side_by_side);
    return g_test_run();
}
