/* SPDX-License-Identifier: MIT */
/* The overlap-check options: which structures of a damaged image no data is written over. */

#include <bdrv/bdrv.h>
#include <errno.h>
#include <string.h>

#include "drivers/qcow2/meta/meta.h"
#include "tests/unit/qcow2/rig.h"
#include "tests/unit/qcow2/stand.h"
#include "tests/unit/qcow2/surgery.h"

#define K 1024
#define CLUSTER 4096
#define VICTIM (64 * K) /* guest offset whose entry leads to a structure */

typedef enum Structure {
    MAIN_HEADER,
    ACTIVE_L1,
    ACTIVE_L2,
    REFCOUNT_TABLE,
    REFCOUNT_BLOCK,
    SNAPSHOT_TABLE,
    INACTIVE_L1,
    INACTIVE_L2,
    BITMAP_DIRECTORY,
    STRUCTURES,
} Structure;

static const char *const names[STRUCTURES] = {
    "main-header",    "active-l1",   "active-l2",   "refcount-table",   "refcount-block",
    "snapshot-table", "inactive-l1", "inactive-l2", "bitmap-directory",
};

/* The header says nothing of where bitmaps are: an extension does. One bitmap, in use, so nobody looks for its bits. */
static void put_bitmaps_extension(BdrvSimDisk *disk, uint64_t directory)
{
    uint64_t at = surgery_peek(disk, 100, 4); /* header_length */
    surgery_poke(disk, at, 4, 0x23852875);
    surgery_poke(disk, at + 4, 4, 24);
    surgery_poke(disk, at + 8, 4, 1);
    surgery_poke(disk, at + 12, 4, 0);
    surgery_poke(disk, at + 16, 8, 32);
    surgery_poke(disk, at + 24, 8, directory);
    surgery_poke(disk, at + 32, 8, 0);
    surgery_poke(disk, 88, 8, QCOW2_AUTOCLEAR_BITMAPS);
    surgery_poke(disk, directory + 12, 4, QCOW2_BITMAP_IN_USE);
    surgery_poke(disk, directory + 16, 8, UINT64_C(0x0110000100000000)); /* type 1, 64 KiB, a name of 1 byte */
    surgery_poke(disk, directory + 24, 1, 'b');
}

/* An image with a snapshot whose L2 table is its own, and the place of every structure. */
static BdrvSimDisk *coroutine_fn make_image(uint64_t place[STRUCTURES])
{
    BdrvSimDisk *disk = rig_create(&(RigImage){ .disk = "d", .size = 256 * K, .cluster_size = CLUSTER });
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 16 * K, 1), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    surgery_add_snapshot(disk);
    rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 16 * K, 2), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");

    uint64_t directory = ((uint64_t)bdrv_simdisk_length(disk) + CLUSTER - 1) / CLUSTER * CLUSTER;
    surgery_poke(disk, directory + CLUSTER - 8, 8, 0);
    surgery_set_refcount(disk, directory, 1);
    put_bitmaps_extension(disk, directory);
    place[MAIN_HEADER] = 0;
    place[ACTIVE_L1] = surgery_peek(disk, 40, 8);
    place[ACTIVE_L2] = surgery_peek(disk, place[ACTIVE_L1], 8) & QCOW2_OFFSET_MASK;
    place[REFCOUNT_TABLE] = surgery_peek(disk, 48, 8);
    place[REFCOUNT_BLOCK] = surgery_peek(disk, place[REFCOUNT_TABLE], 8);
    place[SNAPSHOT_TABLE] = surgery_peek(disk, 64, 8);
    place[INACTIVE_L1] = surgery_peek(disk, place[SNAPSHOT_TABLE], 8);
    place[INACTIVE_L2] = surgery_peek(disk, place[INACTIVE_L1], 8) & QCOW2_OFFSET_MASK;
    place[BITMAP_DIRECTORY] = directory;
    g_assert_cmpuint(place[INACTIVE_L2], !=, place[ACTIVE_L2]);
    return disk;
}

/* Write to the guest cluster that leads to @structure. */
static int coroutine_fn write_over(Structure structure, const char *options, bool *is_marked)
{
    uint64_t place[STRUCTURES];
    g_autoptr(BdrvSimDisk) disk = make_image(place);
    uint64_t at = place[ACTIVE_L2] + VICTIM / CLUSTER * 8;
    surgery_poke(disk, at, 8, place[structure] | QCOW2_COPIED);
    Rig rig = rig_open("d", options, NULL);
    int ret = rig_write(&rig, VICTIM + CLUSTER - 512, 512, 0);
    g_assert_cmpint(ret == 0, ==, qcow2_corrupt_message(rig.child->bs) == NULL);
    rig_close(&rig);
    *is_marked = surgery_peek(disk, 72, 8) & QCOW2_INCOMPAT_CORRUPT;
    return ret;
}

static void coroutine_fn check_hit(Structure structure, const char *options, bool hit)
{
    bool is_marked;
    g_test_message("%s with %s", names[structure], options);
    g_assert_cmpint(write_over(structure, options, &is_marked), ==, hit ? -EIO : 0);
    g_assert_cmpint(is_marked, ==, hit);
}

