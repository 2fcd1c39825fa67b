/* SPDX-License-Identifier: MIT */

/* The parts of the crash search that judge: each must say no when it should. */

#include <string.h>

#include "block/util/bytes.h"
#include "tests/crash/content.h"
#include "tests/crash/judge.h"
#include "tests/crash/states.h"

/* ---- model ---- */

static Model model;

static void start(void)
{
    uint8_t values[MODEL_CELLS] = { 0 };
    model_reset(&model, values);
}

static void assert_may(const char *expected)
{
    ModelSets *sets = model_sets(&model);
    g_autofree char *text = model_may_text(sets, 0);
    g_assert_cmpstr(text, ==, expected);
    model_sets_unref(sets);
}

static uint32_t begin(uint8_t value)
{
    uint32_t operation = model_begin(&model);
    model_write(&model, operation, 0, 1, value);
    return operation;
}

static void flush(void)
{
    model_flushed(&model, model_begin(&model));
}

static void old_or_new_until_flushed(void)
{
    start();
    uint32_t operation = begin(1);
    assert_may("0x00 0x01");
    model_end(&model, operation, false);
    assert_may("0x00 0x01");
    flush();
    assert_may("0x01");
    model_clear(&model);
}

static void a_flush_does_not_cover_what_runs(void)
{
    start();
    uint32_t operation = begin(1), a_flush = model_begin(&model);
    model_end(&model, operation, false);
    model_flushed(&model, a_flush);
    assert_may("0x00 0x01");
    model_clear(&model);
}

static void concurrent_writes_leave_either(void)
{
    start();
    uint32_t a = begin(1), b = begin(2);
    model_end(&model, a, false);
    model_end(&model, b, false);
    flush();
    assert_may("0x01 0x02");
    model_end(&model, begin(3), true);
    assert_may("0x03");
    model_clear(&model);
}

static void a_failed_write_is_never_certain(void)
{
    start();
    model_failed(&model, begin(1));
    flush();
    assert_may("0x00 0x01");
    model_end(&model, begin(2), false);
    flush();
    assert_may("0x02");
    model_clear(&model);
}

/* ---- oracle ---- */

static Oracle oracle;
static uint8_t *image;
static int64_t image_length;

/* Offsets into the image of the table entries of guest cluster 0. */
static uint64_t l1_at, l2_at, refblock_at;

static void coroutine_fn make_image(void *opaque)
{
    RigImage how = { .disk = "d", .size = CRASH_SIZE, .cluster_size = 512, .refcount_bits = 16 };
    g_autoptr(BdrvSimDisk) disk = rig_create(&how);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 2048, 1), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    image_length = bdrv_simdisk_length(disk);
    image = g_malloc0((gsize)image_length + 512);
    bdrv_simdisk_peek(disk, 0, image, (size_t)image_length);
    l1_at = load_be64(image + 40);
    l2_at = load_be64(image + l1_at) & UINT64_C(0xfffffffffffe00);
    refblock_at = load_be64(image + load_be64(image + 48));
}

static const char *judged(void)
{
    oracle_judge(&oracle, image, image_length);
    return oracle.fault;
}

static void with_image(void (*body)(void))
{
    test_run_seeded(1, make_image, NULL);
    g_assert_cmpstr(judged(), ==, "");
    body();
    g_free(image);
    oracle_clear(&oracle);
}

static void put64(uint64_t at, uint64_t value)
{
    store_be64(image + at, value);
}

static void assert_fault(const char *pattern)
{
    if (!g_pattern_match_simple(pattern, judged())) {
        g_error("'%s' is not '%s'", oracle.fault, pattern);
    }
}

static void a_count_too_low(void)
{
    store_be16(image + refblock_at + l2_at / 512 * 2, 0);
    assert_fault("cluster * (L2 table) is counted 0 times and referred to 1 times");
}

static void a_count_too_high_is_a_leak(void)
{
    store_be16(image + refblock_at + image_length / 512 * 2 - 2, 1);
    g_assert_cmpstr(judged(), ==, "");
    g_assert_cmpint(oracle.leaks, ==, 0);
    put64(l2_at, 0);
    g_assert_cmpstr(judged(), ==, "");
    g_assert_cmpint(oracle.leaks, ==, 1);
}

static void two_owners(void)
{
    put64(l2_at, load_be64(image + l2_at + 8));
    assert_fault("cluster * is data (place 0) and data (place 1)");
    put64(l2_at, l1_at | UINT64_C(1) << 63);
    assert_fault("cluster * is L1 table * and data *");
}

