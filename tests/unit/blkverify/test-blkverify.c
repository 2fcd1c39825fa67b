/* SPDX-License-Identifier: MIT */

/* blkverify over two simulated disks. */

#include <bdrv/simdisk.h>
#include <errno.h>
#include <string.h>

#include "tests/lib/test-node.h"

#define BYTES (64 * 1024)
#define CLEAN "driver=blkverify,raw.driver=simdisk,raw.disk=r,test.driver=raw,test.file.driver=simdisk,test.file.disk=t"

typedef struct Stand {
    BdrvGraph *graph;
    BdrvSimDisk *raw, *test;
    BlockBackend *blk;
} Stand;

static Stand stand_open(void)
{
    Stand s = { .graph = bdrv_graph_new(),
                .raw = bdrv_simdisk_new("r", BYTES),
                .test = bdrv_simdisk_new("t", BYTES) };
    GError *error = NULL;

    s.blk = blk_open(s.graph, NULL, bdrv_options_parse(CLEAN, NULL, NULL), BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP,
                     &error);
    g_assert_no_error(error);
    return s;
}

static void stand_close(Stand *s, int expected)
{
    GError *error = NULL;

    if (blk_close(s->blk, &error)) {
        g_assert_cmpint(expected, ==, 0);
    } else {
        g_assert_error(error, BDRV_ERROR, expected);
        g_error_free(error);
    }
    bdrv_simdisk_unref(s->raw);
    bdrv_simdisk_unref(s->test);
    bdrv_graph_unref(s->graph);
}

static void assert_same(const Stand *s)
{
    g_autofree uint8_t *a = g_malloc(BYTES), *b = g_malloc(BYTES);

    bdrv_simdisk_peek(s->raw, 0, a, BYTES);
    bdrv_simdisk_peek(s->test, 0, b, BYTES);
    g_assert_cmpmem(a, BYTES, b, BYTES);
}

static void assert_explained(const Stand *s, const char *expected)
{
    g_autofree char *text = blk_explain(s->blk);

    g_assert_cmpstr(text, ==, expected);
}

