/* SPDX-License-Identifier: MIT */
/* What becomes of freed space: the discards that reach the file, and the space that discard-no-unref keeps. */

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/meta/meta.h"
#include "tests/unit/qcow2/rig.h"
#include "tests/unit/qcow2/surgery.h"

#define K 1024

static const RigImage image = { .disk = "d", .size = 1024 * K, .cluster_size = 64 * K };
static const RigImage small = { .disk = "d", .size = 16 * K, .cluster_size = 512 };

static int coroutine_fn discard(const Rig *rig)
{
    return bdrv_co_pdiscard(rig->child, 64 * K, 128 * K);
}

static int coroutine_fn unmap(const Rig *rig)
{
    return bdrv_co_pwrite_zeroes(rig->child, 64 * K, 128 * K, BDRV_REQ_MAY_UNMAP);
}

static int coroutine_fn zero(const Rig *rig)
{
    return bdrv_co_pwrite_zeroes(rig->child, 64 * K, 128 * K, 0);
}

/* How many calls that give space back a change makes until all of it is free. */
static uint64_t coroutine_fn count_calls(const char *options, int coroutine_fn (*change)(const Rig *rig), unsigned kinds)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", options, NULL);
    g_assert_cmpint(rig_write(&rig, 0, 256 * K, 5), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    uint64_t before = bdrv_simdisk_count(disk, kinds);
    g_assert_cmpint(change(&rig), ==, 0);
    g_assert_cmpint(qcow2_meta_settle(rig.child->bs), ==, 0);
    uint64_t calls = bdrv_simdisk_count(disk, kinds) - before;
    rig_assert_filled(&rig, 0, 64 * K, 5);
    rig_assert_filled(&rig, 64 * K, 128 * K, 0);
    rig_assert_filled(&rig, 192 * K, 64 * K, 5);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
    return calls;
}

static void coroutine_fn requests_are_passed_on(void)
{
    static const struct {
        const char *options;
        int coroutine_fn (*change)(const Rig *rig);
        uint64_t discards, zeroes;
    } cases[] = {
        { "", discard, 1, 0 },
        { "", unmap, 1, 0 },
        { "", zero, 0, 0 },
        { "pass-discard-request=on", discard, 1, 0 },
        { "pass-discard-request=off", discard, 0, 0 },
        { "pass-discard-request=off", unmap, 0, 0 },
        { "pass-discard-request=off,pass-discard-other=on,pass-discard-snapshot=on", discard, 0, 0 },
        { "discard-no-unref=on", discard, 1, 0 },
        { "discard-no-unref=on", unmap, 0, 1 },
        { "discard-no-unref=on", zero, 0, 0 },
        { "discard-no-unref=on,pass-discard-request=off", discard, 0, 0 },
        { "discard-no-unref=on,pass-discard-request=off", unmap, 0, 0 },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("case %u: %s", i, cases[i].options);
        g_assert_cmpuint(count_calls(cases[i].options, cases[i].change, BDRV_SIM_DISCARD), ==, cases[i].discards);
        g_assert_cmpuint(count_calls(cases[i].options, cases[i].change, BDRV_SIM_ZERO), ==, cases[i].zeroes);
    }
}

static void coroutine_fn ignored_discards_change_nothing(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    GError *error = NULL;
    BdrvChild *file = test_must_open("simdisk", "disk=d", NULL);
    Rig rig = { .child = test_open("qcow2", "pass-discard-request=on", file, BDRV_O_RDWR, &error) };
    g_assert_no_error(error);
    g_assert_cmpint(rig_write(&rig, 0, 256 * K, 5), ==, 0);
    g_assert_cmpint(discard(&rig), ==, 0);
    rig_assert_filled(&rig, 0, 256 * K, 5);
    g_assert_cmpint(unmap(&rig), ==, 0);
    rig_assert_filled(&rig, 64 * K, 128 * K, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_DISCARD), ==, 0);
}

/* The L1 table of one cluster moves, the refcount table too. */
static uint64_t coroutine_fn discards_of_growth(const char *options)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&small);
    Rig rig = rig_open("d", options, NULL);
    g_assert_cmpint(qcow2_meta_grow_l1(rig.child->bs, 200), ==, 0);
    g_assert_cmpint(qcow2_meta_settle(rig.child->bs), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
    return bdrv_simdisk_count(disk, BDRV_SIM_DISCARD);
}

static void coroutine_fn moved_tables_are_other_space(void)
{
    g_assert_cmpuint(discards_of_growth(""), ==, 0);
    g_assert_cmpuint(discards_of_growth("pass-discard-request=on,pass-discard-snapshot=on"), ==, 0);
    g_assert_cmpuint(discards_of_growth("pass-discard-other=on"), ==, 1);
}

