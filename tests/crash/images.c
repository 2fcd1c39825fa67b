/* SPDX-License-Identifier: MIT */
#include "tests/crash/images.h"

#include <string.h>

#include "drivers/qcow2/format/bytes.h"
#include "drivers/qcow2/format/format.h"
#include "drivers/qcow2/meta/meta.h"

const CrashImage crash_images[] = {
    { "plain", 512, 16, false, false, 0 },
    { "backing", 512, 16, true, false, 0 },
    { "refcount_bits=1", 512, 1, false, false, 0 },
    { "refcount_bits=64", 512, 64, false, false, 0 },
    { "snapshot", 512, 16, false, true, 0 },
    { "plain, 4k clusters", 4096, 16, false, false, 0 },
    { "backing, 4k clusters", 4096, 16, true, false, 0 },
    { "snapshot, 4k clusters", 4096, 16, false, true, 0 },
    { "a refcount block is full", 512, 64, false, false, 32 * 1024 - 512 * 4 },
    { "the refcount table is full", 512, 64, true, false, 2048 * 1024 - 512 * 4 },
};
const unsigned crash_image_count = G_N_ELEMENTS(crash_images);

Rig coroutine_fn crash_image_open(const CrashImage *image, const char *disk, const char *options)
{
    return rig_open(disk, options, image->backing ? rig_backing("backing", CRASH_SIZE, CRASH_BACKING) : NULL);
}

static uint64_t peek64(BdrvSimDisk *disk, uint64_t offset)
{
    uint8_t raw[8];
    bdrv_simdisk_peek(disk, (int64_t)offset, raw, sizeof(raw));
    return load_be64(raw);
}

static void poke64(BdrvSimDisk *disk, uint64_t offset, uint64_t value)
{
    uint8_t raw[8];
    store_be64(raw, value);
    bdrv_simdisk_poke(disk, (int64_t)offset, raw, sizeof(raw));
}

static void set_refcount(BdrvSimDisk *disk, uint64_t host_offset, uint64_t cluster_size, uint16_t value)
{
    uint64_t cluster = host_offset / cluster_size, per_block = cluster_size / 2;
    uint64_t block = peek64(disk, peek64(disk, 48) + cluster / per_block * 8);
    uint8_t raw[2];
    g_assert_cmpuint(block, !=, 0);
    store_be16(raw, value);
    bdrv_simdisk_poke(disk, (int64_t)(block + cluster % per_block * 2), raw, 2);
}

/* Clear COPIED and count everything that the L1 table leads to twice. */
static void share_all(BdrvSimDisk *disk, uint64_t cluster_size, uint64_t l1_offset, uint32_t l1_size)
{
    for (uint32_t i = 0; i < l1_size; i++) {
        uint64_t table = peek64(disk, l1_offset + i * 8) & QCOW2_OFFSET_MASK;
        if (!table) {
            continue;
        }
        poke64(disk, l1_offset + i * 8, table);
        set_refcount(disk, table, cluster_size, 2);
        for (uint64_t at = table; at < table + cluster_size; at += 8) {
            uint64_t entry = peek64(disk, at);
            poke64(disk, at, entry & ~QCOW2_COPIED);
            if (entry & QCOW2_OFFSET_MASK) {
                set_refcount(disk, entry & QCOW2_OFFSET_MASK, cluster_size, 2);
            }
        }
    }
}

/* A snapshot as an implementation of the specification would have made it; refcounts of 16 bits. */
static void add_snapshot(BdrvSimDisk *disk, uint64_t cluster_size)
{
    uint64_t l1_offset = peek64(disk, 40);
    uint8_t size_raw[4], l1[512], table[64] = { 0 };
    bdrv_simdisk_peek(disk, 36, size_raw, 4);
    uint32_t l1_size = load_be32(size_raw);
    uint64_t end = ((uint64_t)bdrv_simdisk_length(disk) + cluster_size - 1) / cluster_size * cluster_size;
    uint64_t l1_copy = end, directory = end + cluster_size;

    g_assert_cmpuint(l1_size * 8, <=, sizeof(l1));
    share_all(disk, cluster_size, l1_offset, l1_size);
    bdrv_simdisk_peek(disk, (int64_t)l1_offset, l1, sizeof(l1));
    bdrv_simdisk_poke(disk, (int64_t)l1_copy, l1, sizeof(l1));
    store_be64(table, l1_copy);
    store_be32(table + 8, l1_size);
    store_be16(table + 12, 1); /* id */
    store_be16(table + 14, 1); /* name */
    store_be32(table + 36, 16);
    store_be64(table + 48, CRASH_SIZE);
    table[56] = '1';
    table[57] = 's';
    bdrv_simdisk_poke(disk, (int64_t)directory, table, sizeof(table));
    set_refcount(disk, l1_copy, cluster_size, 1);
    set_refcount(disk, directory, cluster_size, 1);
    uint8_t one[4];
    store_be32(one, 1);
    bdrv_simdisk_poke(disk, 60, one, 4);
    poke64(disk, 64, directory);
}

/* Take clusters that nothing refers to. */
static void coroutine_fn use_up(const Rig *rig, int64_t up_to)
{
    Qcow2Allocation got = { 0 };
    while ((int64_t)got.host_offset + 512 < up_to) {
        g_assert_cmpint(qcow2_alloc_clusters(rig->child->bs, 0, 1, &got), ==, 0);
    }
}

BdrvSimDisk *coroutine_fn crash_image_make(const CrashImage *image, uint8_t content[CRASH_SECTORS])
{
    RigImage how = {
        .disk = "base", .size = CRASH_SIZE, .cluster_size = image->cluster_size, .refcount_bits = image->refcount_bits,
    };
    BdrvSimDisk *disk = rig_create(&how);
    bdrv_simdisk_set_volatile(disk, false);
    Rig rig = crash_image_open(image, "base", "");
    g_assert_cmpint(rig_write(&rig, 0, CRASH_SIZE / 4, CRASH_BASE), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 0, CRASH_SIZE / 16, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, CRASH_SIZE / 16, CRASH_SIZE / 16), ==, 0);
    for (unsigned i = 0; i < CRASH_SECTORS; i++) {
        content[i] = i < CRASH_SECTORS / 8   ? 0
                     : i < CRASH_SECTORS / 4 ? CRASH_BASE
                     : image->backing        ? CRASH_BACKING
                                             : 0;
    }
    use_up(&rig, image->used);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    if (image->snapshot) {
        add_snapshot(disk, (uint64_t)image->cluster_size);
    }
    if (!image->used) {
        rig_assert_clean("base");
    }
    bdrv_simdisk_set_volatile(disk, true);
    return disk;
}
