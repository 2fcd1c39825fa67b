/* SPDX-License-Identifier: MIT */
/* A queue of more requests than there are stacks to run them on. */
#include "tests/unit/backend/slow.h"

#include <errno.h>
#include <sys/mman.h>

static bool no_stacks; /* from now on */

void *__real_mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);

void *__wrap_mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    if (no_stacks && (flags & MAP_STACK)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return __real_mmap64(address, bytes, protection, flags, fd, offset);
}

#define DEPTH 2000

static void test_starved(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=slow", 0);
    SlowState *slow = slow_state(graph, "slow");
    BlkQueue *queue = blk_queue_new(blk, DEPTH, NULL);
    BlkQueueCompletion completions[DEPTH];
    char buf[512];
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, sizeof(buf));
    unsigned done = 0, running;

    slow_hold(slow);
    for (unsigned i = 0; i < DEPTH; i++) {
        g_assert_true(blk_queue_submit(queue, &(BlkSubmission){ .op = BLK_OP_READ, .iov = &iov, .user_data = i }));
    }
    no_stacks = true;
    g_assert_cmpuint(blk_queue_ring(queue), ==, DEPTH);
    slow_run_until_idle();
    running = slow_holding(slow);
    g_assert_cmpuint(running, >, 0);
    g_assert_cmpuint(running, <, DEPTH);
    g_assert_cmpuint(blk_queue_reap(queue, completions, DEPTH), ==, 0); /* nobody failed: the others wait */
    slow_release(slow);
    while (done < DEPTH) {
        unsigned n = blk_queue_wait(queue, completions, DEPTH);

        g_assert_cmpuint(n, >, 0);
        for (unsigned i = 0; i < n; i++) {
            g_assert_cmpint(completions[i].result, ==, 0);
        }
        done += n;
    }
    no_stacks = false;
    g_assert_cmpint(blk_queue_free(queue), ==, 0);
    g_assert_true(blk_close(blk, NULL));
}

/* ---- callbacks ---- */

typedef struct Ends {
    unsigned ok, starved;
} Ends;

static void has_ended(void *opaque, int ret)
{
    Ends *ends = opaque;

    ends->ok += ret == 0;
    ends->starved += ret == -ENOMEM;
}

static void submit(BlockBackend *blk, const BdrvIov *iov, unsigned count, Ends *ends)
{
    for (unsigned i = 0; i < count; i++) {
        g_assert_nonnull(blk_aio_preadv(blk, 0, iov, 0, has_ended, ends));
    }
}

static void run_until_ended(const unsigned *ended, unsigned count)
{
    while (*ended < count) {
        aio_context_run(aio_context_current(), true);
    }
}

static void test_callbacks(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=slow", 0);
    BlockBackend *other = slow_open(graph, "driver=veil,file=slow", 0);
    SlowState *slow = slow_state(graph, "slow");
    char buf[512];
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, sizeof(buf));
    Ends ends = { 0 }, others = { 0 };

    slow_hold(slow);
    no_stacks = true;
    submit(blk, &iov, DEPTH, &ends);
    slow_run_until_idle();
    g_assert_cmpuint(slow_holding(slow), >, 0);
    g_assert_cmpuint(slow_holding(slow), <, DEPTH);
    submit(other, &iov, 1, &others); /* has none to wait for */
    run_until_ended(&others.starved, 1);
    slow_release(slow);
    run_until_ended(&ends.ok, DEPTH);
    g_assert_cmpuint(ends.starved, ==, 0);
    no_stacks = false;
    g_assert_true(blk_close(other, NULL));
    g_assert_true(blk_close(blk, NULL));
}

static void test_close(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=slow", 0);
    SlowState *slow = slow_state(graph, "slow");
    char buf[512];
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, sizeof(buf));
    Ends ends = { 0 };

    slow_hold(slow);
    no_stacks = true;
    submit(blk, &iov, DEPTH, &ends);
    no_stacks = false; /* closing wants one, too */
    slow_release(slow);
    g_assert_true(blk_close(blk, NULL));
    g_assert_cmpuint(ends.ok, ==, 0);
    run_until_ended(&ends.ok, DEPTH);
    g_assert_cmpuint(ends.starved, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    slow_register();
    g_test_add_func("/starved/what has no stack waits for one", test_starved);
    g_test_add_func("/starved/a request with a callback waits for one of its handle", test_callbacks);
    g_test_add_func("/starved/closing a handle waits for who waits for a stack", test_close);
    return g_test_run();
}
