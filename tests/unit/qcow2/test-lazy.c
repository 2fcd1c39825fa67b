/* SPDX-License-Identifier: MIT */
/* Lazy refcounts: what is not written, the dirty bit around it, and what a crash leaves. */

#include <errno.h>
#include <string.h>

#include "block/util/bytes.h"
#include "drivers/qcow2/format/format.h"
#include "drivers/qcow2/meta/meta.h"
#include "tests/unit/qcow2/rig.h"

#define K 1024

static const RigImage image = { .disk = "d", .size = 1024 * K, .cluster_size = 4 * K };

static bool is_dirty(BdrvSimDisk *disk)
{
    uint8_t raw[8];
    bdrv_simdisk_peek(disk, 72, raw, sizeof(raw));
    return load_be64(raw) & QCOW2_INCOMPAT_DIRTY;
}

static int64_t coroutine_fn corruptions_now(void)
{
    BdrvCheckResult result;
    g_assert_cmpint(rig_check_quietly("d", &result), ==, 0);
    return result.corruptions;
}

/* Two clusters, each made durable; the writes that the second one took. */
static uint64_t coroutine_fn writes_of_second(const char *options)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", options, NULL);
    g_assert_cmpint(rig_write(&rig, 0, 4 * K, 1), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    uint64_t before = bdrv_simdisk_count(disk, BDRV_SIM_WRITE);
    g_assert_cmpint(rig_write(&rig, 4 * K, 4 * K, 2), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    uint64_t writes = bdrv_simdisk_count(disk, BDRV_SIM_WRITE) - before;
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
    return writes;
}

static void coroutine_fn a_flush_writes_no_refcounts(void)
{
    g_assert_cmpuint(writes_of_second("lazy-refcounts=off"), ==, 3); /* data, refcount, pointer */
    g_assert_cmpuint(writes_of_second("lazy-refcounts=on"), ==, 2);
}

static void coroutine_fn the_dirty_bit_stands_while_counts_are_behind(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "lazy-refcounts=on", NULL);
    g_assert_false(is_dirty(disk));
    g_assert_cmpint(rig_write(&rig, 0, 16 * K, 1), ==, 0);
    g_assert_false(is_dirty(disk)); /* nothing is published */
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    g_assert_true(is_dirty(disk));
    g_assert_cmpint(corruptions_now(), >, 0);
    rig_verify(&rig);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    g_assert_false(is_dirty(disk));
    rig_assert_clean("d");
}

static void coroutine_fn writes_in_place_set_no_dirty_bit(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 16 * K, 1), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig = rig_open("d", "lazy-refcounts=on", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 16 * K, 2), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    g_assert_false(is_dirty(disk));
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void coroutine_fn without_the_dirty_bit_nothing_is_published(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "lazy-refcounts=on", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 4 * K, 1), ==, 0);
    uint64_t before = bdrv_simdisk_count(disk, BDRV_SIM_WRITE);
    bdrv_simdisk_fail(disk, BDRV_SIM_WRITE, 1, 1, EIO);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, -EIO);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_WRITE) - before, ==, 2); /* the bit, and the old header again */
    g_assert_false(is_dirty(disk));
    rig_assert_filled(&rig, 0, 4 * K, 1);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    g_assert_true(is_dirty(disk));
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

static void coroutine_fn the_dirty_bit_stays_if_counts_cannot_be_written(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "lazy-refcounts=on", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 4 * K, 1), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    bdrv_simdisk_fail(disk, BDRV_SIM_WRITE, 1, -1, EIO);
    g_assert_cmpint(rig_close(&rig), ==, -EIO);
    bdrv_simdisk_fail_none(disk);
    g_assert_true(is_dirty(disk));
    rig = rig_open("d", "", NULL);
    g_assert_false(is_dirty(disk));
    rig_assert_filled(&rig, 0, 4 * K, 1);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

static void coroutine_fn freed_clusters_are_used_again(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "lazy-refcounts=on", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 512 * K, 1), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    int64_t length = bdrv_simdisk_length(disk);
    for (unsigned round = 0; round < 8; round++) {
        g_assert_cmpint(bdrv_co_pdiscard(rig.child, 0, 512 * K), ==, 0);
        for (unsigned i = 0; i < 3; i++) { /* published, left by all, counted down */
            g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
        }
        g_assert_cmpint(rig_write(&rig, 0, 512 * K, 2), ==, 0);
        g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    }
    g_assert_true(is_dirty(disk));
    g_assert_cmpint(bdrv_simdisk_length(disk), <=, length + 512 * K);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

