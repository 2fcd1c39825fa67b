/* SPDX-License-Identifier: MIT */
/* The walker of VDI images: it must say no when it should. */

#include <string.h>

#include "block/registry/registry.h"
#include "tests/crash/vdi.h"
#include "tests/unit/qcow2/rig.h"

#define BLOCK 1024
#define SIZE (16 * BLOCK)

enum { MAP_OFFSET = 340, DATA_OFFSET = 344, DISK_SIZE = 368, BLOCK_SIZE = 376, BLOCKS = 384, COUNTED = 388, MAP = 512,
       DATA = 1024 };

static Oracle oracle;
static uint8_t *image;
static int64_t image_length;
static bool fixed;

static void coroutine_fn write_some(void)
{
    Rig rig = { .child = test_must_open("vdi", "", test_must_open("simdisk", "disk=d", NULL)) };
    g_assert_cmpint(rig_write(&rig, 3 * BLOCK, BLOCK, 3), ==, 0);
    g_assert_cmpint(rig_write(&rig, 5 * BLOCK, BLOCK, 5), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void coroutine_fn make_image(void *opaque)
{
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_new("d", 0);
    g_autoptr(BdrvOptions) options = bdrv_options_new();
    BdrvChild *file = test_must_open("simdisk", "disk=d", NULL);
    bdrv_options_set_int(options, "size", SIZE);
    bdrv_options_set_int(options, "block_size", BLOCK);
    bdrv_options_set_bool(options, "static", fixed);
    g_assert_true(bdrv_find_format("vdi")->bdrv_create("d", file, options, NULL));
    test_close(file);
    write_some();
    image_length = bdrv_simdisk_length(disk);
    image = g_malloc0((gsize)image_length + 512);
    bdrv_simdisk_peek(disk, 0, image, (size_t)image_length);
}

static const char *judged(void)
{
    vdi_judge(&oracle, image, image_length);
    return oracle.fault;
}

static void put(unsigned at, uint32_t value)
{
    value = GUINT32_TO_LE(value);
    memcpy(image + at, &value, sizeof(value));
}

static void assert_fault(unsigned at, uint32_t value, const char *pattern)
{
    g_autofree uint8_t *sound = g_memdup2(image, (gsize)image_length + 512);
    put(at, value);
    if (!g_pattern_match_simple(pattern, judged())) {
        g_error("'%s' is not '%s'", oracle.fault, pattern);
    }
    memcpy(image, sound, (gsize)image_length + 512);
    g_assert_cmpstr(judged(), ==, "");
}

static uint8_t first_byte(int64_t sector)
{
    const uint8_t *data;
    return vdi_sector(&oracle, sector, &data) == ORACLE_DATA ? data[0] : 0;
}

static void blocks_are_where_the_map_says(void)
{
    g_assert_true(oracle.is_image);
    g_assert_cmpuint(oracle.size, ==, SIZE);
    g_assert_cmpint(oracle.leaks, ==, 0);
    for (int64_t sector = 0; sector < SIZE / 512; sector++) {
        int64_t block = sector * 512 / BLOCK;
        g_assert_cmpint(first_byte(sector), ==, block == 3 || block == 5 ? block : 0);
    }
}

static void a_header_that_contradicts_itself_is_a_fault(void)
{
    assert_fault(MAP_OFFSET, 100, "a map of 16 blocks at 0x64*");
    assert_fault(DATA_OFFSET, MAP, "a map of 16 blocks at 0x200, data at 0x200");
    assert_fault(DISK_SIZE, SIZE + 512, "16 blocks do not reach to the size 16896");
    assert_fault(BLOCK_SIZE, 1000, "blocks have 1000 bytes");
    assert_fault(BLOCKS, 15, "15 blocks do not reach*");
    put(64, 0);
    judged();
    g_assert_false(oracle.is_image);
}

static void places_that_are_not_there_are_a_fault(void)
{
    assert_fault(COUNTED, 1, "block 5 has place 1, the header counts 1");
    assert_fault(MAP + 5 * 4, 0, "block 5 has place 0, which another one has");
    put(COUNTED, 3);
    assert_fault(MAP + 5 * 4, 2, "block 5 has place 2, which lies behind the file*");
    g_assert_cmpint(oracle.leaks, ==, 1);
}

static void a_fixed_image_has_all_places(void)
{
    assert_fault(MAP + 7 * 4, UINT32_MAX, "block 7 of a fixed image has no place");
}

typedef struct Case {
    const char *path;
    bool fixed;
    void (*body)(void);
} Case;

static const Case cases[] = {
    { "/crash/vdi/blocks are where the map says", false, blocks_are_where_the_map_says },
    { "/crash/vdi/blocks of a fixed image, too", true, blocks_are_where_the_map_says },
    { "/crash/vdi/a header that contradicts itself is a fault", false, a_header_that_contradicts_itself_is_a_fault },
    { "/crash/vdi/places that are not there are a fault", false, places_that_are_not_there_are_a_fault },
    { "/crash/vdi/a fixed image has all places", true, a_fixed_image_has_all_places },
};

static void run_case(gconstpointer data)
{
    const Case *c = data;
    fixed = c->fixed;
    test_run_seeded(1, make_image, NULL);
    g_assert_cmpstr(judged(), ==, "");
    c->body();
    g_free(image);
    oracle_clear(&oracle);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_add_data_func(cases[i].path, &cases[i], run_case);
    }
    return g_test_run();
}
