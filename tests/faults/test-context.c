/* SPDX-License-Identifier: MIT */
/* What an event loop context, its service thread and coroutines need from the system, and what comes of not getting it. */

#include <bdrv/aio.h>
#include <bdrv/bdrv.h>
#include <bdrv/coroutine.h>

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/loop/context.h"
#include "tests/faults/hooks.h"

static unsigned count_fds(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void test_context(void)
{
    unsigned before = count_fds(), nth = 1;
    for (;; nth++) {
        GError *error = NULL;
        hooks_arm(HOOK_POLL, nth, 1, EMFILE);
        AioContext *ctx = aio_context_new(&error);
        bool failed = hooks_failed() > 0;
        hooks_disarm();
        g_assert_true(failed == !ctx);
        if (ctx) {
            aio_context_unref(ctx);
            break;
        }
        g_assert_error(error, BDRV_ERROR, EMFILE);
        g_assert_nonnull(strstr(error->message, "event loop context"));
        g_error_free(error);
        g_assert_cmpuint(count_fds(), ==, before);
    }
    g_assert_cmpuint(nth, ==, 4); /* epoll set, eventfd, and adding it */
}

static void test_fd_of_context(void)
{
    AioContext *ctx = aio_context_new(NULL);
    unsigned before = count_fds();

    for (unsigned nth = 1; nth <= 2; nth++) { /* timerfd, and adding it */
        hooks_arm(HOOK_POLL, nth, 1, EMFILE);
        g_assert_cmpint(aio_context_fd(ctx), ==, -EMFILE);
        hooks_disarm();
        g_assert_cmpuint(count_fds(), ==, before);
    }
    g_assert_cmpint(aio_context_fd(ctx), >=, 0);
    aio_context_unref(ctx);
}

static void on_readable(void *opaque)
{
}

static void test_handler(void)
{
    AioContext *ctx = aio_context_new(NULL);
    int fds[2];

    g_assert_cmpint(pipe(fds), ==, 0);
    hooks_arm(HOOK_POLL, 1, 1, ENOMEM);
    g_assert_cmpint(aio_set_fd_handler(ctx, fds[0], on_readable, NULL, NULL), ==, -ENOMEM);
    hooks_disarm();
    g_assert_cmpint(aio_set_fd_handler(ctx, fds[0], on_readable, NULL, NULL), ==, 0);
    g_assert_cmpint(aio_set_fd_handler(ctx, fds[0], NULL, NULL, NULL), ==, 0);
    close(fds[0]);
    close(fds[1]);
    aio_context_unref(ctx);
}

/* ---- stacks ---- */

static void do_nothing(void *opaque)
{
}

static gpointer thread_without_stacks(gpointer opaque)
{
    for (unsigned nth = 1; nth <= 2; nth++) { /* mmap, mprotect */
        hooks_arm(HOOK_STACK, nth, 1, ENOMEM);
        Coroutine *co = co_try_new(do_nothing, NULL); /* the pool of a new thread is empty */
        g_assert_cmpuint(hooks_failed(), ==, 1);
        hooks_disarm();
        g_assert_null(co);
    }
    hooks_arm(HOOK_STACK, 1, 1, ENOMEM);
    g_assert_cmpint(co_run_blocking(do_nothing, NULL), ==, -ENOMEM);
    hooks_disarm();
    g_assert_cmpint(co_run_blocking(do_nothing, NULL), ==, 0);
    return NULL;
}

static void test_stack(void)
{
    g_thread_join(g_thread_new("stacks", thread_without_stacks, NULL));
}

/* ---- the service thread ---- */

#define WRITES 256

static BlockBackend *create_and_open(BdrvGraph *graph, const char *path)
{
    for (unsigned tries = 0; tries < 3; tries++) { /* a worker thread that cannot be started may be the reason */
        BdrvOptions *options = bdrv_options_parse("size=4M,cluster_size=512", NULL, NULL);
        BlockBackend *blk = bdrv_create_image(graph, "qcow2", path, options, NULL)
                                ? blk_open(graph, path, NULL, BDRV_O_RDWR, NULL) : NULL;
        if (blk) {
            return blk;
        }
    }
    g_error("no image");
}

/* Allocating writes until a commit in the background has begun, in a process that has no service thread yet. */
static bool write_with_failing_thread(const char *path, unsigned nth)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    GError *error = NULL;
    uint8_t data[4096], back[4096];
    hooks_arm(HOOK_THREAD, nth, 1, EAGAIN);
    BlockBackend *blk = create_and_open(graph, path);
    for (unsigned i = 0; i < WRITES; i++) {
        memset(data, (int)(i % 250 + 1), sizeof(data));
        int ret = blk_pwrite(blk, i * 8192, sizeof(data), data, 0);
        ret = ret < 0 ? blk_pwrite(blk, i * 8192, sizeof(data), data, 0) : ret; /* the rule fails one call only */
        g_assert_cmpint(ret, >=, 0);
    }
    aio_service_context(); /* at the latest now it starts, or cannot */
    bool failed = hooks_failed() > 0;
    hooks_disarm();
    g_assert_true(aio_service_context() != aio_context_current());
    g_assert_cmpint(blk_flush(blk), >=, 0);
    for (unsigned i = 0; i < WRITES; i++) {
        g_assert_cmpint(blk_pread(blk, i * 8192, sizeof(back), back, 0), >=, 0);
        g_assert_cmpuint(back[17], ==, i % 250 + 1);
    }
    BdrvCheckResult result = { 0 };
    g_assert_true(blk_check(blk, &result, BDRV_FIX_NONE, &error));
    g_assert_cmpint(result.corruptions + result.check_errors, ==, 0);
    g_assert_true(blk_close(blk, &error));
    return failed;
}

/* Each in a process of its own, since a service thread stays. Before any other test: forking wants no threads. */
static void test_service_thread(void)
{
    const char *dir = g_getenv("BDRV_TEST_DIR");
    g_autofree char *path = g_strdup_printf("%s/faults-service-%d.qcow2", dir ? dir : g_get_tmp_dir(), (int)getpid());
    unsigned failed = 0;

    for (unsigned nth = 1; nth <= 64; nth++) {
        int status;
        pid_t pid = fork();
        g_assert_cmpint(pid, >=, 0);
        if (pid == 0) {
            _exit(write_with_failing_thread(path, nth) ? 7 : 0);
        }
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        g_unlink(path);
        g_assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 0) {
            break;
        }
        g_assert_cmpint(WEXITSTATUS(status), ==, 7);
        failed++;
    }
    g_test_message("%u threads failed to start", failed);
    g_assert_cmpuint(failed, >=, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/faults/context/an image is whole whichever thread cannot be started", test_service_thread);
    g_test_add_func("/faults/context/one that cannot be made says so and leaves nothing open", test_context);
    g_test_add_func("/faults/context/no timer descriptor is an error of the fd to poll", test_fd_of_context);
    g_test_add_func("/faults/context/a handler that cannot be set can be set later", test_handler);
    g_test_add_func("/faults/context/no memory for a stack is no coroutine", test_stack);
    return g_test_run();
}
