/* SPDX-License-Identifier: MIT */
/* cache.drop-behind=auto: which way writes are made, given what each took. */

#include "drivers/file-posix/drop.h"

#include <bdrv/bdrv.h>
#include <glib.h>

#define MIB (INT64_C(1) << 20)

static void start(FileDrop *drop)
{
    file_drop_init(drop, BDRV_O_DROP_AUTO);
}

/* Writes of 1 MiB in the way that is chosen, each taking @us; returns how many there were before the way changed. */
static int write_until_change(FileDrop *drop, int us, int at_most)
{
    FileDropWay way = file_drop_way(drop);
    int writes = 0;

    while (writes < at_most && file_drop_way(drop) == way) {
        file_drop_note(drop, way, MIB, us * INT64_C(1000));
        writes++;
    }
    return writes;
}

static void test_both_are_tried(void)
{
    FileDrop drop;

    start(&drop);
    g_assert_cmpint(file_drop_way(&drop), ==, FILE_DROP_PAGES);
    g_assert_cmpint(write_until_change(&drop, 300, 100), ==, 32);
    g_assert_cmpint(file_drop_way(&drop), ==, FILE_KEEP_PAGES);
    file_drop_destroy(&drop);
}

static void test_keeping_lasts_while_cheaper(void)
{
    FileDrop drop;

    start(&drop);
    write_until_change(&drop, 300, 100);
    g_assert_cmpint(write_until_change(&drop, 299, 400), ==, 400);
    file_drop_destroy(&drop);
}

static void test_keeping_ends_early(void)
{
    FileDrop drop;

    start(&drop);
    write_until_change(&drop, 300, 100);
    g_assert_cmpint(write_until_change(&drop, 1000, 100), ==, 10); /* what 33 writes of 300 us take */
    g_assert_cmpint(file_drop_way(&drop), ==, FILE_DROP_PAGES);
    g_assert_cmpint(write_until_change(&drop, 300, 10000), ==, 10000);
    file_drop_destroy(&drop);
}

static void test_keeping_that_becomes_dear_ends(void)
{
    FileDrop drop;

    start(&drop);
    write_until_change(&drop, 300, 100);
    write_until_change(&drop, 200, 64);
    g_assert_cmpint(file_drop_way(&drop), ==, FILE_KEEP_PAGES);
    g_assert_cmpint(write_until_change(&drop, 2000, 100), <=, 32);
    g_assert_cmpint(file_drop_way(&drop), ==, FILE_DROP_PAGES);
    file_drop_destroy(&drop);
}

static void test_dropping_may_cost_a_tenth_more(void)
{
    FileDrop drop;

    start(&drop);
    write_until_change(&drop, 300, 100);
    write_until_change(&drop, 1000, 100);
    g_assert_cmpint(write_until_change(&drop, 1095, 320), ==, 320);
    g_assert_cmpint(write_until_change(&drop, 1300, 320), <, 320);
    g_assert_cmpint(file_drop_way(&drop), ==, FILE_KEEP_PAGES);
    file_drop_destroy(&drop);
}

static void test_dropping_gets_another_chance(void)
{
    FileDrop drop;

    start(&drop);
    write_until_change(&drop, 5000, 100); /* a bad moment of the disk */
    g_assert_cmpint(write_until_change(&drop, 1000, 10000), ==, 16 * 32);
    g_assert_cmpint(write_until_change(&drop, 5000, 100), ==, 32);
    g_assert_cmpint(write_until_change(&drop, 1000, 10000), ==, 32 * 32);
    g_assert_cmpint(write_until_change(&drop, 300, 10000), ==, 10000);
    g_assert_cmpint(file_drop_way(&drop), ==, FILE_DROP_PAGES);
    file_drop_destroy(&drop);
}

static void test_stragglers_do_not_count(void)
{
    FileDrop drop;

    start(&drop);
    write_until_change(&drop, 300, 100);
    file_drop_note(&drop, FILE_DROP_PAGES, MIB, INT64_C(1000000000));
    g_assert_cmpint(write_until_change(&drop, 299, 100), ==, 100);
    file_drop_destroy(&drop);
}

static void test_on_and_off_are_not_weighed(void)
{
    FileDrop drop;

    file_drop_init(&drop, BDRV_O_DROP_BEHIND);
    g_assert_cmpint(file_drop_way(&drop), ==, FILE_DROP_PAGES);
    file_drop_set_mode(&drop, 0);
    g_assert_cmpint(file_drop_way(&drop), ==, FILE_KEEP_PAGES);
    file_drop_destroy(&drop);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/file/drop/both ways are tried, dropping first", test_both_are_tried);
    g_test_add_func("/file/drop/pages are kept while that is cheaper", test_keeping_lasts_while_cheaper);
    g_test_add_func("/file/drop/keeping ends when it has cost what a window of dropping does", test_keeping_ends_early);
    g_test_add_func("/file/drop/keeping that becomes dear ends", test_keeping_that_becomes_dear_ends);
    g_test_add_func("/file/drop/dropping may cost a tenth more", test_dropping_may_cost_a_tenth_more);
    g_test_add_func("/file/drop/dropping gets another chance, ever more rarely", test_dropping_gets_another_chance);
    g_test_add_func("/file/drop/stragglers of the other way do not count", test_stragglers_do_not_count);
    g_test_add_func("/file/drop/on and off are not weighed", test_on_and_off_are_not_weighed);
    return g_test_run();
}