static void coroutine_fn templates_guard_what_they_name(void)
{
    static const struct {
        const char *option;
        bool hit[STRUCTURES];
    } cases[] = {
        /*                              header l1 l2 table block snap il1 il2 bitmaps */
        { "overlap-check=none", { false, false, false, false, false, false, false, false, false } },
        { "overlap-check=constant", { true, true, false, true, false, true, false, false, true } },
        { "overlap-check=cached", { true, true, true, true, true, true, true, false, true } },
        { "", { true, true, true, true, true, true, true, false, true } },
        { "overlap-check.template=all", { true, true, true, true, true, true, true, true, true } },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (unsigned k = MAIN_HEADER + 1; k < STRUCTURES; k++) {
            check_hit(k, cases[i].option, cases[i].hit[k]);
        }
    }
}

static void coroutine_fn each_structure_has_a_switch(void)
{
    for (unsigned i = MAIN_HEADER + 1; i < STRUCTURES; i++) {
        g_autofree char *only = g_strdup_printf("overlap-check=none,overlap-check.%s=on", names[i]);
        g_autofree char *but = g_strdup_printf("overlap-check=all,overlap-check.%s=off", names[i]);
        check_hit(i, only, true);
        check_hit(i, but, false);
        check_hit(i == ACTIVE_L1 ? REFCOUNT_TABLE : ACTIVE_L1, only, false);
    }
}

/* No entry of data leads into the header: offset 0 means none. The guard is asked itself. */
static void coroutine_fn the_header_has_a_switch(void)
{
    static const struct {
        const char *options;
        int ret;
    } cases[] = {
        { "overlap-check=none", 0 },
        { "overlap-check=constant", -EIO },
        { "overlap-check=all,overlap-check.main-header=off", 0 },
        { "overlap-check=none,overlap-check.main-header=on", -EIO },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint64_t place[STRUCTURES];
        g_autoptr(BdrvSimDisk) disk = make_image(place);
        Rig rig = rig_open("d", cases[i].options, NULL);
        g_assert_cmpint(qcow2_check_data_write(rig.child->bs, 1024, 512), ==, cases[i].ret);
        rig_close(&rig);
    }
}

static void coroutine_fn a_table_of_disk_and_snapshot_counts_as_both(void)
{
    uint64_t place[STRUCTURES];
    g_autoptr(BdrvSimDisk) disk = make_image(place);
    surgery_share(disk);
    surgery_poke(disk, place[INACTIVE_L1], 8, surgery_peek(disk, place[ACTIVE_L1], 8) & QCOW2_OFFSET_MASK);
    Rig rig = rig_open("d", "overlap-check=none,overlap-check.inactive-l2=on", NULL);
    g_assert_cmpint(qcow2_check_data_write(rig.child->bs, place[ACTIVE_L2], 512), ==, -EIO);
    rig_close(&rig);
}

static void coroutine_fn a_snapshot_table_in_a_refcount_block_is_not_overwritten(void)
{
    uint64_t place[STRUCTURES];
    g_autoptr(BdrvSimDisk) disk = make_image(place);
    surgery_poke(disk, place[INACTIVE_L1], 8, place[REFCOUNT_BLOCK]);
    Rig rig = rig_open("d", "overlap-check=all", NULL);
    g_assert_cmpint(rig_write(&rig, 128 * K, 4 * K, 3), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, -EIO); /* counts cannot be written */
    g_assert_nonnull(qcow2_corrupt_message(rig.child->bs));
    rig_close(&rig);
}

static void coroutine_fn snapshots_that_share_one_large_table_are_refused(void)
{
    uint64_t place[STRUCTURES];
    g_autoptr(BdrvSimDisk) disk = make_image(place);
    GError *error = NULL;
    uint8_t entry[64];
    surgery_poke(disk, place[SNAPSHOT_TABLE], 8, 256 * K);
    surgery_poke(disk, place[SNAPSHOT_TABLE] + 8, 4, 512 * K / 8);
    surgery_poke(disk, 768 * K - 8, 8, 0);
    bdrv_simdisk_peek(disk, (int64_t)place[SNAPSHOT_TABLE], entry, sizeof(entry));
    bdrv_simdisk_poke(disk, (int64_t)place[SNAPSHOT_TABLE] + 64, entry, sizeof(entry));
    surgery_poke(disk, 60, 4, 2);
    BdrvChild *file = test_must_open("simdisk", "disk=d", NULL);
    g_assert_null(test_open("qcow2", "overlap-check=all", file, BDRV_O_RDWR, &error));
    g_assert_nonnull(strstr(error->message, "L1 tables of all snapshots have 1048576 bytes, more than the file"));
    g_error_free(error);
    test_close(file);
}

/* ---- through the whole stack ---- */

