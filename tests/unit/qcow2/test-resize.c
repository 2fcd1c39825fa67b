/* SPDX-License-Identifier: MIT */
/* Resizing: old content stays, a new part reads as zeroes, at every cut one of the two sizes is there. */

#include <errno.h>
#include <string.h>

#include "tests/unit/qcow2/stand.h"

static bool checks_clean(const char *name)
{
    BdrvCheckResult r = { 0 };
    GError *error = NULL;
    BlockBackend *blk = stand_must_open(name, NULL, BDRV_O_CHECK | BDRV_O_NO_BACKING);
    bool ok = blk_check(blk, &r, BDRV_FIX_NONE, &error);
    g_assert_no_error(error);
    stand_close(blk);
    return ok && r.corruptions + r.leaks + r.check_errors == 0;
}

static void write_pattern(const char *name, int64_t offset, int64_t bytes, int byte)
{
    g_autofree uint8_t *buf = g_malloc((gsize)bytes);
    memset(buf, byte, (size_t)bytes);
    BlockBackend *blk = stand_must_open(name, NULL, BDRV_O_RDWR);
    g_assert_cmpint(blk_pwrite(blk, offset, bytes, buf, 0), ==, 0);
    stand_close(blk);
}

static bool resize(const char *name, int64_t length, bool exact, BdrvPrealloc prealloc, GError **errp)
{
    BlockBackend *blk = stand_must_open(name, NULL, BDRV_O_RDWR | BDRV_O_RESIZE);
    bool ok = blk_truncate(blk, length, exact, prealloc, 0, errp);
    g_assert_cmpint(ok ? blk_length(blk) >= length : 1, ==, 1);
    stand_close(blk);
    return ok;
}

static uint8_t *read_all(const char *name, int64_t *length)
{
    BlockBackend *blk = stand_must_open(name, NULL, 0);
    *length = blk_length(blk);
    uint8_t *buf = g_malloc((gsize)*length + 1);
    g_assert_cmpint(blk_pread(blk, 0, *length, buf, 0), ==, 0);
    stand_close(blk);
    return buf;
}

static void test_content(void)
{
    static const char *const geometries[] = {
        "cluster_size=512",
        "cluster_size=4k",
        "cluster_size=64k,refcount_bits=1",
        "cluster_size=4k,compat=0.10",
    };
    for (unsigned round = 0; round < 48; round++) {
        int64_t old_size = 512 * (int64_t)g_test_rand_int_range(1, 1500);
        int64_t new_size = old_size + 512 * (int64_t)g_test_rand_int_range(1, 3000);
        bool backing = g_test_rand_bit();
        BdrvPrealloc prealloc = round % 3 ? BDRV_PREALLOC_OFF : BDRV_PREALLOC_METADATA;
        g_autofree char *options = g_strdup_printf(
            "size=%" G_GINT64_FORMAT ",%s%s", old_size, geometries[round % G_N_ELEMENTS(geometries)],
            backing ? ",backing_file=simdisk:base,backing_fmt=qcow2" : "");
        if (backing) {
            int64_t base_size = 512 * (int64_t)g_test_rand_int_range(1, 4000);
            g_autofree char *base = g_strdup_printf("size=%" G_GINT64_FORMAT, base_size);
            stand_create("base", base);
            write_pattern("base", 0, base_size, 0xbb);
        }
        stand_create("r", options);
        if (g_test_rand_bit()) {
            write_pattern("r", old_size - 512, 512, 0x77);
        }
        if (g_test_rand_bit()) {
            write_pattern("r", 0, MIN(old_size, 5000), 0x33);
        }
        int64_t before, after;
        GError *error = NULL;
        g_autofree uint8_t *old = read_all("r", &before);
        g_test_message("%s to %" G_GINT64_FORMAT ", preallocation %d", options, new_size, prealloc);
        resize("r", new_size, true, prealloc, &error);
        g_assert_no_error(error);
        g_autofree uint8_t *new = read_all("r", &after);
        g_assert_cmpint(after, ==, new_size);
        g_assert_true(memcmp(old, new, (size_t)before) == 0);
        g_assert_true(bdrv_buffer_is_zero(new + before, (size_t)(after - before)));
        g_assert_true(checks_clean("r"));
        stand_forget("r");
        stand_forget("base");
    }
}

