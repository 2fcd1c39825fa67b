/* SPDX-License-Identifier: MIT */
/* break, remove_break, wait_break, resume, sleep: requests in a chosen order */
#include "tools/io/io.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Requests stop and go on in the middle of commands: it is told when it happens. */
static void tell(void *opaque, const char *driver, const char *tag, bool suspended)
{
    printf("%s: %s request '%s'\n", driver, suspended ? "Suspended" : "Resuming", tag);
}

void io_tell_breaks(BdrvGraph *graph)
{
    bdrv_graph_set_debug_notify(graph, tell, NULL);
}

/* Requests in flight go on meanwhile; other threads may do something that the context does not see. */
static void run_for_ms(int64_t ms)
{
    AioContext *ctx = aio_context_current();
    struct pollfd pollfd = { .fd = aio_context_fd(ctx), .events = POLLIN };

    if (!aio_context_run(ctx, false)) {
        poll(&pollfd, 1, (int)MIN(ms, INT_MAX));
    }
}

int io_sleep(IoSession *session, int argc, char **argv)
{
    AioContext *ctx = aio_context_current();
    int64_t deadline, now;
    char *end;
    long ms;

    errno = 0;
    ms = strtol(argv[1], &end, 0);
    if (errno || end == argv[1] || *end || ms < 0) {
        printf("%s is not a valid number\n", argv[1]);
        return -EINVAL;
    }
    fflush(stdout);
    deadline = aio_clock_ns(ctx) + MIN(ms, INT64_MAX / 2000000) * INT64_C(1000000);
    while ((now = aio_clock_ns(ctx)) < deadline) {
        run_for_ms((deadline - now + 999999) / 1000000);
    }
    return 0;
}

int io_break(IoSession *session, int argc, char **argv)
{
    GError *error = NULL;
    int ret;

    if (blk_debug_breakpoint(session->blk, argv[1], argv[2], &error)) {
        return 0;
    }
    ret = -bdrv_error_code(error);
    printf("Could not set breakpoint: %s\n", strerror(-ret));
    tool_report(NULL, error);
    return ret;
}

int io_remove_break(IoSession *session, int argc, char **argv)
{
    int ret = blk_debug_remove_breakpoint(session->blk, argv[1]);

    if (ret < 0) {
        printf("Could not remove breakpoint %s: %s\n", argv[1], strerror(-ret));
    }
    return ret;
}

int io_resume(IoSession *session, int argc, char **argv)
{
    int ret = blk_debug_resume(session->blk, argv[1]);

    if (ret < 0) {
        printf("Could not resume request: %s\n", strerror(-ret));
    }
    return ret;
}

int io_wait_break(IoSession *session, int argc, char **argv)
{
    int suspended;

    fflush(stdout);
    while ((suspended = blk_debug_is_suspended(session->blk, argv[1])) == 0) {
        run_for_ms(10);
    }
    if (suspended < 0) {
        printf("Could not wait for breakpoint %s: %s\n", argv[1], strerror(-suspended));
        return suspended;
    }
    return 0;
}
