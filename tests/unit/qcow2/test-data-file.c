/* SPDX-License-Identifier: MIT */
/* External data files: what goes where, who may name them, and that a raw one is the guest's disk byte for byte. */

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

#include <bdrv/driver.h>

#include "tests/unit/qcow2/stand.h"

#define K INT64_C(1024)
#define CLUSTER (64 * K)
#define COPIED (UINT64_C(1) << 63)

/* The only L2 table of the images here is the last cluster of the file. */
static int64_t l2_entry(const char *name, unsigned index)
{
    return (stand_length(name) - 1) / CLUSTER * CLUSTER + index * 8;
}

static void make(const char *options)
{
    g_autofree char *all = g_strdup_printf("size=640k,data_file=d,%s", options);
    bdrv_simdisk_forget("d");
    stand_create("o", all);
}

static void forget(void)
{
    stand_forget("o");
    bdrv_simdisk_forget("d");
}

static void fill(BlockBackend *blk, int64_t offset, int64_t bytes, int byte)
{
    g_autofree uint8_t *buf = g_malloc((gsize)bytes);
    memset(buf, byte, (size_t)bytes);
    g_assert_cmpint(blk_pwrite(blk, offset, bytes, buf, 0), ==, 0);
}

static void put(int64_t offset, int64_t bytes, int byte)
{
    BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_RDWR);
    fill(blk, offset, bytes, byte);
    stand_close(blk);
}

static uint8_t *read_guest(int64_t *length)
{
    BlockBackend *blk = stand_must_open("o", NULL, 0);
    *length = blk_length(blk);
    uint8_t *buf = g_malloc((gsize)*length);
    g_assert_cmpint(blk_pread(blk, 0, *length, buf, 0), ==, 0);
    stand_close(blk);
    return buf;
}

static void assert_views_equal(void)
{
    int64_t length;
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("d");
    g_autofree uint8_t *guest = read_guest(&length), *data = g_malloc((gsize)length);
    g_assert_cmpint(bdrv_simdisk_length(disk), ==, length);
    bdrv_simdisk_peek(disk, 0, data, (size_t)length);
    g_assert_cmpmem(guest, (size_t)length, data, (size_t)length);
}

static BdrvCheckResult check(BdrvCheckFix fix)
{
    BdrvCheckResult result = { 0 };
    GError *error = NULL;
    BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_CHECK | (fix ? BDRV_O_RDWR : 0));
    blk_check(blk, &result, fix, &error);
    g_assert_no_error(error);
    stand_close(blk);
    return result;
}

static void assert_clean(void)
{
    BdrvCheckResult result = check(BDRV_FIX_NONE);
    g_assert_cmpint(result.corruptions + result.leaks + result.check_errors, ==, 0);
}

static void expect_refused(const char *options, BdrvOpenFlags flags, int code, const char *pattern)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(stand_open("o", options, flags, &error));
    g_assert_true(stand_matches(pattern, error->message));
    g_assert_cmpint(bdrv_error_code(error), ==, code);
}

static void data_lies_at_its_guest_offset(void)
{
    make("data_file_raw=off");
    put(3 * CLUSTER + 5, 100, 7);
    put(0, 10, 9);
    g_assert_cmpuint(stand_get("d", 3 * CLUSTER + 4, 4), ==, 0x00070707);
    g_assert_cmpuint(stand_get("d", 0, 1), ==, 9);
    g_assert_cmpint(stand_length("d"), ==, 640 * K);
    g_assert_cmpuint(stand_get("o", l2_entry("o", 0), 8), ==, COPIED); /* offset 0 */
    g_assert_cmpuint(stand_get("o", l2_entry("o", 3), 8), ==, COPIED | 3 * CLUSTER);
    assert_clean();
    BlockBackend *blk = stand_must_open("o", NULL, 0);
    BlockExtent extent;
    g_assert_cmpint(blk_block_status(blk, 0, 640 * K, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, EXTENT_DATA);
    g_assert_cmpint(extent.host_offset, ==, 0);
    g_assert_cmpint(extent.bytes, ==, CLUSTER);
    g_assert_cmpstr(extent.file->filename, ==, "simdisk:d");
    stand_close(blk);
    forget();
}

/* As QEMU has it: there COPIED and the zero flag are no place. */
static void zeroes_at_offset_0_have_no_place(void)
{
    make("data_file_raw=off");
    BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_RDWR);
    BlockExtent extent;
    fill(blk, 0, 2 * CLUSTER, 9);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 2 * CLUSTER, 0), ==, 0);
    g_assert_cmpint(blk_block_status(blk, 0, 2 * CLUSTER, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, EXTENT_ZERO);
    g_assert_cmpint(extent.host_offset, ==, -1);
    g_assert_cmpint(blk_block_status(blk, CLUSTER, CLUSTER, &extent), ==, 0);
    g_assert_cmpint(extent.host_offset, ==, CLUSTER);
    fill(blk, 10, 10, 8);
    stand_close(blk);
    g_assert_cmpuint(stand_get("d", 8, 4), ==, 0x00000808);
    assert_clean();
    forget();
}