static void test_changes(void)
{
    Stand s = stand_open();
    uint8_t buf[3000], found[3000];

    memset(buf, 0x41, sizeof(buf));
    g_assert_cmpint(blk_pwrite(s.blk, 1000, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpint(blk_pwrite(s.blk, 9000, sizeof(buf), buf, BDRV_REQ_FUA), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(s.blk, 2000, 8000, BDRV_REQ_MAY_UNMAP), ==, 0);
    bdrv_simdisk_peek(s.test, 1000, found, 1000);
    g_assert_cmpmem(found, 1000, buf, 1000);
    bdrv_simdisk_peek(s.test, 10000, found, 2000);
    g_assert_cmpmem(found, 2000, buf, 2000);
    assert_same(&s);
    g_assert_cmpint(blk_pread(s.blk, 0, sizeof(found), found, 0), ==, 0);
    g_assert_cmpmem(found + 1000, 1000, buf, 1000);

    g_assert_cmpint(blk_flush(s.blk), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(s.raw, BDRV_SIM_FLUSH), >=, 1);
    g_assert_cmpuint(bdrv_simdisk_count(s.test, BDRV_SIM_FLUSH), >=, 1);
    assert_explained(&s, NULL);
    stand_close(&s, 0);
}

static void test_mismatch(void)
{
    Stand s = stand_open();
    uint8_t buf[4096], before[512], after[512];
    GError *error = NULL;

    bdrv_simdisk_poke(s.test, 700, "x", 1);
    g_assert_cmpint(blk_pread(s.blk, 4096, 4096, buf, 0), ==, 0);
    assert_explained(&s, NULL);
    g_assert_cmpint(blk_pread(s.blk, 0, 4096, buf, 0), ==, -EIO);
    assert_explained(&s, "blkverify: read offset=0 bytes=4096 contents mismatch at offset 700");

    /* From now on nothing works, and nothing changes. */
    bdrv_simdisk_peek(s.raw, 8192, before, 512);
    memset(buf, 7, sizeof(buf));
    g_assert_cmpint(blk_pread(s.blk, 4096, 4096, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_pwrite(s.blk, 8192, 512, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_pwrite_zeroes(s.blk, 8192, 512, 0), ==, -EIO);
    g_assert_cmpint(blk_flush(s.blk), ==, -EIO);
    g_assert_false(blk_truncate(s.blk, 2 * BYTES, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_error(error, BDRV_ERROR, EIO);
    g_clear_error(&error);
    bdrv_simdisk_peek(s.raw, 8192, after, 512);
    g_assert_cmpmem(before, 512, after, 512);
    assert_explained(&s, "blkverify: read offset=0 bytes=4096 contents mismatch at offset 700");
    stand_close(&s, EIO);
}

static void test_scattered(void)
{
    Stand s = stand_open();
    uint8_t a[100], b[412], c[512];
    const struct iovec vec[] = { { a, sizeof(a) }, { b, sizeof(b) }, { c, sizeof(c) } };
    BdrvIov iov = bdrv_iov_init(vec, 3);

    bdrv_simdisk_poke(s.raw, 2048 + 1023, "x", 1);
    g_assert_cmpint(blk_preadv(s.blk, 2048, &iov, 0), ==, -EIO);
    assert_explained(&s, "blkverify: read offset=2048 bytes=1024 contents mismatch at offset 3071");
    stand_close(&s, EIO); /* a writer that closes flushes, and that fails too */
}

static void test_one_fails(void)
{
    Stand s = stand_open();
    uint8_t buf[512] = { 1 };

    bdrv_simdisk_fail(s.test, BDRV_SIM_WRITE, 1, 1, ENOSPC);
    g_assert_cmpint(blk_pwrite(s.blk, 512, 512, buf, 0), ==, -EIO);
    assert_explained(&s, "blkverify: write offset=512 bytes=512 result mismatch: raw: success, test: No space left on "
                         "device");
    g_assert_cmpint(blk_pread(s.blk, 0, 512, buf, 0), ==, -EIO);
    stand_close(&s, EIO);
}

static void test_both_fail(void)
{
    Stand s = stand_open();
    uint8_t buf[512] = { 1 };

    bdrv_simdisk_fail(s.test, BDRV_SIM_WRITE, 1, 1, ENOSPC);
    bdrv_simdisk_fail(s.raw, BDRV_SIM_WRITE, 1, 1, ENOSPC);
    g_assert_cmpint(blk_pwrite(s.blk, 512, 512, buf, 0), ==, -ENOSPC);
    assert_explained(&s, NULL);
    g_assert_cmpint(blk_pwrite(s.blk, 512, 512, buf, 0), ==, 0);
    assert_same(&s);
    stand_close(&s, 0);
}

static void test_hints(void)
{
    Stand s = stand_open();
    uint8_t buf[512] = { 1 };

    g_assert_cmpint(blk_pwrite(s.blk, 0, 512, buf, 0), ==, 0);
    g_assert_cmpint(blk_pdiscard(s.blk, 0, BYTES), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(s.raw, BDRV_SIM_DISCARD), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(s.test, BDRV_SIM_DISCARD), ==, 0);
    /* One child may be able to, the other not. */
    g_assert_cmpint(blk_pwrite_zeroes(s.blk, 0, 512, BDRV_REQ_NO_FALLBACK), ==, -ENOTSUP);
    assert_same(&s);
    stand_close(&s, 0);
}

static void test_resize(void)
{
    Stand s = stand_open();
    GError *error = NULL;

    g_assert_true(blk_truncate(s.blk, 2 * BYTES, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_cmpint(bdrv_simdisk_length(s.raw), ==, 2 * BYTES);
    g_assert_cmpint(bdrv_simdisk_length(s.test), ==, 2 * BYTES);
    g_assert_cmpint(blk_length(s.blk), ==, 2 * BYTES);

    bdrv_simdisk_fail(s.test, BDRV_SIM_TRUNCATE, 1, 1, ENOSPC); /* before raw was touched */
    g_assert_false(blk_truncate(s.blk, BYTES, true, BDRV_PREALLOC_OFF, 0, &error));
    g_clear_error(&error);
    assert_explained(&s, NULL);
    g_assert_cmpint(blk_flush(s.blk), ==, 0);

    bdrv_simdisk_fail(s.raw, BDRV_SIM_TRUNCATE, 1, 1, ENOSPC);
    g_assert_false(blk_truncate(s.blk, BYTES, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_error(error, BDRV_ERROR, ENOSPC);
    g_clear_error(&error);
    g_assert_cmpint(blk_flush(s.blk), ==, -EIO);
    stand_close(&s, EIO);
}

static void test_refusals(void)
{
    static const struct {
        const char *filename, *options, *said;
    } cases[] = {
        { NULL, CLEAN, "raw is 65536 bytes long and test 4096" },
        { NULL, "driver=blkverify,raw.driver=simdisk,raw.disk=r", "needs a child 'test'" },
        { NULL, "driver=blkverify,test.driver=simdisk,test.disk=t", "needs a child 'raw'" },
        { "blkverify:", NULL, "write blkverify:RAW:TEST" },
        { "blkverify:a", NULL, "write blkverify:RAW:TEST" },
        { "blkverify::b", NULL, "write blkverify:RAW:TEST" },
        { "blkverify:a:", NULL, "write blkverify:RAW:TEST" },
    };
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autoptr(BdrvSimDisk) raw = bdrv_simdisk_new("r", BYTES), test = bdrv_simdisk_new("t", 4096);

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        BdrvOptions *options = cases[i].options ? bdrv_options_parse(cases[i].options, NULL, NULL) : NULL;
        GError *error = NULL;

        g_assert_null(blk_open(graph, cases[i].filename, options, BDRV_O_RDWR, &error));
        g_assert_error(error, BDRV_ERROR, EINVAL);
        g_assert_nonnull(strstr(error->message, cases[i].said));
        g_error_free(error);
    }
}

/* Copying between files may pass memory by; here it must not. */
static void test_copy_source(void)
{
    Stand s = stand_open();
    g_autoptr(BdrvSimDisk) copy = bdrv_simdisk_new("c", BYTES);
    BdrvOptions *options = bdrv_options_parse("driver=simdisk,disk=c", NULL, NULL);
    BlockBackend *to = blk_open(s.graph, NULL, options, BDRV_O_RDWR, NULL);

    bdrv_simdisk_poke(s.test, 5, "x", 1);
    g_assert_cmpint(blk_copy_range(s.blk, 0, to, 0, 512, 0), ==, -EIO);
    g_assert_true(blk_close(to, NULL));
    stand_close(&s, EIO);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/blkverify/changes and flushes reach both children", test_changes);
    g_test_add_func("/blkverify/after a difference every request fails", test_mismatch);
    g_test_add_func("/blkverify/the first difference in a scattered buffer is named", test_scattered);
    g_test_add_func("/blkverify/one child that fails alone is a mismatch", test_one_fails);
    g_test_add_func("/blkverify/children that fail alike are no mismatch", test_both_fail);
    g_test_add_func("/blkverify/hints that children take differently are not passed on", test_hints);
    g_test_add_func("/blkverify/resizing changes both or is a mismatch", test_resize);
    g_test_add_func("/blkverify/wrong children are refused", test_refusals);
    g_test_add_func("/blkverify/what is copied from it is compared", test_copy_source);
    return g_test_run();
}
