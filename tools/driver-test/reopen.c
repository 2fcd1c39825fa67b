/* SPDX-License-Identifier: MIT */
/* Changing how an image is open. */
#include "tools/driver-test/kit.h"

static void reopen(KitDisk *disk, BdrvOpenFlags flags)
{
    g_autoptr(GError) error = NULL;

    kit_note("reopen %s", flags & BDRV_O_RDWR ? "for writing" : "read-only");
    if (!blk_reopen(disk->blk, NULL, flags, &error)) {
        if (bdrv_error_code(error) == ENOTSUP) {
            kit_skip("the driver does not reopen: %s", error->message);
        }
        kit_fail("reopening: %s", error->message);
    }
}

static void turns(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);
    uint8_t byte = 1;

    for (unsigned turn = 0; turn < 4; turn++) {
        int ret;

        kit_random(disk, kit->rounds / 16 + 1);
        reopen(disk, BDRV_O_UNMAP);
        kit_expect_all(disk);
        ret = blk_pwrite(disk->blk, 0, 1, &byte, 0);
        if (ret != -EPERM) {
            kit_fail("reopened read-only, a write ends with %s (%d), expected %s",
                     ret < 0 ? g_strerror(-ret) : "success", ret, g_strerror(EPERM));
        }
        reopen(disk, KIT_RDWR);
        kit_expect_all(disk);
    }
    kit_again(disk);
    kit_expect_all(disk);
    kit_expect_sound(disk, false);
    kit_disk_free(disk);
}

/* A read-only image has to be complete in its file: who else opens it sees all. */
static void read_only_is_complete(const Kit *kit)
{
    KitDisk *disk, *copy;
    g_autoptr(KitSaved) saved = NULL;

    kit_need_file(kit);
    disk = kit_disk_new(kit);
    kit_random(disk, kit->rounds / 8 + 1);
    reopen(disk, 0);
    saved = kit_save(disk);
    copy = kit_disk_like(disk);
    kit_restore(copy, saved);
    kit_note("open a copy of the file");
    kit_open(copy, 0);
    kit_expect_all(copy);
    kit_disk_free(copy);
    kit_disk_free(disk);
}

static void changed_options(const Kit *kit)
{
    static const char *const texts[] = { "cache.no-flush=on", "discard=unmap", "discard=ignore",
                                         "cache.no-flush=off" };
    KitDisk *disk = kit_disk_new(kit);

    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(GError) error = NULL;

        kit_random(disk, 10);
        kit_note("reopen with %s", texts[i]);
        if (!blk_reopen(disk->blk, bdrv_options_parse(texts[i], NULL, NULL), KIT_RDWR, &error)) {
            if (bdrv_error_code(error) == ENOTSUP) {
                kit_skip("the driver does not reopen: %s", error->message);
            }
            kit_fail("reopening with %s: %s", texts[i], error->message);
        }
        kit_expect_all(disk);
    }
    kit_again(disk);
    kit_expect_all(disk);
    kit_disk_free(disk);
}

const KitTest reopen_tests[] = {
    { "reopen/turns", "read-only and for writing in turns, the content stays", turns },
    { "reopen/complete", "reopened read-only, the file is complete", read_only_is_complete },
    { "reopen/options", "with other options, the content stays", changed_options },
    { NULL },
};
