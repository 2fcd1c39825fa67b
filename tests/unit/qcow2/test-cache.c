/* SPDX-License-Identifier: MIT */
/* The caches of table slices: what memory they take, how they age, and other sizes by reopening. */

#include <bdrv/bdrv.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "drivers/qcow2/meta/meta_int.h"
#include "tests/unit/qcow2/rig.h"
#include "tests/unit/qcow2/stand.h"

#define K 1024
#define M (1024 * K)
#define SECOND INT64_C(1000000000)
/* What one slice of 4 KiB maps with clusters of 64 KiB. */
#define SLICE_MAPS (512 * 64 * K)

static unsigned slices_used(const Qcow2Cache *cache)
{
    unsigned n = 0;
    for (unsigned i = 0; i < cache->count; i++) {
        n += atomic_load(&cache->slices[i].tag) != 0;
    }
    return n;
}

static size_t bytes_resident(const Qcow2Cache *cache)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = ((size_t)cache->count * cache->slice_bytes + page - 1) / page;
    g_autofree unsigned char *resident = g_malloc(pages);
    size_t n = 0;
    g_assert_cmpint(mincore(cache->memory, pages * page, resident), ==, 0);
    for (size_t i = 0; i < pages; i++) {
        n += resident[i] & 1;
    }
    return n * page;
}

static const RigImage image = { .disk = "d", .size = INT64_C(512) * M, .cluster_size = 64 * K };

/* Something in each of the first @slices L2 slices. */
static BdrvSimDisk *coroutine_fn make_image(unsigned slices)
{
    BdrvSimDisk *disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    for (unsigned i = 0; i < slices; i++) {
        g_assert_cmpint(rig_write(&rig, (int64_t)i * SLICE_MAPS, 4 * K, (uint8_t)(i + 1)), ==, 0);
    }
    g_assert_cmpint(rig_close(&rig), ==, 0);
    return disk;
}

static void coroutine_fn sleep_s(int64_t seconds)
{
    co_sleep_until(aio_clock_ns(aio_context_current()) + seconds * SECOND);
}