/* What stays is as it was; what was cut off is given back, and does not come back with a later growth. */
static void test_shrink(void)
{
    static const char *const geometries[] = {
        "cluster_size=512", "cluster_size=4k", "cluster_size=64k,refcount_bits=1", "cluster_size=4k,compat=0.10",
        "cluster_size=512,preallocation=metadata", "cluster_size=16k,extended_l2=on",
    };
    for (unsigned round = 0; round < 42; round++) {
        int64_t old_size = 512 * (int64_t)g_test_rand_int_range(2, 1500);
        int64_t new_size = 512 * (int64_t)g_test_rand_int_range(1, (int)(old_size / 512));
        const char *geometry = geometries[round % G_N_ELEMENTS(geometries)];
        bool backing = g_test_rand_bit() && !strstr(geometry, "preallocation");
        g_autofree char *options = g_strdup_printf("size=%" G_GINT64_FORMAT ",%s%s", old_size, geometry,
                                                   backing ? ",backing_file=simdisk:base,backing_fmt=qcow2" : "");
        if (backing) {
            g_autofree char *base = g_strdup_printf("size=%" G_GINT64_FORMAT, old_size);
            stand_create("base", base);
            write_pattern("base", 0, old_size, 0xbb);
        }
        stand_create("r", options);
        int64_t empty_bytes = stand_length("r");
        write_pattern("r", old_size / 4, old_size - old_size / 4, 0x77);
        int64_t full_bytes = stand_length("r"), before, after;
        g_autofree uint8_t *old = read_all("r", &before);
        GError *error = NULL;
        g_test_message("%s to %" G_GINT64_FORMAT, options, new_size);
        resize("r", new_size, true, BDRV_PREALLOC_OFF, &error);
        g_assert_no_error(error);
        g_assert_true(checks_clean("r"));
        if (new_size + 65536 < old_size / 4 && full_bytes > empty_bytes) { /* no cluster that was written is left */
            g_assert_cmpint(stand_length("r"), <, full_bytes);
        }
        g_autofree uint8_t *cut = read_all("r", &after);
        g_assert_cmpint(after, ==, new_size);
        g_assert_true(memcmp(old, cut, (size_t)after) == 0);
        resize("r", old_size, true, BDRV_PREALLOC_OFF, &error);
        g_assert_no_error(error);
        g_autofree uint8_t *grown = read_all("r", &after);
        g_assert_true(memcmp(old, grown, (size_t)new_size) == 0);
        g_assert_true(bdrv_buffer_is_zero(grown + new_size, (size_t)(old_size - new_size)));
        g_assert_true(checks_clean("r"));
        stand_forget("r");
        stand_forget("base");
    }
}

/* Clusters mapped past the end of the disk, as VM state is. */
static void test_leftovers(void)
{
    stand_create("r", "size=1M,cluster_size=4k");
    write_pattern("r", 0, 1 << 20, 0x11);
    stand_put("r", 24, 8, 512 << 10); /* half of it */
    GError *error = NULL;
    resize("r", 1 << 20, true, BDRV_PREALLOC_OFF, &error);
    g_assert_no_error(error);
    int64_t length;
    g_autofree uint8_t *content = read_all("r", &length);
    g_assert_true(content[(512 << 10) - 1] == 0x11);
    g_assert_true(bdrv_buffer_is_zero(content + (512 << 10), 512 << 10));
    g_assert_true(checks_clean("r"));
    stand_forget("r");
}