static void coroutine_fn settling_writes_the_counts(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "lazy-refcounts=on", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 64 * K, 1), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    g_assert_cmpint(corruptions_now(), >, 0);
    g_assert_cmpint(qcow2_meta_settle(rig.child->bs), ==, 0);
    g_assert_cmpint(corruptions_now(), ==, 0);
    g_assert_true(is_dirty(disk));
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static bool coroutine_fn reopen(const Rig *rig, bool lazy, BdrvOpenFlags flags)
{
    BlockDriverState *bs = rig->child->bs;
    g_autoptr(BdrvOptions) options = bdrv_options_new();
    GError *error = NULL;
    void *state = NULL;
    bdrv_options_set_bool(options, "lazy-refcounts", lazy);
    bs->drv->bdrv_drain_begin(bs);
    bool ok = bs->drv->bdrv_reopen_prepare(bs, options, flags, &state, &error);
    if (ok) {
        bs->read_only = !(flags & BDRV_O_RDWR);
        bs->drv->bdrv_reopen_commit(bs, state);
    }
    bs->drv->bdrv_drain_end(bs);
    g_clear_error(&error);
    return ok;
}

static void coroutine_fn reopening_cleans(void)
{
    static const struct {
        bool lazy;
        BdrvOpenFlags flags;
        bool cleans;
    } cases[] = { { true, 0, true }, { false, BDRV_O_RDWR, true }, { true, BDRV_O_RDWR, false } };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(BdrvSimDisk) disk = rig_create(&image);
        Rig rig = rig_open("d", "lazy-refcounts=on", NULL);
        g_assert_cmpint(rig_write(&rig, 0, 64 * K, 1), ==, 0);
        g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
        g_assert_true(reopen(&rig, cases[i].lazy, cases[i].flags));
        g_assert_cmpint(is_dirty(disk), ==, !cases[i].cleans);
        g_assert_cmpint(corruptions_now() == 0, ==, cases[i].cleans);
        if (cases[i].flags) {
            g_assert_cmpint(rig_write(&rig, 64 * K, 64 * K, 2), ==, 0);
            g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
            g_assert_cmpint(is_dirty(disk), ==, cases[i].lazy);
        }
        g_assert_cmpint(rig_close(&rig), ==, 0);
        rig_assert_clean("d");
    }
}

static void coroutine_fn a_failed_reopen_leaves_it_dirty(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "lazy-refcounts=on", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 64 * K, 1), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    bdrv_simdisk_fail(disk, BDRV_SIM_WRITE, 1, 1, EIO);
    g_assert_false(reopen(&rig, true, 0));
    g_assert_true(is_dirty(disk));
    g_assert_true(reopen(&rig, true, 0));
    g_assert_false(is_dirty(disk));
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void coroutine_fn the_header_or_the_option_says_so(void)
{
    static const struct {
        bool bit;
        const char *options;
        bool lazy;
    } cases[] = { { true, "", true }, { true, "lazy-refcounts=off", false }, { false, "", false } };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(BdrvSimDisk) disk = rig_create(&image);
        uint8_t compatible[8] = { [7] = cases[i].bit ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0 };
        bdrv_simdisk_poke(disk, 80, compatible, sizeof(compatible));
        Rig rig = rig_open("d", cases[i].options, NULL);
        g_assert_cmpint(rig_write(&rig, 0, 4 * K, 1), ==, 0);
        g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
        g_assert_cmpint(is_dirty(disk), ==, cases[i].lazy);
        g_assert_cmpint(rig_close(&rig), ==, 0);
    }
}

static void coroutine_fn version_2_has_none(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = 1024 * K, .compat = "0.10" });
    GError *error = NULL;
    BdrvChild *file = test_must_open("simdisk", "disk=d", NULL);
    g_assert_null(test_open("qcow2", "lazy-refcounts=on", file, BDRV_O_RDWR, &error));
    g_assert_nonnull(strstr(error->message, "Lazy refcounts require a qcow2 image with"));
    g_error_free(error);
    test_close(file);
}

static void add(const char *path, void (*body)(void))
{
    g_test_add_data_func(path, body, (GTestDataFunc)test_run);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("/qcow2/lazy/a flush writes no refcounts", a_flush_writes_no_refcounts);
    add("/qcow2/lazy/the dirty bit stands while counts are behind", the_dirty_bit_stands_while_counts_are_behind);
    add("/qcow2/lazy/writes in place set no dirty bit", writes_in_place_set_no_dirty_bit);
    add("/qcow2/lazy/nothing is published without the dirty bit", without_the_dirty_bit_nothing_is_published);
    add("/qcow2/lazy/the dirty bit stays if counts cannot be written", the_dirty_bit_stays_if_counts_cannot_be_written);
    add("/qcow2/lazy/freed clusters are used again", freed_clusters_are_used_again);
    add("/qcow2/lazy/settling writes the counts", settling_writes_the_counts);
    add("/qcow2/lazy/reopening read-only or without them cleans", reopening_cleans);
    add("/qcow2/lazy/a failed reopen leaves the image dirty", a_failed_reopen_leaves_it_dirty);
    add("/qcow2/lazy/the header says so unless the option does", the_header_or_the_option_says_so);
    add("/qcow2/lazy/version 2 has none", version_2_has_none);
    return g_test_run();
}