static void coroutine_fn only_slices_used_take_memory(void)
{
    RigImage large = { .disk = "d", .size = INT64_C(2) << 40, .cluster_size = 64 * K };
    g_autoptr(BdrvSimDisk) disk = rig_create(&large);
    Rig rig = rig_open("d", "", NULL);
    const Qcow2Cache *l2 = &qcow2_meta(rig.child->bs)->l2;
    g_assert_cmpuint((uint64_t)l2->count * l2->slice_bytes, ==, 32 * M);
    g_assert_cmpuint(bytes_resident(l2), ==, 0);
    for (unsigned i = 0; i < 10; i++) {
        g_assert_cmpint(rig_write(&rig, (int64_t)i * SLICE_MAPS, 4 * K, 1), ==, 0);
    }
    g_assert_cmpuint(slices_used(l2), ==, 10);
    g_assert_cmpuint(bytes_resident(l2), ==, 10 * 4 * K);
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void coroutine_fn slices_that_nobody_uses_are_dropped(void)
{
    g_autoptr(BdrvSimDisk) disk = make_image(8);
    Rig rig = rig_open("d", "cache-clean-interval=10", NULL);
    const Qcow2Cache *l2 = &qcow2_meta(rig.child->bs)->l2;
    for (unsigned i = 0; i < 8; i++) {
        rig_assert_filled(&rig, (int64_t)i * SLICE_MAPS, 4 * K, (uint8_t)(i + 1));
    }
    g_assert_cmpuint(slices_used(l2), ==, 8);
    sleep_s(11); /* used since the interval began */
    g_assert_cmpuint(slices_used(l2), ==, 8);
    rig_assert_filled(&rig, 3 * SLICE_MAPS, 4 * K, 4);
    sleep_s(10);
    g_assert_cmpuint(slices_used(l2), ==, 1);
    g_assert_cmpuint(bytes_resident(l2), ==, 4 * K);
    rig_assert_filled(&rig, 3 * SLICE_MAPS, 4 * K, 4); /* without reading the table again */
    sleep_s(30);
    g_assert_cmpuint(slices_used(l2), ==, 0);
    g_assert_cmpuint(bytes_resident(l2), ==, 0);
    for (unsigned i = 0; i < 8; i++) {
        rig_assert_filled(&rig, (int64_t)i * SLICE_MAPS, 4 * K, (uint8_t)(i + 1));
    }
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void coroutine_fn dirty_slices_stay(void)
{
    g_autoptr(BdrvSimDisk) disk = make_image(2);
    Rig rig = rig_open("d", "cache-clean-interval=10", NULL);
    const Qcow2Cache *l2 = &qcow2_meta(rig.child->bs)->l2, *rc = &qcow2_meta(rig.child->bs)->rc;
    g_assert_cmpint(rig_write(&rig, 64 * K, 4 * K, 9), ==, 0);
    sleep_s(60);
    g_assert_cmpuint(slices_used(l2), ==, 1);
    g_assert_cmpuint(slices_used(rc), ==, 1);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    sleep_s(60);
    g_assert_cmpuint(slices_used(l2), ==, 0);
    g_assert_cmpuint(slices_used(rc), ==, 0);
    g_assert_cmpuint(bytes_resident(rc), ==, 0);
    rig_assert_filled(&rig, 64 * K, 4 * K, 9);
    g_assert_cmpint(rig_write(&rig, 128 * K, 4 * K, 8), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

static void coroutine_fn slices_smaller_than_pages_are_dropped(void)
{
    g_autoptr(BdrvSimDisk) disk = make_image(4);
    Rig rig = rig_open("d", "cache-clean-interval=10,l2-cache-entry-size=512", NULL);
    const Qcow2Cache *l2 = &qcow2_meta(rig.child->bs)->l2;
    for (unsigned i = 0; i < 4; i++) {
        rig_assert_filled(&rig, (int64_t)i * SLICE_MAPS, 4 * K, (uint8_t)(i + 1));
    }
    g_assert_cmpuint(bytes_resident(l2), ==, 4 * K);
    sleep_s(11);
    rig_assert_filled(&rig, 0, 4 * K, 1);
    sleep_s(10);
    g_assert_cmpuint(slices_used(l2), ==, 1);
    g_assert_cmpuint(bytes_resident(l2), ==, 4 * K); /* its page */
    sleep_s(30);
    g_assert_cmpuint(bytes_resident(l2), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void coroutine_fn without_interval_all_stays(void)
{
    g_autoptr(BdrvSimDisk) disk = make_image(4);
    Rig rig = rig_open("d", "cache-clean-interval=0", NULL);
    rig_assert_filled(&rig, 0, 4 * K, 1);
    sleep_s(100000);
    g_assert_cmpuint(slices_used(&qcow2_meta(rig.child->bs)->l2), ==, 1);
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

/* Readers go on while the caches age under them. */
typedef struct Reader {
    const Rig *rig;
    unsigned seed, *running;
} Reader;

static void coroutine_fn read_on(void *opaque)
{
    Reader *reader = opaque;
    uint64_t state = reader->seed;
    for (unsigned i = 0; i < 200; i++) {
        unsigned n = (unsigned)test_random_below(&state, 8);
        rig_assert_filled(reader->rig, (int64_t)n * SLICE_MAPS, 4 * K, (uint8_t)(n + 1));
        co_sleep_until(aio_clock_ns(aio_context_current()) + test_random_below(&state, SECOND));
    }
    --*reader->running;
}

static void coroutine_fn readers_go_on_while_caches_age(void)
{
    g_autoptr(BdrvSimDisk) disk = make_image(8);
    Rig rig = rig_open("d", "cache-clean-interval=1,l2-cache-size=32k", NULL);
    unsigned running = 4;
    Reader readers[4];
    bdrv_simdisk_set_delay(disk, 0, SECOND);
    for (unsigned i = 0; i < 4; i++) {
        readers[i] = (Reader){ &rig, i + 1, &running };
        test_start(read_on, &readers[i]);
    }
    while (running) {
        sleep_s(1);
    }
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

/* ---- reopening ---- */

static bool reopen(BlockBackend *blk, const char *options, GError **errp)
{
    return blk_reopen(blk, bdrv_options_parse(options, NULL, NULL), BDRV_O_RDWR, errp);
}

static void assert_filled(BlockBackend *blk, int64_t offset, uint8_t value)
{
    uint8_t buf[4096], expected[4096];
    memset(expected, value, sizeof(expected));
    g_assert_cmpint(blk_pread(blk, offset, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpmem(buf, sizeof(buf), expected, sizeof(expected));
}

static void write_filled(BlockBackend *blk, int64_t offset, uint8_t value)
{
    uint8_t buf[4096];
    memset(buf, value, sizeof(buf));
    g_assert_cmpint(blk_pwrite(blk, offset, sizeof(buf), buf, 0), ==, 0);
}

static void assert_image_clean(const char *name)
{
    BlockBackend *blk = stand_must_open(name, NULL, BDRV_O_CHECK);
    BdrvCheckResult result = { 0 };
    GError *error = NULL;
    blk_check(blk, &result, BDRV_FIX_NONE, &error);
    g_assert_no_error(error);
    g_assert_cmpint(result.corruptions + result.leaks + result.check_errors, ==, 0);
    stand_close(blk);
}

static void test_reopen(void)
{
    static const char *const sizes[] = {
        "l2-cache-size=8k,l2-cache-entry-size=4k", "l2-cache-size=1M,l2-cache-entry-size=512",
        "l2-cache-size=128k,l2-cache-entry-size=64k", "refcount-cache-size=8k,l2-cache-entry-size=4k",
        "cache-clean-interval=1", "cache-clean-interval=0,lazy-refcounts=on",
        "refcount-cache-size=1M,lazy-refcounts=off",
    };
    stand_create("o", "size=1G");
    BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_RDWR);
    for (unsigned i = 0; i < 3 * G_N_ELEMENTS(sizes); i++) {
        GError *error = NULL;
        write_filled(blk, (int64_t)i * 10 * M, (uint8_t)(i + 1)); /* dirty slices */
        g_assert_cmpint(blk_pwrite_zeroes(blk, (int64_t)(i / 2) * 10 * M, 64 * K, BDRV_REQ_MAY_UNMAP), ==, 0);
        reopen(blk, sizes[i % G_N_ELEMENTS(sizes)], &error);
        g_assert_no_error(error);
        g_test_message("step %u", i);
        assert_filled(blk, (int64_t)i * 10 * M, i == 0 ? 0 : (uint8_t)(i + 1));
        assert_filled(blk, (int64_t)(i / 2) * 10 * M, 0);
    }
    stand_close(blk);
    assert_image_clean("o");
    stand_forget("o");
}

static void test_reopen_refused(void)
{
    static const struct {
        const char *options, *text;
    } cases[] = {
        { "cache-clean-interval=4294967296", "*cache-clean-interval 4294967296 is too big*" },
        { "l2-cache-entry-size=1000", "*l2-cache-entry-size 1000*" },
        { "cache-size=64k,l2-cache-size=128k", "*l2-cache-size 131072 is larger than cache-size 65536*" },
    };
    stand_create("o", "size=1G");
    BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_RDWR);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_false(reopen(blk, cases[i].options, &error));
        g_assert_true(stand_matches(cases[i].text, error->message));
        write_filled(blk, i * M, 7);
    }
    stand_close(blk);
    assert_image_clean("o");
    stand_forget("o");
}

static void test_reopen_failing(void)
{
    g_autoptr(GError) error = NULL;
    stand_create("o", "size=1G");
    BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_RDWR);
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("o");
    write_filled(blk, 0, 7);
    bdrv_simdisk_fail(disk, BDRV_SIM_WRITE, 1, -1, EIO);
    g_assert_false(reopen(blk, "l2-cache-size=8k", &error));
    g_assert_true(stand_matches("*caches get other sizes*", error->message));
    bdrv_simdisk_fail_none(disk);
    assert_filled(blk, 0, 7);
    stand_close(blk);
    assert_image_clean("o");
    stand_forget("o");
}

static void add(const char *path, void (*body)(void))
{
    g_test_add_data_func(path, body, (GTestDataFunc)test_run);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("/qcow2/cache/only slices used take memory", only_slices_used_take_memory);
    add("/qcow2/cache/slices that nobody uses are dropped", slices_that_nobody_uses_are_dropped);
    add("/qcow2/cache/dirty slices stay", dirty_slices_stay);
    add("/qcow2/cache/slices smaller than pages are dropped", slices_smaller_than_pages_are_dropped);
    add("/qcow2/cache/without interval all stays", without_interval_all_stays);
    add("/qcow2/cache/readers go on while caches age", readers_go_on_while_caches_age);
    g_test_add_func("/qcow2/cache/reopening gives other sizes", test_reopen);
    g_test_add_func("/qcow2/cache/sizes that cannot be are refused and change nothing", test_reopen_refused);
    g_test_add_func("/qcow2/cache/sizes stay if metadata cannot be written", test_reopen_failing);
    return g_test_run();
}
