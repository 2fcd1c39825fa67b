/* SPDX-License-Identifier: MIT */
/* Persistent dirty bitmaps through the backend. Beside the real tools: tests/tools/test_bitmap.py. */

#include <bdrv/bitmap.h>
#include <bdrv/simdisk.h>
#include <errno.h>
#include <string.h>

#include "drivers/qcow2/format/format.h"
#include "tests/unit/qcow2/stand.h"

#define K 1024
#define M (1024 * K)

static void add(BlockBackend *blk, const char *name, int64_t granularity, bool enabled)
{
    GError *error = NULL;
    blk_bitmap_add(blk, name, granularity, enabled, &error);
    g_assert_no_error(error);
}

/* The ranges that are set: "0+64 128+4", in KiB; "?": cannot be read. */
static char *dirty(BlockBackend *blk, const char *name)
{
    g_autoptr(BdrvDirtyBits) bits = blk_bitmap_read(blk, name, NULL);
    GString *text = g_string_new(bits ? NULL : "?");
    int64_t at = 0, bytes;
    for (; bits && bdrv_dirty_bits_next(bits, at, &at, &bytes); at += bytes) {
        g_string_append_printf(text, "%s%d+%d", text->len ? " " : "", (int)(at / K), (int)(bytes / K));
    }
    return g_string_free(text, FALSE);
}

static void assert_dirty(BlockBackend *blk, const char *name, const char *wanted)
{
    g_autofree char *text = dirty(blk, name);
    g_assert_cmpstr(text, ==, wanted);
}

static void write_bytes(BlockBackend *blk, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    memset(buf, 0x5a, bytes);
    g_assert_cmpint(blk_pwrite(blk, offset, bytes, buf, flags), ==, 0);
}

static void assert_clean(const char *name)
{
    BlockBackend *blk = stand_must_open(name, NULL, BDRV_O_CHECK);
    BdrvCheckResult result = { 0 };
    GError *error = NULL;
    blk_check(blk, &result, BDRV_FIX_NONE, &error);
    g_assert_no_error(error);
    g_assert_true(result.corruptions == 0 && result.leaks == 0 && result.check_errors == 0);
    stand_close(blk);
}

/* What an image with one bitmap "b" says of it when it is opened now, beside whoever has it open. */
static char *as_stored(const char *name)
{
    stand_copy(name, "copy", -1);
    BlockBackend *blk = stand_must_open("copy", NULL, 0);
    char *text = dirty(blk, "b");
    stand_close(blk);
    stand_forget("copy");
    return text;
}

static void assert_stored(const char *name, const char *wanted)
{
    g_autofree char *text = as_stored(name);
    g_assert_cmpstr(text, ==, wanted);
}

static void test_changes(void)
{
    stand_create("d", "size=4M");
    BlockBackend *blk = stand_must_open("d", NULL, BDRV_O_RDWR | BDRV_O_UNMAP);
    GError *error = NULL;
    add(blk, "b", 4 * K, true);
    add(blk, "off", 4 * K, false);
    write_bytes(blk, 1000, 100, 0);
    write_bytes(blk, 15 * K, 2 * K, 0);
    assert_dirty(blk, "b", "0+4 12+8");
    g_assert_cmpint(blk_pwrite_zeroes(blk, M, 64 * K, 0), ==, 0);
    g_assert_cmpint(blk_pdiscard(blk, 2 * M, 128 * K), ==, 0);
    write_bytes(blk, 3 * M, 64 * K, BDRV_REQ_COMPRESSED);
    assert_dirty(blk, "b", "0+4 12+8 1024+64 2048+128 3072+64");
    assert_dirty(blk, "off", "");
    stand_close(blk);
    assert_clean("d");

    blk = stand_must_open("d", NULL, BDRV_O_RDWR);
    assert_dirty(blk, "b", "0+4 12+8 1024+64 2048+128 3072+64");
    blk_bitmap_clear(blk, "b", &error);
    g_assert_no_error(error);
    assert_dirty(blk, "b", "");
    g_assert_true(blk_make_empty(blk, NULL));
    assert_dirty(blk, "b", "0+4096");
    stand_close(blk);
    assert_clean("d");
    stand_forget("d");
}

/* VM state lies past the end of the disk; growing zeroes what lies behind its old end. */
static void test_no_changes(void)
{
    stand_create("base", "size=8M");
    stand_create("d", "size=1000k,cluster_size=4k,backing_file=simdisk:base,backing_fmt=qcow2");
    BlockBackend *blk = stand_must_open("d", NULL, BDRV_O_RDWR | BDRV_O_RESIZE);
    GError *error = NULL;
    struct iovec vec;
    uint8_t state[5000] = { 1 };
    BdrvIov iov = BDRV_IOV_BUF(vec, state, sizeof(state));
    add(blk, "b", 64 * K, true);
    g_assert_cmpint(blk_save_vmstate(blk, 100, &iov), ==, 0);
    for (int64_t size = 1001; size < 1100; size += 33) {
        blk_truncate(blk, size * K, true, BDRV_PREALLOC_OFF, 0, &error);
        g_assert_no_error(error);
    }
    assert_dirty(blk, "b", "");
    write_bytes(blk, 1066 * K, K, 0);
    assert_dirty(blk, "b", "1024+43");
    blk_truncate(blk, 500 * K, true, BDRV_PREALLOC_OFF, 0, &error);
    g_assert_no_error(error);
    blk_truncate(blk, 2 * M, true, BDRV_PREALLOC_METADATA, 0, &error);
    g_assert_no_error(error);
    assert_dirty(blk, "b", "");
    stand_close(blk);
    assert_clean("d");
    stand_forget("d");
    stand_forget("base");
}

