/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "block/util/dirty_bits.h"

#define LENGTH 1000 /* two granules of 512, the last one cut */

static void test_random(void)
{
    const uint64_t length = 300 * 512 + 17;
    g_autoptr(BdrvDirtyBits) bits = bdrv_dirty_bits_new(9, length);
    bool model[301] = { false };

    for (unsigned round = 0; round < 200; round++) {
        int64_t at = 0, bytes, begin = g_test_rand_int_range(0, (gint32)length);
        int64_t count = g_test_rand_int_range(0, g_test_rand_bit() ? 600 : 40000);
        bdrv_dirty_bits_set(bits, (uint64_t)begin, (uint64_t)count);
        for (int64_t n = begin / 512; count && n <= MIN((begin + count - 1) / 512, 300); n++) {
            model[n] = true;
        }
        unsigned seen = 0, wanted = 0;
        for (; bdrv_dirty_bits_next(bits, at, &at, &bytes); at += bytes) {
            g_assert_cmpint(at % 512, ==, 0);
            g_assert_true(bytes > 0 && at + bytes <= (int64_t)length);
            for (int64_t n = at / 512; n <= (at + bytes - 1) / 512; n++, seen++) {
                g_assert_true(model[n]);
            }
        }
        for (unsigned n = 0; n < G_N_ELEMENTS(model); n++) {
            wanted += model[n];
        }
        g_assert_cmpuint(seen, ==, wanted);
    }
}

static void test_begin(void)
{
    g_autoptr(BdrvDirtyBits) bits = bdrv_dirty_bits_new(9, LENGTH);
    int64_t at = 7, bytes = 8;

    g_assert_false(bdrv_dirty_bits_next(bits, 0, &at, &bytes));
    g_assert_true(at == 7 && bytes == 8);
    bdrv_dirty_bits_set(bits, 600, 1);
    g_assert_true(bdrv_dirty_bits_next(bits, 0, &at, &bytes));
    g_assert_true(at == 512 && bytes == LENGTH - 512);
    g_assert_true(bdrv_dirty_bits_next(bits, 700, &at, &bytes));
    g_assert_true(at == 700 && bytes == LENGTH - 700);
    g_assert_false(bdrv_dirty_bits_next(bits, LENGTH, &at, &bytes));
}

static void test_changed(void)
{
    g_autoptr(BdrvDirtyBits) bits = bdrv_dirty_bits_new(9, LENGTH);

    bdrv_dirty_bits_set(bits, 0, 0);
    bdrv_dirty_bits_set(bits, 1024, 5000);
    g_assert_false(bits->changed);
    bdrv_dirty_bits_set(bits, 0, 1);
    g_assert_true(bits->changed);
    bits->changed = false;
    bdrv_dirty_bits_set(bits, 5, 100);
    g_assert_false(bits->changed);
}

static void test_bytes(void)
{
    static const uint8_t wanted[24] = { 0x01, 0x80, 0, 0, 0, 0, 0, 0, 0x04 };
    g_autoptr(BdrvDirtyBits) bits = bdrv_dirty_bits_new(9, 70 * 512);
    g_autoptr(BdrvDirtyBits) back = bdrv_dirty_bits_new(9, 70 * 512);
    uint8_t buf[24], all[24];

    g_assert_cmpint(bdrv_dirty_bits_export(bits, 0, 24, buf), ==, BDRV_BITS_ZEROES);
    bdrv_dirty_bits_set(bits, 0, 1);
    bdrv_dirty_bits_set(bits, 15 * 512, 1);
    bdrv_dirty_bits_set(bits, 66 * 512, 1);
    g_assert_cmpint(bdrv_dirty_bits_export(bits, 0, 24, buf), ==, BDRV_BITS_MIXED);
    g_assert_cmpmem(buf, 24, wanted, 24);
    bdrv_dirty_bits_import(back, 0, 8, buf);
    bdrv_dirty_bits_import(back, 8, 16, buf + 8);
    bdrv_dirty_bits_export(back, 0, 24, all);
    g_assert_cmpmem(all, 24, wanted, 24);
    bdrv_dirty_bits_import(back, 0, 24, NULL);
    g_assert_cmpint(bdrv_dirty_bits_export(back, 0, 8, all), ==, BDRV_BITS_ONES);
    g_assert_cmpint(bdrv_dirty_bits_export(back, 8, 16, all), ==, BDRV_BITS_MIXED);
    g_assert_cmpuint(all[0], ==, 0x3f); /* 70 bits there are, and no more */
    g_assert_cmpuint(all[1], ==, 0);
}

static void test_other_lengths(void)
{
    g_autoptr(BdrvDirtyBits) bits = bdrv_dirty_bits_new(9, 70 * 512);
    bdrv_dirty_bits_set(bits, 0, 70 * 512);
    g_autoptr(BdrvDirtyBits) shorter = bdrv_dirty_bits_copy(bits, 65 * 512);
    g_autoptr(BdrvDirtyBits) longer = bdrv_dirty_bits_copy(shorter, 1000 * 512);
    int64_t at, bytes;

    g_assert_true(bdrv_dirty_bits_next(longer, 0, &at, &bytes));
    g_assert_true(at == 0 && bytes == 65 * 512);
    g_assert_false(bdrv_dirty_bits_next(longer, bytes, &at, &bytes));
    g_assert_cmpint(bdrv_dirty_bits_length(longer), ==, 1000 * 512);
}

int main(int argc, char **argv)
{
    const char *seed = g_getenv("BDRV_TEST_SEED");
    g_autofree char *seed_option = seed ? g_strdup_printf("--seed=%s", seed) : NULL;
    char *with_seed[] = { argv[0], seed_option, NULL };

    if (seed) {
        argc = 2;
        argv = with_seed;
    }
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dirty-bits/what was set is found again", test_random);
    g_test_add_func("/dirty-bits/a range begins where it is asked for and ends with the disk", test_begin);
    g_test_add_func("/dirty-bits/setting what is set changes nothing", test_changed);
    g_test_add_func("/dirty-bits/bytes are those of the format", test_bytes);
    g_test_add_func("/dirty-bits/a copy for another length keeps what it has room for", test_other_lengths);
    return g_test_run();
}
