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

/* A node that the core works on, with a root edge and no handle */
static void coroutine_fn write_and_detach(void *opaque)
{
    BlockDriverState *bs = opaque;
    SlowState *slow = bs->opaque;
    BdrvEdge *edge = bdrv_root_attach(bs, NULL, "test", BDRV_RIGHT_CONSISTENT_READ | BDRV_RIGHT_WRITE,
                                      BDRV_RIGHTS_ALL, NULL);
    uint8_t byte = 1;

    g_assert_nonnull(edge);
    g_assert_cmpint(bdrv_co_pwrite(&edge->child, 0, 1, &byte, 0), ==, 0);
    slow->flush_result = -EDQUOT;
    slow->close_result = -EIO;
    g_assert_cmpint(bdrv_co_root_detach(edge), ==, -EDQUOT); /* that it was called is seen by what it says */
}

static void test_node_close_flushes(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", BDRV_O_RDWR);
    BlockDriverState *bs = bdrv_graph_find_ref(graph, "disk");

    must_close(blk);
    g_assert_cmpint(co_run_blocking(write_and_detach, bs), ==, 0);
    g_assert_null(bdrv_graph_find(graph, "disk"));
}

/* ---- queues ---- */

typedef struct QueueFree {
    BlkQueue *queue;
    int ret, calls;
} QueueFree;

static void free_in_callback(void *opaque, int unused)
{
    QueueFree *attempt = opaque;

    attempt->ret = blk_queue_free(attempt->queue);
    attempt->calls++;
}

static void coroutine_fn free_in_coroutine(void *opaque)
{
    free_in_callback(opaque, 0);
}

static void test_queue_free_refused(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", 0);
    SlowState *slow = slow_state(graph, "disk");
    QueueFree busy = { blk_queue_new(blk, 4, NULL), 0, 0 }, idle = { blk_queue_new(blk, 4, NULL), -1, 0 };
    BlkQueueCompletion done;
    uint8_t byte;
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, &byte, 1);

    slow_hold(slow);
    g_assert_true(blk_queue_submit(busy.queue, &(BlkSubmission){ .op = BLK_OP_READ, .iov = &iov, .user_data = 7 }));
    blk_queue_ring(busy.queue);
    blk_aio_flush(blk, free_in_callback, &busy);
    blk_aio_flush(blk, free_in_callback, &idle);
    slow_run_until_idle();
    g_assert_cmpint(busy.calls, ==, 1);
    g_assert_cmpint(busy.ret, ==, -EDEADLK);
    g_assert_cmpint(idle.calls, ==, 1);
    g_assert_cmpint(idle.ret, ==, 0); /* nothing to wait for */
    co_enter(co_new(free_in_coroutine, &busy));
    g_assert_cmpint(busy.ret, ==, -EDEADLK);

    slow_release(slow); /* the queue is as it was */
    g_assert_cmpuint(blk_queue_wait(busy.queue, &done, 1), ==, 1);
    g_assert_cmpuint(done.user_data, ==, 7);
    g_assert_cmpint(done.result, ==, 0);
    g_assert_cmpint(blk_queue_free(busy.queue), ==, 0);
    g_assert_cmpint(blk_queue_free(NULL), ==, 0);
    must_close(blk);
}

/* ---- threads ---- */

typedef struct Leaver {
    BlockBackend *blk;
    BdrvIov iov;
    _Atomic unsigned calls;
    GThread *called_in, *self;
} Leaver;

static void count_callback(void *opaque, int ret)
{
    Leaver *leaver = opaque;

    g_assert_cmpint(ret, ==, 0);
    leaver->called_in = g_thread_self();
    atomic_fetch_add(&leaver->calls, 1);
}

static void *leaving_thread(void *opaque)
{
    Leaver *leaver = opaque;

    leaver->self = g_thread_self();
    g_assert_nonnull(blk_aio_preadv(leaver->blk, 0, &leaver->iov, 0, count_callback, leaver));
    g_assert_nonnull(blk_aio_flush(leaver->blk, count_callback, leaver));
    return NULL;
}

static void test_thread_ends_with_requests(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", 0);
    SlowState *slow = slow_state(graph, "disk");
    uint8_t buf[16];
    struct iovec vec;
    Leaver leaver = { .blk = blk, .iov = BDRV_IOV_BUF(vec, buf, sizeof(buf)) };

    for (int i = 0; i < 2; i++) { /* the second one gets the place of the first */
        pthread_t id;

        slow_hold(slow);
        atomic_store(&leaver.calls, 0);
        g_assert_cmpint(pthread_create(&id, NULL, leaving_thread, &leaver), ==, 0);
        while (slow_holding(slow) == 0) {
            g_usleep(100);
        }
        slow_release(slow);
        pthread_join(id, NULL);
        g_assert_cmpuint(leaver.calls, ==, 2);
        g_assert_true(leaver.called_in == leaver.self);
    }
    must_close(blk);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    slow_register();
    g_test_add_func("/lifetime/closing waits for the drains of others", test_close_waits_for_drains);
    g_test_add_func("/lifetime/closing ends the handle's own drains", test_close_ends_own_drains);
    g_test_add_func("/lifetime/a node closed without a handle is flushed", test_node_close_flushes);
    g_test_add_func("/lifetime/a queue with requests is not freed in a callback", test_queue_free_refused);
    g_test_add_func("/lifetime/a thread ends after its requests", test_thread_ends_with_requests);
    return g_test_run();
}
