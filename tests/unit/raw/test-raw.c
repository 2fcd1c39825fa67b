/* SPDX-License-Identifier: MIT */

/* raw: the window, its refusals, what passes through. */

#include <bdrv/simdisk.h>
#include <errno.h>
#include <string.h>

#include "block/registry/registry.h"
#include "tests/lib/test-node.h"

static BdrvSimDisk *disk;

static BdrvChild *coroutine_fn open_file(void)
{
    return test_must_open("simdisk", "disk=d", NULL);
}

static void coroutine_fn window(void)
{
    GError *error = NULL;
    uint8_t buf[1024];
    BdrvChild *raw;

    raw = test_must_open("raw", "offset=100,size=1k", open_file());
    g_assert_cmpint(bdrv_co_getlength(raw), ==, 1024);
    memset(buf, 0x55, sizeof(buf));
    g_assert_cmpint(bdrv_co_pwrite(raw, 0, 1024, buf, 0), ==, 0);
    bdrv_simdisk_peek(disk, 99, buf, 2);
    g_assert_cmphex(buf[0], ==, 0);
    g_assert_cmphex(buf[1], ==, 0x55);
    bdrv_simdisk_peek(disk, 1123, buf, 2);
    g_assert_cmphex(buf[0], ==, 0x55);
    g_assert_cmphex(buf[1], ==, 0);
    /* nothing behind the window is touched */
    g_assert_cmpint(bdrv_co_pwrite(raw, 1000, 100, buf, 0), ==, -ENOSPC);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(raw, 1000, 100, 0), ==, -ENOSPC);
    g_assert_cmpint(bdrv_co_pread(raw, 1000, 100, buf, 0), ==, 0);
    g_assert_true(bdrv_buffer_is_zero(buf + 24, 76));
    g_assert_false(bdrv_co_truncate(raw, 2048, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_error(error, BDRV_ERROR, ENOTSUP);
    g_clear_error(&error);
    test_close(raw);

    raw = test_must_open("raw", "offset=512", open_file());
    g_assert_cmpint(bdrv_co_getlength(raw), ==, 9728);
    g_assert_true(bdrv_co_truncate(raw, 1000, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_cmpint(bdrv_simdisk_length(disk), ==, 1512);
    g_assert_cmpint(bdrv_co_getlength(raw), ==, 1024); /* whole sectors */
    g_assert_cmpint(bdrv_co_pread(raw, 1000, 24, buf, 0), ==, 0);
    g_assert_true(bdrv_buffer_is_zero(buf, 24));
    g_assert_cmpint(bdrv_co_pwrite(raw, 4000, 96, buf, 0), ==, 0);
    g_assert_cmpint(bdrv_co_getlength(raw), ==, 4096);
    g_assert_cmpint(bdrv_simdisk_length(disk), ==, 4608);
    test_close(raw);
}

static void coroutine_fn refusals(void)
{
    static const struct {
        const char *options, *message;
    } table[] = {
        { "size=1000", "Specified size is not multiple of 512" },
        { "offset=20000", "Offset (20000) cannot be greater than size of the containing file (10240)" },
        { "size=20480",
          "The sum of offset (0) and size (20480) has to be smaller or equal to the  actual size of "
          "the containing file (10240)" },
        { "offset=512,size=20480",
          "The sum of offset (512) and size (20480) has to be smaller or equal to the  "
          "actual size of the containing file (10240)" },
        { "offset=9223372036854775807,size=512",
          "Offset (9223372036854775807) cannot be greater than size of the "
          "containing file (10240)" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        BdrvChild *file = open_file();
        GError *error = NULL;

        g_assert_null(test_open("raw", table[i].options, file, BDRV_O_RDWR, &error));
        g_assert_error(error, BDRV_ERROR, EINVAL);
        g_assert_cmpstr(error->message, ==, table[i].message);
        g_clear_error(&error);
        test_close(file);
    }
    BdrvChild *raw = test_must_open("raw", "offset=10240", open_file());
    g_assert_cmpint(bdrv_co_getlength(raw), ==, 0);
    test_close(raw);
    raw = test_must_open("raw", "size=0", open_file());
    g_assert_cmpint(bdrv_co_getlength(raw), ==, 0);
    test_close(raw);
}

static void coroutine_fn shows_what_is_below(void)
{
    BlockDriverState *bs;
    BdrvChild *raw = test_must_open("raw", "", open_file());

    bs = raw->bs;
    g_assert_true(bdrv_has_zero_init(bs));
    g_assert_cmpint(bdrv_co_get_allocated_file_size(raw), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite(raw, 0, 1, "x", 0), ==, 0);
    g_assert_cmpint(bdrv_co_get_allocated_file_size(raw), ==, 4096);
    g_assert_cmpint(bdrv_co_pdiscard(raw, 0, 4096), ==, 0);
    g_assert_cmpint(bdrv_co_get_allocated_file_size(raw), ==, 0);
    g_assert_cmpuint(bs->limits.request_alignment, ==, 1);
    test_close(raw);
}

static void coroutine_fn alignment_of_the_child(void)
{
    BdrvLimits limits = { .request_alignment = 512, .mem_alignment = 512 };
    uint8_t buf[8] = "abcdefg", back[8];
    BdrvChild *raw;

    bdrv_simdisk_set_limits(disk, &limits);
    raw = test_must_open("raw", "offset=100", open_file());
    g_assert_cmpuint(raw->bs->limits.request_alignment, ==, 1);
    g_assert_cmpuint(raw->bs->limits.mem_alignment, ==, 512);
    g_assert_cmpint(bdrv_co_pwrite(raw, 410, 8, buf, 0), ==, 0);
    bdrv_simdisk_peek(disk, 510, back, 8);
    g_assert_cmpmem(buf, 8, back, 8);
    test_close(raw);
}

static void run_test(gconstpointer data)
{
    disk = bdrv_simdisk_new("d", 10240);
    test_run((void (*)(void))data);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_ANY) + 1, >, 0);
    g_clear_pointer(&disk, bdrv_simdisk_unref);
    g_assert_null(bdrv_simdisk_find("d")); /* all nodes were closed */
}

static void anything_is_raw(void)
{
    const BlockDriver *raw = bdrv_find_format("raw");

    g_assert_cmpint(bdrv_call_probe(raw, (const uint8_t *)"", 0, "x"), ==, 1);
    g_assert_true(bdrv_probe_format((const uint8_t *)"something", 9, "x", NULL) == raw);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/raw/anything can be raw", anything_is_raw);
    g_test_add_data_func("/raw/a window reads and writes only itself", (gconstpointer)window, run_test);
    g_test_add_data_func("/raw/windows outside of the file are refused", (gconstpointer)refusals, run_test);
    g_test_add_data_func("/raw/questions are answered by what is below", (gconstpointer)shows_what_is_below,
                         run_test);
    g_test_add_data_func("/raw/the child pads what is not aligned", (gconstpointer)alignment_of_the_child,
                         run_test);
    return g_test_run();
}