/* An image whose first guest cluster lies where the refcount table is. */
static void create_damaged(const char *options)
{
    stand_create("o", options);
    BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_RDWR);
    g_assert_cmpint(blk_pwrite(blk, 0, 4, "data", 0), ==, 0);
    stand_close(blk);
    uint64_t l1 = stand_get("o", 40, 8), l2 = stand_get("o", (int64_t)l1, 8) & QCOW2_OFFSET_MASK;
    stand_put("o", (int64_t)l2, 8, stand_get("o", 48, 8) | QCOW2_COPIED);
}

static int write_end(BlockBackend *blk)
{
    return blk_pwrite(blk, 65536 - 4, 4, "data", 0); /* an entry for what lies far behind */
}

static void reopen(BlockBackend *blk, const char *options)
{
    GError *error = NULL;
    blk_reopen(blk, bdrv_options_parse(options, NULL, NULL), BDRV_O_RDWR, &error);
    g_assert_no_error(error);
}

static void test_reopen(void)
{
    create_damaged("size=1M");
    BlockBackend *blk = stand_must_open("o", "overlap-check=none", BDRV_O_RDWR);
    g_assert_cmpint(write_end(blk), ==, 0);
    reopen(blk, "overlap-check.refcount-block=on");
    g_assert_cmpint(write_end(blk), ==, 0);
    reopen(blk, "overlap-check.refcount-table=on");
    g_assert_null(blk_explain(blk));
    g_assert_cmpint(write_end(blk), ==, -EIO);
    blk_close(blk, NULL);
    stand_forget("o");
}

static void test_reopen_conflict(void)
{
    g_autoptr(GError) error = NULL;
    stand_create("o", "size=1M");
    BlockBackend *blk = stand_must_open("o", "overlap-check=none", BDRV_O_RDWR);
    g_assert_false(blk_reopen(blk, bdrv_options_parse("overlap-check.template=all", NULL, NULL), BDRV_O_RDWR, &error));
    g_assert_true(stand_matches("*Conflicting values*overlap-check' ('none')*'overlap-check.template' ('all')*",
                                error->message));
    stand_close(blk);
    stand_forget("o");
}

static void test_becoming_writable(void)
{
    create_damaged("size=1M");
    BlockBackend *blk = stand_must_open("o", "overlap-check=none", 0);
    reopen(blk, "overlap-check=all");
    g_assert_cmpint(write_end(blk), ==, -EIO);
    blk_close(blk, NULL);
    stand_forget("o");
}

static void test_stop(void)
{
    create_damaged("size=1M");
    BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_RDWR);
    uint8_t buf[4];
    g_assert_cmpint(write_end(blk), ==, -EIO);
    g_autofree char *text = blk_explain(blk);
    g_assert_true(stand_matches("*marked corrupt*host offset 0x*overwrite metadata (the refcount table)*", text));
    g_assert_cmpint(blk_pwrite(blk, 512 * K, 4, "data", 0), ==, -EIO);
    g_assert_cmpint(blk_pread(blk, 512 * K, 4, buf, 0), ==, 0);
    blk_close(blk, NULL);
    g_autoptr(GError) error = NULL;
    g_assert_null(stand_open("o", NULL, BDRV_O_RDWR, &error));
    g_assert_true(stand_matches("*marked corrupt*", error->message));
    stand_close(stand_must_open("o", NULL, 0));
    stand_forget("o");
}

static void test_version_2(void)
{
    create_damaged("size=1M,compat=0.10");
    BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_RDWR);
    g_assert_cmpint(write_end(blk), ==, -EIO);
    g_assert_cmpint(blk_pwrite(blk, 512 * K, 4, "data", 0), ==, -EIO);
    g_assert_cmpuint(stand_get("o", 4, 4), ==, 2);
    blk_close(blk, NULL);
    stand_forget("o");
}

static void add(const char *path, void (*body)(void))
{
    g_test_add_data_func(path, body, (GTestDataFunc)test_run);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("/qcow2/overlap/templates guard what they name", templates_guard_what_they_name);
    add("/qcow2/overlap/each structure has a switch", each_structure_has_a_switch);
    add("/qcow2/overlap/the header has a switch", the_header_has_a_switch);
    add("/qcow2/overlap/a table of disk and snapshot counts as both", a_table_of_disk_and_snapshot_counts_as_both);
    add("/qcow2/overlap/a snapshot's table in a refcount block is not overwritten",
        a_snapshot_table_in_a_refcount_block_is_not_overwritten);
    add("/qcow2/overlap/snapshots that share one large table are refused",
        snapshots_that_share_one_large_table_are_refused);
    g_test_add_func("/qcow2/overlap/reopening changes what is guarded", test_reopen);
    g_test_add_func("/qcow2/overlap/reopening with two templates is refused", test_reopen_conflict);
    g_test_add_func("/qcow2/overlap/becoming writable maps what is to be guarded", test_becoming_writable);
    g_test_add_func("/qcow2/overlap/a hit stops writes and is explained", test_stop);
    g_test_add_func("/qcow2/overlap/a hit stops writes in version 2, too", test_version_2);
    return g_test_run();
}
