/* SPDX-License-Identifier: MIT */
/* A GTest program of somebody else with <bdrv/testing.h>: each format in a stack whose disk fails and loses its power. */
#include <bdrv/testing.h>

static void test_format(gconstpointer text)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new((const char *)text);

    bdrv_test_write_pattern(stack, 4096, 8192, 0x61);
    bdrv_test_assert_ok(blk_flush(stack->blk));
    bdrv_test_inject_nth(stack, BDRV_SIM_FLUSH, 1, EIO);
    bdrv_test_write_pattern(stack, 65536, 4096, 0x62);
    bdrv_test_assert_fails(blk_flush(stack->blk), EIO);
    bdrv_test_power_loss(stack, 0);
    bdrv_test_assert_pattern(stack, 4096, 8192, 0x61);
    bdrv_test_assert_read(stack, 4096, 4, "aaaa");
    bdrv_test_write_pattern(stack, 65536, 4096, 0x63);
    bdrv_test_reopen(stack);
    bdrv_test_assert_pattern(stack, 65536, 4096, 0x63);
    bdrv_test_assert_zero(stack, 131072, 4096);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/faults/qcow2", "qcow2(size=1M,cluster_size=4k):simdisk", test_format);
    g_test_add_data_func("/faults/vdi", "vdi(size=1M):simdisk", test_format);
    g_test_add_data_func("/faults/raw", "raw:simdisk(size=1M)", test_format);
    return g_test_run();
}