static void copied_without_its_own_cluster(void)
{
    store_be16(image + refblock_at + (load_be64(image + l2_at) & 0xffffffff) / 512 * 2, 2);
    g_assert_cmpstr(judged(), ==, "");
    g_assert_cmpstr(oracle.untidy, !=, "");
}

static void copied_and_shared(void)
{
    /* A snapshot of the same tables, whose L1 table and directory are appended, with all counts right but COPIED set. */
    uint64_t end = (uint64_t)image_length;
    image = g_realloc(image, (gsize)image_length + 1536);
    memset(image + end, 0, 1536);
    memcpy(image + end, image + l1_at, 512);
    put64(end + 512, end);
    store_be32(image + end + 512 + 8, (uint32_t)load_be32(image + 36));
    store_be32(image + 60, 1);
    put64(64, end + 512);
    image_length += 1024;
    for (uint64_t cluster = 0; cluster < (uint64_t)image_length / 512; cluster++) {
        store_be16(image + refblock_at + cluster * 2, 2);
    }
    assert_fault("L1 entry 0 is COPIED, its cluster * is referred to 2 times");
}

/* The image is made one whose four clusters are in a data file. */
static void a_data_file(void)
{
    g_autofree uint8_t *data = g_malloc0(CRASH_SIZE);
    const uint8_t *sector;
    put64(72, 4);
    for (uint64_t i = 0; i < 4; i++) {
        put64(l2_at + i * 8, UINT64_C(1) << 63 | i * 512);
    }
    memset(data + 512, 5, 512);
    assert_fault("the data file has 0 bytes, the disk 65536");
    oracle.data = data;
    oracle.data_length = CRASH_SIZE;
    g_assert_cmpstr(judged(), ==, "");
    g_assert_cmpint(oracle.leaks, ==, 4);
    g_assert_cmpint(oracle_sector(&oracle, 0, &sector), ==, ORACLE_DATA);
    g_assert_cmpint(sector[0], ==, 0);
    g_assert_cmpint(oracle_sector(&oracle, 1, &sector), ==, ORACLE_DATA);
    g_assert_cmpint(sector[0], ==, 5);
    put64(l2_at + 8, UINT64_C(1) << 63 | 1024);
    assert_fault("guest cluster 1 is not in its place in the data file: *");
    put64(l2_at + 8, 512);
    assert_fault("guest cluster 1 is not in its place in the data file: *");
    put64(l2_at + 8, UINT64_C(1) << 62);
    assert_fault("guest cluster 1 is compressed, and there is a data file");
    put64(l2_at, 0);
    put64(l2_at + 8, 1);
    g_assert_cmpstr(judged(), ==, "");
    g_assert_cmpint(oracle_sector(&oracle, 0, &sector), ==, ORACLE_BACKING);
    g_assert_cmpint(oracle_sector(&oracle, 1, &sector), ==, ORACLE_ZERO);
}

static void past_the_end(void)
{
    put64(l2_at, (uint64_t)image_length | UINT64_C(1) << 63);
    assert_fault("data at * is past the end of the file*");
}

static void (*const *body_of_test)(void);

static void run_with_image(gconstpointer data)
{
    body_of_test = data;
    with_image(*body_of_test);
}

/* ---- content ---- */

#define CHECK_STATES 400

typedef struct Compare {
    Content content;
    GHashTable *by_hash; /* guint64 -> GBytes */
    unsigned states;
} Compare;

static bool same_as_disk(void *opaque, const BdrvSimChoice *choices)
{
    Compare *compare = opaque;
    int64_t length;
    g_autoptr(BdrvSimDisk) disk = bdrv_simcut_disk(compare->content.cut, choices, "left");
    uint64_t hash = content_hash(&compare->content, choices);
    const uint8_t *bytes = content_bytes(&compare->content, choices, &length);
    g_autofree uint8_t *peeked = g_malloc0((gsize)length + 1);
    g_assert_cmpint(bdrv_simdisk_length(disk), ==, length);
    bdrv_simdisk_peek(disk, 0, peeked, (size_t)length);
    g_assert_cmpmem(bytes, length, peeked, length);
    GBytes *now = g_bytes_new(bytes, (gsize)length), *before = g_hash_table_lookup(compare->by_hash, &hash);
    g_assert_true(!before || g_bytes_equal(before, now));
    if (!before) {
        g_hash_table_insert(compare->by_hash, g_memdup2(&hash, sizeof(hash)), now);
    } else {
        g_bytes_unref(now);
    }
    return ++compare->states % CHECK_STATES != 0;
}

