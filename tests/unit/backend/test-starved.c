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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    slow_register();
    g_test_add_func("/starved/what has no stack waits for one", test_starved);
    return g_test_run();
}