static uint64_t coroutine_fn status_of(const Rig *rig, int64_t offset, BlockExtentKind kind)
{
    BlockExtent extent;
    g_assert_cmpint(bdrv_co_block_status(rig->child, offset, 512, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, kind);
    return (uint64_t)extent.host_offset;
}

static void coroutine_fn check_space_is_kept(int coroutine_fn (*change)(const Rig *rig))
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "discard-no-unref=on", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 256 * K, 5), ==, 0);
    uint64_t place = status_of(&rig, 64 * K, EXTENT_DATA);
    g_assert_cmpint(change(&rig), ==, 0);
    g_assert_cmpuint(status_of(&rig, 64 * K, EXTENT_ZERO), ==, place);
    uint8_t there[2 * 64 * K];
    bdrv_simdisk_peek(disk, (int64_t)place, there, sizeof(there)); /* at once, not after the next flush */
    g_assert_true(bdrv_buffer_is_zero(there, sizeof(there)));
    g_assert_cmpint(rig_write(&rig, 65 * K, K, 6), ==, 0);
    g_assert_cmpuint(status_of(&rig, 64 * K, EXTENT_DATA), ==, place);
    rig_assert_filled(&rig, 64 * K, K, 0);
    rig_assert_filled(&rig, 65 * K, K, 6);
    rig_assert_filled(&rig, 66 * K, 126 * K, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

static void coroutine_fn no_unref_keeps_the_space(void)
{
    check_space_is_kept(discard);
    check_space_is_kept(unmap);
}

static void coroutine_fn no_unref_leaves_shared_space_alone(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", NULL, NULL);
    g_assert_cmpint(rig_write(&rig, 0, 256 * K, 5), ==, 0);
    uint64_t place = status_of(&rig, 64 * K, EXTENT_DATA);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    surgery_add_snapshot(disk);
    rig = rig_open("d", "discard-no-unref=on", NULL);
    g_assert_cmpint(discard(&rig), ==, 0);
    g_assert_cmpint((int64_t)status_of(&rig, 64 * K, EXTENT_ZERO), ==, -1);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    uint8_t there[64 * K];
    bdrv_simdisk_peek(disk, (int64_t)place, there, sizeof(there));
    g_assert_cmpint(there[0], ==, 5); /* the snapshot has it */
    rig_assert_clean("d");
}

static void coroutine_fn no_unref_wants_version_3(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = 1024 * K, .compat = "0.10" });
    GError *error = NULL;
    BdrvChild *file = test_must_open("simdisk", "disk=d", NULL);
    g_assert_null(test_open("qcow2", "discard-no-unref=on", file, BDRV_O_RDWR, &error));
    g_assert_nonnull(strstr(error->message, "needs a version 3 image"));
    g_error_free(error);
    test_close(file);
}

static void coroutine_fn reopening_changes_it(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", NULL, NULL);
    BlockDriverState *bs = rig.child->bs;
    GError *error = NULL;
    g_autoptr(BdrvOptions) off = bdrv_options_new();
    bdrv_options_set_bool(off, "pass-discard-request", false);
    g_assert_cmpint(rig_write(&rig, 0, 256 * K, 5), ==, 0);
    for (unsigned commit = 0; commit < 2; commit++) {
        void *state = NULL;
        g_assert_true(bs->drv->bdrv_reopen_prepare(bs, off, BDRV_O_RDWR | BDRV_O_UNMAP, &state, &error));
        (commit ? bs->drv->bdrv_reopen_commit : bs->drv->bdrv_reopen_abort)(bs, state);
        uint64_t before = bdrv_simdisk_count(disk, BDRV_SIM_DISCARD);
        g_assert_cmpint(bdrv_co_pdiscard(rig.child, commit * 64 * K, 64 * K), ==, 0);
        g_assert_cmpint(qcow2_meta_settle(bs), ==, 0);
        g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_DISCARD) - before, ==, commit ? 0 : 1);
    }
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void add(const char *path, void (*body)(void))
{
    g_test_add_data_func(path, body, (GTestDataFunc)test_run);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("/qcow2/discard/requests reach the file as the options say", requests_are_passed_on);
    add("/qcow2/discard/discard=ignore comes before pass-discard-request", ignored_discards_change_nothing);
    add("/qcow2/discard/tables that moved are discarded with pass-discard-other", moved_tables_are_other_space);
    add("/qcow2/discard/discard-no-unref keeps the space and empties it", no_unref_keeps_the_space);
    add("/qcow2/discard/discard-no-unref does not empty what a snapshot has", no_unref_leaves_shared_space_alone);
    add("/qcow2/discard/discard-no-unref wants version 3", no_unref_wants_version_3);
    add("/qcow2/discard/reopening changes what is passed on", reopening_changes_it);
    return g_test_run();
}