static void assert_hashes_differ(const Compare *compare)
{
    g_autoptr(GHashTable) contents = g_hash_table_new(g_bytes_hash, g_bytes_equal);
    GHashTableIter iter;
    gpointer bytes;
    g_hash_table_iter_init(&iter, compare->by_hash);
    while (g_hash_table_iter_next(&iter, NULL, &bytes)) {
        g_assert_true(g_hash_table_add(contents, bytes)); /* no content has two hashes */
    }
}

static void coroutine_fn random_request(BdrvChild *child, uint64_t *random, int64_t unit)
{
    uint8_t buf[4096];
    int64_t length = child->bs->length;
    int64_t offset = test_random_below(random, length / unit) * unit, bytes = (1 + test_random_below(random, 4)) * unit;
    memset(buf, (int)(1 + test_random_below(random, 255)), sizeof(buf));
    switch (test_random_below(random, 5)) {
    case 0:
        g_assert_cmpint(bdrv_co_pwrite_zeroes(child, offset, MIN(bytes, length - offset), 0), ==, 0);
        break;
    case 1:
        g_assert_cmpint(bdrv_co_pdiscard(child, offset, MIN(bytes, length - offset)), ==, 0);
        break;
    case 2:
        g_assert_true(bdrv_co_truncate(child, offset + bytes, true, BDRV_PREALLOC_OFF, 0, NULL));
        break;
    default:
        g_assert_cmpint(bdrv_co_pwrite(child, offset, bytes, buf, 0), ==, 0);
        break;
    }
}

/* @unit 512: what is hashed sector by sector; others: what is not. */
static void coroutine_fn compare_with_disks(int64_t unit)
{
    uint64_t random = test_seed();
    Compare compare = { .by_hash = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, (GDestroyNotify)g_bytes_unref) };
    content_init(&compare.content);
    for (unsigned round = 0; round < 12; round++) {
        g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_new("d", 4 * unit);
        BdrvChild *child = test_must_open("simdisk", "disk=d", NULL);
        for (unsigned i = 0; i < 8; i++) {
            random_request(child, &random, unit);
            if (test_random_below(&random, 8) == 0) {
                g_assert_cmpint(bdrv_co_flush(child), ==, 0);
            }
            g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
            content_load(&compare.content, cut);
            states_each(cut, 5, same_as_disk, &compare);
            content_forget(&compare.content);
        }
        test_close(child);
    }
    g_assert_cmpuint(compare.states, >, 1000);
    assert_hashes_differ(&compare);
    g_hash_table_unref(compare.by_hash);
    content_clear(&compare.content);
}

static void coroutine_fn whole_sectors(void)
{
    compare_with_disks(512);
}

static void coroutine_fn odd_sizes(void)
{
    compare_with_disks(300);
}

static void run_in_coroutine(gconstpointer data)
{
    test_run(*(void (*const *)(void))data);
}

/* ---- program ---- */

typedef struct Case {
    const char *path;
    void (*body)(void);
} Case;

static const Case with_image_cases[] = {
    { "/crash/oracle/a refcount below the references is a fault", a_count_too_low },
    { "/crash/oracle/a refcount above the references is a leak", a_count_too_high_is_a_leak },
    { "/crash/oracle/two owners of a cluster are a fault", two_owners },
    { "/crash/oracle/COPIED with a count of two is untidy", copied_without_its_own_cluster },
    { "/crash/oracle/COPIED with two references is a fault", copied_and_shared },
    { "/crash/oracle/data past the end of the file is a fault", past_the_end },
    { "/crash/oracle/clusters in a data file are at their guest offsets and not counted", a_data_file },
};

static const Case coroutine_cases[] = {
    { "/crash/content/whole sectors are hashed and laid out as on the disk", whole_sectors },
    { "/crash/content/odd sizes are hashed and laid out as on the disk", odd_sizes },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/crash/model/a sector is old or new until it is flushed", old_or_new_until_flushed);
    g_test_add_func("/crash/model/a flush does not cover what runs when it begins", a_flush_does_not_cover_what_runs);
    g_test_add_func("/crash/model/concurrent writes leave either", concurrent_writes_leave_either);
    g_test_add_func("/crash/model/a failed write is never certain", a_failed_write_is_never_certain);
    for (unsigned i = 0; i < G_N_ELEMENTS(with_image_cases); i++) {
        g_test_add_data_func(with_image_cases[i].path, &with_image_cases[i].body, run_with_image);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(coroutine_cases); i++) {
        g_test_add_data_func(coroutine_cases[i].path, &coroutine_cases[i].body, run_in_coroutine);
    }
    return g_test_run();
}