static void test_in_use(void)
{
    stand_create("d", "size=4M");
    BlockBackend *blk = stand_must_open("d", NULL, BDRV_O_RDWR);
    GError *error = NULL;
    add(blk, "b", 0, true);
    assert_stored("d", "");
    write_bytes(blk, 0, K, 0);
    assert_stored("d", "?");
    add(blk, "other", 0, false); /* each change of the directory stores all */
    assert_stored("d", "0+64");
    write_bytes(blk, 0, K, 0); /* nothing new is set, but it could have been */
    assert_stored("d", "?");
    g_assert_true(blk_bitmap_enable(blk, "b", false, NULL));
    assert_stored("d", "0+64");
    write_bytes(blk, M, K, 0);
    assert_stored("d", "0+64");
    g_assert_true(blk_bitmap_enable(blk, "b", true, NULL));
    write_bytes(blk, 2 * M, K, 0);
    assert_stored("d", "?");
    g_assert_true(blk_reopen(blk, NULL, 0, &error));
    assert_stored("d", "0+64 2048+64");
    g_assert_true(blk_reopen(blk, NULL, BDRV_O_RDWR, &error));
    assert_stored("d", "0+64 2048+64");
    write_bytes(blk, 3 * M, K, 0);
    assert_stored("d", "?");
    stand_close(blk);
    assert_stored("d", "0+64 2048+64 3072+64");
    assert_clean("d");
    stand_forget("d");
}

/* A flag that a flush could not make durable is still read by who opens the image again, until the power goes. */
static void test_mark_in_doubt(void)
{
    for (unsigned nth = 1; nth <= 3; nth++) {
        stand_create("d", "size=4M");
        g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("d");
        BlockBackend *blk = stand_must_open("d", NULL, BDRV_O_RDWR);
        uint8_t buf[K] = { 1 };
        write_bytes(blk, 0, 2 * M, 0);
        add(blk, "b", 0, true);
        g_assert_cmpint(blk_flush(blk), ==, 0);
        bdrv_simdisk_set_volatile(disk, true);
        bdrv_simdisk_fail(disk, BDRV_SIM_FLUSH, nth, -1, EIO);
        blk_pwrite(blk, 0, K, buf, 0);
        g_assert_false(blk_close(blk, NULL));
        bdrv_simdisk_fail_none(disk);
        blk = stand_must_open("d", NULL, BDRV_O_RDWR);
        write_bytes(blk, M, K, 0);
        g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
        g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(cut, NULL, "left");
        BlockBackend *after = stand_must_open("left", NULL, 0);
        assert_dirty(after, "b", "?");
        stand_close(after);
        stand_close(blk);
        stand_forget("d");
    }
}

static void expect(bool ok, GError **error, int code, const char *pattern)
{
    g_assert_false(ok);
    g_assert_cmpint(bdrv_error_code(*error), ==, code);
    g_assert_true(stand_matches(pattern, (*error)->message));
    g_clear_error(error);
}

static void test_refusals(void)
{
    stand_create("d", "size=4M");
    stand_create("old", "size=4M,compat=0.10");
    stand_create("empty", "size=0");
    BlockBackend *blk = stand_must_open("d", NULL, BDRV_O_RDWR);
    BdrvBitmapInfo *list;
    GError *error = NULL;
    add(blk, "b", 0, true);
    expect(blk_bitmap_add(blk, "b", 0, true, &error), &error, EEXIST, "*already exists: b*");
    expect(blk_bitmap_add(blk, "", 0, true, &error), &error, EINVAL, "*name of 0 bytes*1 to 1023*");
    expect(blk_bitmap_add(blk, "c", -512, true, &error), &error, EINVAL, "*granularity -512 is not a power of two*");
    expect(blk_bitmap_add(blk, "c", INT64_C(1) << 32, true, &error), &error, EINVAL, "*from 512 to 2147483648*");
    expect(blk_bitmap_remove(blk, "c", &error), &error, ENOENT, "*'c' not found*");
    expect(blk_bitmap_clear(blk, "c", &error), &error, ENOENT, "*'c' not found*");
    expect(blk_bitmap_enable(blk, "c", true, &error), &error, ENOENT, "*'c' not found*");
    g_assert_null(blk_bitmap_read(blk, "c", NULL));
    g_assert_cmpint(blk_bitmap_list(blk, &list, NULL), ==, 1);
    bdrv_bitmap_list_free(list, 1);
    stand_close(blk);
    blk = stand_must_open("d", NULL, 0);
    expect(blk_bitmap_clear(blk, "b", &error), &error, EACCES, "*read-only*");
    stand_close(blk);
    blk = stand_must_open("old", NULL, BDRV_O_RDWR);
    expect(blk_bitmap_add(blk, "b", 0, true, &error), &error, ENOTSUP, "*version 2*cannot have bitmaps*");
    g_assert_cmpint(blk_bitmap_list(blk, &list, &error), ==, -1);
    expect(false, &error, ENOTSUP, "*version 2*");
    stand_close(blk);
    blk = stand_must_open("empty", NULL, BDRV_O_RDWR);
    expect(blk_bitmap_add(blk, "b", 0, true, &error), &error, ENOTSUP, "*0 bytes*");
    stand_close(blk);
    stand_forget("d");
    stand_forget("old");
    stand_forget("empty");
}