static void an_option_names_another_data_file(void)
{
    make("data_file_raw=off");
    put(0, 10, 9);
    stand_copy("d", "e", -1);
    stand_put("e", 0, 1, 3);
    BlockBackend *blk = stand_must_open("o", "data-file.driver=simdisk,data-file.disk=e", 0);
    uint8_t byte;
    g_assert_cmpint(blk_pread(blk, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(byte, ==, 3);
    stand_close(blk);
    stand_forget("e");
    forget();
}

static void an_image_without_one_takes_none(void)
{
    stand_create("o", "size=1M");
    stand_copy("o", "e", -1);
    expect_refused("data-file.driver=simdisk,data-file.disk=e", 0, EINVAL, "*'data-file' can only be set for images with*");
    stand_forget("e");
    stand_forget("o");
}

static bool refuse_all(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                       GError **errp)
{
    g_assert_cmpstr(filename, ==, "simdisk:d");
    g_assert_cmpstr(format, ==, "raw");
    g_set_error(errp, BDRV_ERROR, EACCES, "not here");
    return false;
}

static void the_gate_is_asked(void)
{
    make("data_file_raw=off");
    bdrv_graph_set_opener_gate(stand_graph(), refuse_all, NULL);
    expect_refused(NULL, 0, EACCES, "*could not open its data file: not here*");
    stand_close(stand_must_open("o", NULL, BDRV_O_NO_IO)); /* its header names a file, no more */
    stand_close(stand_must_open("o", "data-file.driver=simdisk,data-file.disk=d", 0)); /* the user does */
    bdrv_graph_set_opener_gate(stand_graph(), bdrv_gate_any, NULL);
    forget();
}

static void internal_snapshots_are_refused(void)
{
    make("data_file_raw=off");
    stand_put("o", 60, 4, 1); /* nb_snapshots */
    stand_put("o", 64, 8, 5 * CLUSTER);
    expect_refused(NULL, 0, EINVAL, "*1 internal snapshots (nb_snapshots) and an external data file*");
    forget();
}

static void compressed_writes_are_refused(void)
{
    make("data_file_raw=off");
    BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_RDWR);
    g_autofree uint8_t *buf = g_malloc0(CLUSTER);
    g_assert_cmpint(blk_pwrite(blk, 0, CLUSTER, buf, BDRV_REQ_COMPRESSED), ==, -ENOTSUP);
    stand_close(blk);
    forget();
}

/* Entry 1 of the L2 table is made @entry. */
static void damaged(uint64_t entry)
{
    make("data_file_raw=off");
    put(0, 3 * CLUSTER, 9);
    stand_put("o", l2_entry("o", 1), 8, entry);
    BlockBackend *blk = stand_must_open("o", NULL, 0);
    uint8_t byte;
    g_assert_cmpint(blk_pread(blk, CLUSTER, 1, &byte, 0), ==, -EIO);
    g_assert_cmpint(blk_pread(blk, 0, 1, &byte, 0), ==, 0);
    stand_close(blk);
    BdrvCheckResult result = check(BDRV_FIX_NONE);
    g_assert_cmpint(result.corruptions, >, 0);
    result = check(BDRV_FIX_ERRORS | BDRV_FIX_LEAKS);
    g_assert_cmpint(result.corruptions, ==, 0);
    g_assert_cmpint(result.corruptions_fixed, >, 0);
    assert_clean();
}

static void a_cluster_elsewhere_goes_back_to_its_place(void)
{
    damaged(COPIED | 2 * CLUSTER);
    int64_t length;
    g_autofree uint8_t *guest = read_guest(&length);
    for (int64_t i = 0; i < 3 * CLUSTER; i++) {
        g_assert_cmpint(guest[i], ==, 9); /* what was written there is still there */
    }
    forget();
}

static void a_compressed_cluster_is_lost(void)
{
    damaged(UINT64_C(1) << 62 | CLUSTER);
    int64_t length;
    g_autofree uint8_t *guest = read_guest(&length);
    g_assert_cmpint(guest[0], ==, 9);
    g_assert_cmpint(guest[CLUSTER], ==, 0);
    g_assert_cmpint(guest[2 * CLUSTER], ==, 9);
    forget();
}

static void a_missing_copied_flag_is_put_right(void)
{
    make("data_file_raw=off");
    put(0, 3 * CLUSTER, 9);
    stand_put("o", l2_entry("o", 1), 8, CLUSTER);
    BdrvCheckResult result = check(BDRV_FIX_NONE);
    g_assert_cmpint(result.corruptions, ==, 1);
    put(CLUSTER + 5, 10, 8); /* nobody else can own it */
    g_assert_cmpuint(stand_get("d", CLUSTER + 4, 2), ==, 0x0908);
    result = check(BDRV_FIX_ERRORS | BDRV_FIX_LEAKS);
    g_assert_cmpint(result.corruptions, ==, 0);
    g_assert_cmpuint(stand_get("o", l2_entry("o", 1), 8), ==, COPIED | CLUSTER);
    forget();
}

/* Random requests; afterwards both views are the same, and of the right length. */
static void a_raw_data_file_is_the_disk(void)
{
    static const char *const options[] = { "data_file_raw=on", "data_file_raw=on,extended_l2=on",
                                           "data_file_raw=on,cluster_size=4k", "data_file_raw=on,refcount_bits=1" };
    for (unsigned n = 0; n < G_N_ELEMENTS(options); n++) {
        make(options[n]);
        for (unsigned round = 0; round < 20; round++) {
            BlockBackend *blk = stand_must_open("o", "discard=unmap", BDRV_O_RDWR | BDRV_O_RESIZE);
            for (unsigned i = 0; i < 10; i++) {
                int64_t length = blk_length(blk), offset = g_test_rand_int_range(0, (int)length - 1);
                int64_t bytes = g_test_rand_int_range(1, (int)MIN(length - offset, 3 * CLUSTER) + 1);
                switch (g_test_rand_int_range(0, 4)) {
                case 0:
                    g_assert_cmpint(blk_pwrite_zeroes(blk, offset, bytes, g_test_rand_bit() ? BDRV_REQ_MAY_UNMAP : 0), ==,
                                    0);
                    break;
                case 1:
                    g_assert_cmpint(blk_pdiscard(blk, offset, bytes), ==, 0);
                    break;
                default:
                    fill(blk, offset, bytes, g_test_rand_int_range(1, 256));
                }
            }
            GError *error = NULL;
            blk_truncate(blk, 512 * (int64_t)g_test_rand_int_range(1, 2000), false, BDRV_PREALLOC_OFF, 0, &error);
            g_assert_no_error(error);
            stand_close(blk);
            assert_views_equal();
            assert_clean();
        }
        g_assert_cmpuint(stand_get("o", 88, 8), ==, 2); /* and still says so */
        forget();
    }
}

static void a_raw_bit_that_cannot_be_kept_is_cleared(void)
{
    stand_create("b", "size=640k");
    make("data_file_raw=off,backing_file=simdisk:b,backing_fmt=qcow2");
    stand_put("o", 88, 8, 2);
    put(0, 10, 1);
    g_assert_cmpuint(stand_get("o", 88, 8), ==, 0);
    stand_forget("b");
    forget();
}

static void reopening_for_writing_keeps_it_raw(void)
{
    make("data_file_raw=on");
    BlockBackend *blk = stand_must_open("o", NULL, 0);
    GError *error = NULL;
    blk_reopen(blk, NULL, BDRV_O_RDWR, &error);
    g_assert_no_error(error);
    fill(blk, CLUSTER - 10, 20, 4);
    stand_close(blk);
    assert_views_equal();
    forget();
}

/* The last cluster of the disk is not a whole one. */
static void the_data_file_is_no_longer_than_the_disk(void)
{
    bdrv_simdisk_forget("d");
    stand_create("o", "size=100k,data_file=d");
    put(70 * K, 512, 5);
    g_assert_cmpint(stand_length("d"), ==, 100 * K);
    forget();
}

/* The options are completed by a size then, in a copy that must last. */
static void an_image_as_large_as_its_backing_file_has_one_too(void)
{
    bdrv_simdisk_forget("data-file");
    stand_create("b", "size=640k");
    stand_create("o", "data_file=data-file,backing_file=simdisk:b,backing_fmt=qcow2");
    g_assert_cmpint(stand_length("data-file"), ==, 640 * K);
    stand_forget("b");
    stand_forget("o");
    bdrv_simdisk_forget("data-file");
}

/* What the file had before is not what the guest gets of a cluster that was never written. */
static void old_content_does_not_show(void)
{
    make("data_file_raw=off");
    stand_put("d", CLUSTER, 8, UINT64_MAX);
    put(CLUSTER + 512, 512, 5);
    int64_t length;
    g_autofree uint8_t *guest = read_guest(&length);
    g_assert_cmpint(guest[CLUSTER], ==, 0);
    g_assert_cmpint(guest[CLUSTER + 512], ==, 5);
    forget();
}

static void a_flush_that_fails_publishes_nothing(void)
{
    make("data_file_raw=off");
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("d");
    BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_RDWR);
    fill(blk, 0, CLUSTER, 5);
    bdrv_simdisk_fail(disk, BDRV_SIM_FLUSH, 1, 1, EIO);
    g_assert_cmpint(blk_flush(blk), ==, -EIO);
    g_assert_cmpint(stand_length("o"), <=, 5 * CLUSTER);
    g_assert_cmpuint(stand_get("o", l2_entry("o", 0), 8), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpuint(stand_get("o", l2_entry("o", 0), 8), ==, COPIED);
    stand_close(blk);
    forget();
}

/* With simdisk names a file name of two directories cannot be told from one: the resolved name is in the error. */
static void a_relative_name_starts_at_the_image(void)
{
    g_autofree char *directory = g_dir_make_tmp("bdrv-XXXXXX", NULL);
    g_autofree char *image = g_build_filename(directory, "o.qcow2", NULL);
    g_autofree char *data = g_build_filename(directory, "d.raw", NULL);
    GError *error = NULL;
    BdrvOptions *options = bdrv_options_parse("size=1M,data_file=d.raw", NULL, &error);
    bdrv_create_image(stand_graph(), "qcow2", image, options, &error);
    g_assert_no_error(error);
    g_assert_true(g_file_test(data, G_FILE_TEST_EXISTS));
    BlockBackend *blk = blk_open(stand_graph(), image, NULL, BDRV_O_RDWR, &error);
    g_assert_no_error(error);
    fill(blk, 0, 10, 1);
    stand_close(blk);
    g_unlink(data);
    g_assert_null(blk_open(stand_graph(), image, NULL, 0, &error));
    g_assert_nonnull(strstr(error->message, data));
    g_clear_error(&error);
    g_unlink(image);
    g_rmdir(directory);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name) g_test_add_func("/qcow2/data-file/" #name, name)
    ADD(data_lies_at_its_guest_offset);
    ADD(zeroes_at_offset_0_have_no_place);
    ADD(an_option_names_another_data_file);
    ADD(an_image_without_one_takes_none);
    ADD(the_gate_is_asked);
    ADD(a_relative_name_starts_at_the_image);
    ADD(internal_snapshots_are_refused);
    ADD(compressed_writes_are_refused);
    ADD(a_cluster_elsewhere_goes_back_to_its_place);
    ADD(a_compressed_cluster_is_lost);
    ADD(a_missing_copied_flag_is_put_right);
    ADD(a_raw_data_file_is_the_disk);
    ADD(a_raw_bit_that_cannot_be_kept_is_cleared);
    ADD(reopening_for_writing_keeps_it_raw);
    ADD(an_image_as_large_as_its_backing_file_has_one_too);
    ADD(the_data_file_is_no_longer_than_the_disk);
    ADD(old_content_does_not_show);
    ADD(a_flush_that_fails_publishes_nothing);
    return g_test_run();
}
