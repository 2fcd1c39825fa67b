/* SPDX-License-Identifier: MIT */
/* The ends of things while others are under way: handles, nodes, queues, threads. */
#include "tests/unit/backend/slow.h"

#include <errno.h>
#include <stdatomic.h>

static void must_close(BlockBackend *blk)
{
    GError *error = NULL;

    g_assert_true(blk_close(blk, &error));
    g_assert_no_error(error);
}

static void wait_until(_Atomic bool *there)
{
    while (!atomic_load(there)) {
        g_usleep(100);
    }
}

/* ---- closing ---- */

typedef struct Closing {
    BlockBackend *blk;
    _Atomic bool begun, done;
    pthread_t id;
} Closing;

static void *closing_thread(void *opaque)
{
    Closing *closing = opaque;

    atomic_store(&closing->begun, true);
    must_close(closing->blk);
    atomic_store(&closing->done, true);
    return NULL;
}

static void start_closing(Closing *closing, BlockBackend *blk)
{
    *closing = (Closing){ .blk = blk };
    g_assert_cmpint(pthread_create(&closing->id, NULL, closing_thread, closing), ==, 0);
    wait_until(&closing->begun);
}

static void test_close_waits_for_drains(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *base = slow_open(graph, "driver=slow,node-name=disk", BDRV_O_RDWR);
    BlockBackend *top = slow_open(graph, "driver=veil,file=disk", BDRV_O_RDWR);
    SlowState *slow = slow_state(graph, "disk");
    Closing closing;
    uint8_t byte = 1;

    g_assert_cmpint(blk_pwrite(top, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(blk_drain_begin(base), ==, 0);
    atomic_store(&slow->no_requests, true);
    start_closing(&closing, top);
    g_usleep(20000); /* long enough for a flush that does not wait to show; not needed to pass */
    g_assert_cmpuint(slow->flushes, ==, 0);
    g_assert_false(atomic_load(&closing.done));
    atomic_store(&slow->no_requests, false);
    blk_drain_end(base);
    pthread_join(closing.id, NULL);
    g_assert_cmpuint(slow->flushes, ==, 1);
    g_assert_cmpuint(slow->flushes_drained, ==, 0);
    must_close(base);
}

static void test_close_ends_own_drains(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *base = slow_open(graph, "driver=slow,node-name=disk", BDRV_O_RDWR);
    BlockBackend *top = slow_open(graph, "driver=veil,file=disk", 0);
    uint8_t byte;

    g_assert_cmpint(blk_drain_begin(top), ==, 0);
    g_assert_cmpint(blk_drain_begin(top), ==, 0);
    must_close(top);
    g_assert_cmpint(slow_state(graph, "disk")->drained, ==, 0);
    g_assert_cmpint(blk_pread(base, 0, 1, &byte, 0), ==, 0); /* its gate is open again */
    must_close(base);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    slow_register();
    g_test_add_func("/lifetime/closing waits for the drains of others", test_close_waits_for_drains);
    g_test_add_func("/lifetime/closing ends the handle's own drains", test_close_ends_own_drains);
    return g_test_run();
}