static void test_merge(void)
{
    stand_create("d", "size=4M");
    stand_create("other", "size=3M");
    BlockBackend *blk = stand_must_open("d", NULL, BDRV_O_RDWR);
    BlockBackend *other = stand_must_open("other", NULL, BDRV_O_RDWR);
    GError *error = NULL;
    add(blk, "fine", 4 * K, true);
    add(blk, "coarse", 256 * K, false);
    add(other, "b", 0, true);
    write_bytes(blk, 300 * K, 5 * K, 0);
    g_autoptr(BdrvDirtyBits) bits = blk_bitmap_read(blk, "fine", NULL);
    g_assert_true(blk_bitmap_merge(blk, "coarse", bits, NULL));
    assert_dirty(blk, "coarse", "256+256");
    g_autoptr(BdrvDirtyBits) back = blk_bitmap_read(blk, "coarse", NULL);
    g_assert_true(blk_bitmap_merge(blk, "fine", back, NULL));
    assert_dirty(blk, "fine", "256+256");
    expect(blk_bitmap_merge(other, "b", bits, &error), &error, EINVAL, "*4194304 bytes cannot be merged*3145728 bytes*");
    stand_close(other);
    stand_close(blk);
    assert_clean("d");
    stand_forget("d");
    stand_forget("other");
}

/* Three bitmaps of 512 MiB, by the table size that a crafted directory claims for them. */
static void make_large(void)
{
    enum { AUTOCLEAR = 88, EXTENSIONS = 112, DIRECTORY = 16 * M, TABLE = 18 * M };
    stand_create("plain", "size=16T,cluster_size=2M");
    stand_copy("plain", "d", 20 * M);
    stand_put("d", AUTOCLEAR, 8, QCOW2_AUTOCLEAR_BITMAPS);
    stand_put("d", EXTENSIONS, 8, UINT64_C(0x2385287500000018));
    stand_put("d", EXTENSIONS + 8, 8, UINT64_C(3) << 32);
    stand_put("d", EXTENSIONS + 16, 8, 96);
    stand_put("d", EXTENSIONS + 24, 8, DIRECTORY);
    stand_put("d", EXTENSIONS + 32, 8, 0);
    for (int64_t at = DIRECTORY, n = 0; n < 3; at += 32, n++) {
        stand_put("d", at, 8, TABLE);
        stand_put("d", at + 8, 4, 256);
        stand_put("d", at + 12, 4, QCOW2_BITMAP_AUTO);
        stand_put("d", at + 16, 4, UINT64_C(0x010c0001)); /* type 1, 4 KiB, a name of 1 byte */
        stand_put("d", at + 24, 1, (uint64_t)('a' + n));
    }
    stand_forget("plain");
}

static void test_large(void)
{
    GError *error = NULL;
    make_large();
    BlockBackend *blk = stand_must_open("d", NULL, 0); /* who only reads does not load them */
    stand_close(blk);
    expect(stand_open("d", NULL, BDRV_O_RDWR, &error), &error, EFBIG, "*bitmap 'c': *1610612736 bytes of memory; at most*");
    stand_put("d", 16 * M + 64 + 12, 4, QCOW2_BITMAP_IN_USE);
    blk = stand_must_open("d", NULL, BDRV_O_RDWR);
    expect(blk_bitmap_add(blk, "n", 512, true, &error), &error, EFBIG, "*more than 512 MiB; use a larger granularity*");
    expect(blk_bitmap_add(blk, "n", M, true, &error), &error, EFBIG, "*1075838976 bytes of memory; at most*");
    stand_close(blk);
    stand_forget("d");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/bitmap/every kind of change sets the bits of enabled bitmaps", test_changes);
    g_test_add_func("/qcow2/bitmap/VM state and resizing set none", test_no_changes);
    g_test_add_func("/qcow2/bitmap/what is stored is right or in use", test_in_use);
    g_test_add_func("/qcow2/bitmap/a mark that is not durable yet is made so before the next write", test_mark_in_doubt);
    g_test_add_func("/qcow2/bitmap/what cannot be is refused with its reason", test_refusals);
    g_test_add_func("/qcow2/bitmap/bitmaps of other granularities are merged, not those of other disks", test_merge);
    g_test_add_func("/qcow2/bitmap/the memory of bits is bounded", test_large);
    return g_test_run();
}