static void test_l1_grows(void)
{
    stand_create("r", "size=1M,cluster_size=512");
    write_pattern("r", 0, 4096, 0x22);
    GError *error = NULL;
    resize("r", INT64_C(64) << 20, true, BDRV_PREALLOC_OFF, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(stand_get("r", 36, 4), >=, 2048);
    write_pattern("r", (INT64_C(64) << 20) - 4096, 4096, 0x44);
    g_assert_true(checks_clean("r"));
    stand_forget("r");
}

static void test_refused(void)
{
    static const struct {
        int64_t length;
        bool exact;
        BdrvPrealloc prealloc;
        int code;
        const char *text;
    } cases[] = {
        { 1 << 19, true, BDRV_PREALLOC_FULL, EINVAL, "*preallocation is for growing only*" },
        { (2 << 20) + 1, true, BDRV_PREALLOC_OFF, EINVAL, "*2097153 is not a multiple of 512*" },
        { (1 << 19) + 1, true, BDRV_PREALLOC_OFF, EINVAL, "*524289 is not a multiple of 512*" },
        { INT64_C(1) << 60, true, BDRV_PREALLOC_OFF, EFBIG, "*L1 table entries; at most 4194304*" },
    };
    stand_create("r", "size=1M,cluster_size=4k");
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_false(resize("r", cases[i].length, cases[i].exact, cases[i].prealloc, &error));
        g_assert_true(stand_matches(cases[i].text, error->message));
        g_assert_error(error, BDRV_ERROR, cases[i].code);
        g_assert_cmpuint(stand_get("r", 24, 8), ==, 1 << 20);
    }
    g_autoptr(GError) error = NULL;
    g_assert_true(resize("r", (2 << 20) + 1, false, BDRV_PREALLOC_OFF, &error));
    g_assert_cmpuint(stand_get("r", 24, 8), ==, (2 << 20) + 512);
    stand_forget("r");
}

static void cut_here(void *opaque, BdrvSimDisk *disk, const BdrvSimRequest *request)
{
    GPtrArray *cuts = opaque;
    if (request->kind != BDRV_SIM_READ) {
        g_ptr_array_add(cuts, bdrv_simdisk_cut(disk));
    }
}

static void assert_old_or_new(int64_t old_size, int64_t new_size)
{
    BdrvCheckResult r = { 0 };
    GError *error = NULL;
    BlockBackend *blk = stand_must_open("cut", NULL, BDRV_O_CHECK | BDRV_O_NO_BACKING);
    g_assert_true(blk_check(blk, &r, BDRV_FIX_NONE, &error));
    g_assert_cmpint(r.corruptions + r.check_errors, ==, 0); /* leaks may be */
    stand_close(blk);
    int64_t length;
    g_autofree uint8_t *content = read_all("cut", &length);
    g_assert_true(length == old_size || length == new_size);
    for (int64_t at = 0; at < old_size; at++) {
        g_assert_cmphex(content[at], ==, 0x11);
    }
    g_assert_true(bdrv_buffer_is_zero(content + old_size, (size_t)(length - old_size)));
}

static void test_power_loss(void)
{
    const int64_t old_size = 20 * 512, new_size = 400 * 512;
    stand_create("base", "size=1M");
    write_pattern("base", 0, 1 << 20, 0xbb);
    for (unsigned prealloc = 0; prealloc < 2; prealloc++) {
        g_autoptr(GPtrArray) cuts = g_ptr_array_new_with_free_func((GDestroyNotify)bdrv_simcut_unref);
        stand_create("r", "size=10k,cluster_size=512,backing_file=simdisk:base,backing_fmt=qcow2");
        write_pattern("r", 0, old_size, 0x11);
        g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("r");
        bdrv_simdisk_set_hook(disk, cut_here, cuts);
        GError *error = NULL;
        resize("r", new_size, true, prealloc ? BDRV_PREALLOC_METADATA : BDRV_PREALLOC_OFF, &error);
        g_assert_no_error(error);
        bdrv_simdisk_set_hook(disk, NULL, NULL);
        g_test_message("%u cuts", cuts->len);
        for (unsigned i = 0; i < cuts->len; i++) {
            BdrvSimCut *cut = cuts->pdata[i];
            for (unsigned round = 0; round < 3; round++) {
                g_autofree BdrvSimChoice *choices = g_new0(BdrvSimChoice, bdrv_simcut_count(cut) + 1);
                bdrv_simcut_random(cut, (uint64_t)g_test_rand_int(), choices);
                g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(cut, round ? choices : NULL, "cut");
                g_assert_nonnull(left);
                assert_old_or_new(old_size, new_size);
            }
        }
        stand_forget("r");
    }
    stand_forget("base");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/resize/old content stays and the rest reads as zeroes", test_content);
    g_test_add_func("/qcow2/resize/what is cut off is given back and does not come back", test_shrink);
    g_test_add_func("/qcow2/resize/clusters mapped past the old end do not show", test_leftovers);
    g_test_add_func("/qcow2/resize/the L1 table grows", test_l1_grows);
    g_test_add_func("/qcow2/resize/what is wrong is refused", test_refused);
    g_test_add_func("/qcow2/resize/power loss leaves the old or the new size", test_power_loss);
    return g_test_run();
}
