/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <string.h>

#include "tests/lib/test-node.h"

static void coroutine_fn defaults(void)
{
    BlockExtent extent;
    uint8_t buf[512];
    BdrvChild *child = test_must_open("null-co", "", NULL);

    g_assert_cmpint(bdrv_co_getlength(child), ==, (int64_t)1 << 30);
    memset(buf, 0x77, sizeof(buf));
    g_assert_cmpint(bdrv_co_pread(child, 0, 512, buf, 0), ==, 0);
    g_assert_cmphex(buf[100], ==, 0x77); /* left as it is */
    g_assert_cmpint(bdrv_co_pwrite(child, 0, 512, buf, BDRV_REQ_FUA), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 0, 512, BDRV_REQ_NO_FALLBACK), ==, 0);
    g_assert_cmpint(bdrv_co_pdiscard(child, 0, 512), ==, 0);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_assert_cmpint(bdrv_co_get_allocated_file_size(child), ==, 0);
    g_assert_cmpint(bdrv_co_block_status(child, 0, 1000, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, EXTENT_DATA);
    g_assert_cmpint(extent.host_offset, ==, 0);
    test_close(child);
}

static void coroutine_fn zeroes(void)
{
    BlockExtent extent;
    uint8_t buf[512];
    BdrvChild *child = test_must_open("null-co", "size=4k,read-zeroes=on", NULL);

    g_assert_cmpint(bdrv_co_getlength(child), ==, 4096);
    memset(buf, 0x77, sizeof(buf));
    g_assert_cmpint(bdrv_co_pread(child, 3584, 512, buf, 0), ==, 0);
    g_assert_true(bdrv_buffer_is_zero(buf, 512));
    g_assert_cmpint(bdrv_co_block_status(child, 0, 1000, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, EXTENT_ZERO);
    test_close(child);
}

static void coroutine_fn latency(void)
{
    BdrvChild *child = test_must_open("null-co", "latency-ns=5000000", NULL);
    int64_t before = aio_clock_ns(aio_context_current());
    uint8_t buf[512];

    g_assert_cmpint(bdrv_co_pread(child, 0, 512, buf, 0), ==, 0);
    before = aio_clock_ns(aio_context_current()) - before; /* virtual time */
    g_assert_cmpint(before, >=, 5000000);
    g_assert_cmpint(before, <, 6000000);
    test_close(child);
}

static void coroutine_fn refusals(void)
{
    static const char *const table[] = { "latency-ns=-1", "size=-1",    "size=x",
                                         "read-zeroes=2", "nonsense=1", "filename=null-co://x" };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        GError *error = NULL;

        g_assert_null(test_open("null-co", table[i], NULL, BDRV_O_RDWR, &error));
        g_assert_error(error, BDRV_ERROR, EINVAL);
        g_clear_error(&error);
    }
}

static void run_test(gconstpointer data)
{
    test_run((void (*)(void))data);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/null-co/stores nothing and leaves buffers alone", (gconstpointer)defaults,
                         run_test);
    g_test_add_data_func("/null-co/reads zeroes if asked to", (gconstpointer)zeroes, run_test);
    g_test_add_data_func("/null-co/takes the time it is told", (gconstpointer)latency, run_test);
    g_test_add_data_func("/null-co/wrong options are refused", (gconstpointer)refusals, run_test);
    return g_test_run();
}
