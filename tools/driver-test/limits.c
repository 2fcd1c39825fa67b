/* SPDX-License-Identifier: MIT */
/* Files that are particular, or can do little. */
#include "tools/driver-test/kit.h"

static void run(KitDisk *disk)
{
    for (unsigned turn = 0; turn < 3; turn++) {
        kit_random(disk, disk->kit->rounds / 6 + 1);
        kit_expect_all(disk);
        kit_expect_sound(disk, false);
        kit_again(disk);
        kit_expect_all(disk);
    }
    kit_disk_free(disk);
}

/* Random operations over a file of these limits; the image is made over an easy one. */
static void run_over(const Kit *kit, const BdrvLimits *limits, unsigned unsupported, bool fua)
{
    KitDisk *disk;

    kit_need_file(kit);
    disk = kit_disk_new(kit);
    kit_close(disk);
    for (unsigned i = 0; i < kit->n_children; i++) {
        bdrv_simdisk_set_limits(disk->files[i].sim, limits);
        bdrv_simdisk_set_unsupported(disk->files[i].sim, unsupported);
        bdrv_simdisk_set_fua(disk->files[i].sim, fua);
    }
    kit_open(disk, KIT_RDWR);
    run(disk);
}

static void sectors(const Kit *kit)
{
    run_over(kit, &(BdrvLimits){ .request_alignment = 512, .mem_alignment = 512 }, 0, true);
}

static void large_sectors(const Kit *kit)
{
    run_over(kit, &(BdrvLimits){ .request_alignment = 4096, .mem_alignment = 4096 }, 0, true);
}

static void small_requests(const Kit *kit)
{
    run_over(kit,
             &(BdrvLimits){ .request_alignment = 512,
                            .max_iov = 2,
                            .max_transfer = 8192,
                            .max_pwrite_zeroes = 4096,
                            .max_pdiscard = 4096,
                            .pwrite_zeroes_alignment = 4096,
                            .pdiscard_alignment = 4096 },
             0, true);
}

static void poor_file(const Kit *kit)
{
    run_over(kit, &(BdrvLimits){ .request_alignment = 1 }, BDRV_SIM_ZERO | BDRV_SIM_DISCARD | BDRV_SIM_COPY,
             false);
}

/* A parent passes parts of its callers' buffers: the driver sees an iov_offset that is not 0. */
static void split_above(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);

    kit_close(disk);
    disk->above = "align=512,max-transfer=4096";
    kit_open(disk, KIT_RDWR);
    run(disk);
}

const KitTest limits_tests[] = {
    { "limits/sectors", "a file that takes whole sectors of 512 bytes", sectors },
    { "limits/large-sectors", "a file that takes whole sectors of 4096 bytes", large_sectors },
    { "limits/small-requests", "a file that takes small requests of two buffers", small_requests },
    { "limits/poor-file", "a file without zeroes, discards and FUA", poor_file },
    { "limits/split-above", "a parent that splits requests: parts of buffers, by iov_offset", split_above },
    { NULL },
};
