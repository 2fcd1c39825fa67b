/* SPDX-License-Identifier: MIT */
/* The flavours of I/O of a BlockBackend. */
#include "tests/unit/backend/slow.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>

static void must_close(BlockBackend *blk)
{
    GError *error = NULL;

    g_assert_true(blk_close(blk, &error));
    g_assert_no_error(error);
}

/* ---- ranges ---- */

static const struct {
    int64_t offset, bytes;
    int ret;
} ranges[] = {
    { 0, 512, 0 },
    { SLOW_BYTES - 1, 1, 0 },
    { SLOW_BYTES, 0, 0 },
    { SLOW_BYTES, 1, -EIO },
    { SLOW_BYTES - 1, 2, -EIO },
    { SLOW_BYTES + 1, 0, -EIO },
    { -1, 1, -EIO },
    { 0, -1, -EIO },
    { INT64_MAX, 1, -EIO },
    { INT64_MAX, INT64_MAX, -EIO },
    { INT64_MIN, 1, -EIO },
};

static void test_ranges(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow", BDRV_O_RDWR);
    uint8_t buf[512] = { 0 };

    for (unsigned i = 0; i < G_N_ELEMENTS(ranges); i++) {
        int64_t offset = ranges[i].offset, bytes = ranges[i].bytes;

        g_test_message("%" G_GINT64_FORMAT " %" G_GINT64_FORMAT, offset, bytes);
        if (bytes <= 512) {
            g_assert_cmpint(blk_pread(blk, offset, bytes, buf, 0), ==, ranges[i].ret);
            g_assert_cmpint(blk_pwrite(blk, offset, bytes, buf, 0), ==, ranges[i].ret);
        }
        g_assert_cmpint(blk_pwrite_zeroes(blk, offset, bytes, 0), ==, ranges[i].ret);
        g_assert_cmpint(blk_pdiscard(blk, offset, bytes), ==, ranges[i].ret);
    }
    must_close(blk);
}

/* ---- blocking calls where they are not allowed ---- */

typedef struct Refusal {
    BdrvGraph *graph;
    BlockBackend *blk;
    int pread, drain, calls;
    bool open_refused, truncate_refused, close_refused, measure_refused;
} Refusal;

static void try_blocking(Refusal *refusal)
{
    GError *error = NULL;
    uint8_t byte;

    refusal->calls++;
    refusal->pread = blk_pread(refusal->blk, 0, 1, &byte, 0);
    refusal->drain = blk_drain_begin(refusal->blk);
    refusal->open_refused = !blk_open(refusal->graph, "null-co://", bdrv_options_new(), 0, &error) &&
                            g_error_matches(error, BDRV_ERROR, EDEADLK);
    g_clear_error(&error);
    refusal->truncate_refused = !blk_truncate(refusal->blk, 512, true, 0, 0, &error) &&
                                g_error_matches(error, BDRV_ERROR, EDEADLK);
    g_clear_error(&error);
    refusal->close_refused = !blk_close(refusal->blk, &error) && g_error_matches(error, BDRV_ERROR, EDEADLK);
    g_clear_error(&error);
    refusal->measure_refused = !bdrv_measure_image("qcow2", bdrv_options_new(), refusal->blk, &(BdrvMeasure){ 0 }, &error) &&
                               g_error_matches(error, BDRV_ERROR, EDEADLK);
    g_clear_error(&error);
}

static void refusal_check(const Refusal *refusal)
{
    g_assert_cmpint(refusal->calls, ==, 1);
    g_assert_cmpint(refusal->pread, ==, -EDEADLK);
    g_assert_cmpint(refusal->drain, ==, -EDEADLK);
    g_assert_true(refusal->open_refused);
    g_assert_true(refusal->truncate_refused);
    g_assert_true(refusal->close_refused);
    g_assert_true(refusal->measure_refused);
}

static void blocking_callback(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 0);
    try_blocking(opaque);
}

static void coroutine_fn blocking_coroutine(void *opaque)
{
    try_blocking(opaque);
}

static void test_blocking_refused(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow", BDRV_O_RDWR);
    Refusal in_callback = { .graph = graph, .blk = blk }, in_coroutine = in_callback;

    blk_aio_flush(blk, blocking_callback, &in_callback);
    slow_run_until_idle();
    refusal_check(&in_callback);
    co_enter(co_new(blocking_coroutine, &in_coroutine));
    refusal_check(&in_coroutine);
    must_close(blk);
}

/* ---- measuring ---- */

static const struct {
    const char *format, *options;
    int error; /* 0: measured */
} measures[] = {
    { "qcow2", "size=1G", 0 },
    { "raw", "size=1G", 0 },
    { "qcow2", "", EINVAL }, /* no size */
    { "qcow2", "size=1G,nonsense=1", EINVAL },
    { "qcow2", "size=1G,cluster_size=3", EINVAL },
    { "qcow2", "size=4E", EFBIG },
    { "raw", "size=9223372036854775807", EFBIG },
    { "null-co", "size=1G", ENOTSUP },
    { "nonsense", "size=1G", ENOENT },
};

static void test_measure(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(measures); i++) {
        BdrvMeasure measure = { -7, -7, -7 };
        GError *error = NULL;
        bool ok = bdrv_measure_image(measures[i].format, bdrv_options_parse(measures[i].options, NULL, NULL), NULL,
                                     &measure, &error);

        g_test_message("%s %s", measures[i].format, measures[i].options);
        g_assert_cmpint(ok, ==, measures[i].error == 0);
        if (ok) {
            g_assert_cmpint(measure.fully_allocated, >=, 1 << 30);
            g_assert_cmpint(measure.bitmaps, ==, -1);
        } else {
            g_assert_true(g_error_matches(error, BDRV_ERROR, measures[i].error));
            g_assert_cmpint(measure.required, ==, -7);
            g_error_free(error);
        }
    }
}

/* ---- callbacks ---- */

typedef struct Count {
    int calls, ret;
} Count;

static void count_callback(void *opaque, int ret)
{
    Count *count = opaque;

    count->calls++;
    count->ret = ret;
}

static void test_callback_not_nested(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow", 0);
    Count count = { 0 };
    uint8_t byte;

    blk_aio_flush(blk, count_callback, &count);
    g_assert_cmpint(count.calls, ==, 0); /* not inside the submission */
    g_assert_cmpint(blk_pread(blk, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(count.calls, ==, 0); /* nor inside a blocking call */
    slow_run_until_idle();
    g_assert_cmpint(count.calls, ==, 1);
    blk_aio_flush(blk, count_callback, &count);
    must_close(blk);
    g_assert_cmpint(count.calls, ==, 1);
    slow_run_until_idle(); /* it comes even after the handle is gone */
    g_assert_cmpint(count.calls, ==, 2);
}

static void test_cancel(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", 0);
    SlowState *slow = slow_state(graph, "disk");
    Count started = { 0 }, parked = { 0 }, done = { 0 };
    BlkRequest *request;
    uint8_t buf[16];
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, sizeof(buf));

    slow_hold(slow);
    request = blk_aio_preadv(blk, 0, &iov, 0, count_callback, &started);
    blk_aio_cancel(request); /* with the driver: runs to its end */
    blk_aio_cancel(request);
    slow_run_until_idle();
    g_assert_cmpint(started.calls, ==, 0);
    slow_release(slow);
    slow_run_until_idle();
    g_assert_cmpint(started.calls, ==, 1);
    g_assert_cmpint(started.ret, ==, 0);

    g_assert_cmpint(blk_drain_begin(blk), ==, 0);
    request = blk_aio_preadv(blk, 0, &iov, 0, count_callback, &parked);
    blk_aio_cancel(request);
    blk_aio_cancel(request);
    slow_run_until_idle();
    g_assert_cmpint(parked.calls, ==, 1);
    g_assert_cmpint(parked.ret, ==, -ECANCELED);
    blk_drain_end(blk);

    request = blk_aio_preadv(blk, 0, &iov, 0, count_callback, &done);
    blk_aio_cancel(request); /* finished, only its callback is due */
    slow_run_until_idle();
    g_assert_cmpint(done.calls, ==, 1);
    g_assert_cmpint(done.ret, ==, 0);
    must_close(blk);
}

typedef struct Resubmit {
    BlockBackend *blk;
    unsigned left, nested, depth;
} Resubmit;

static void resubmit(void *opaque, int ret)
{
    Resubmit *again = opaque;

    g_assert_cmpint(ret, ==, 0);
    again->depth++;
    again->nested = MAX(again->nested, again->depth);
    if (again->left-- > 1) {
        blk_aio_flush(again->blk, resubmit, again);
    }
    again->depth--;
}

static void test_resubmission(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow", 0);
    Resubmit again = { .blk = blk, .left = 1000 };
    Count many = { 0 };

    blk_aio_flush(blk, resubmit, &again);
    slow_run_until_idle();
    g_assert_cmpuint(again.left, ==, 0);
    g_assert_cmpuint(again.nested, ==, 1);
    for (unsigned i = 0; i < 500; i++) { /* more than complete inside their submission */
        blk_aio_flush(blk, count_callback, &many);
    }
    slow_run_until_idle();
    g_assert_cmpint(many.calls, ==, 500);
    must_close(blk);
}

static void coroutine_fn submit_inside(void *opaque)
{
    Resubmit *again = opaque;

    blk_aio_flush(again->blk, resubmit, again);
}

static void test_submission_in_coroutine(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow", 0);
    Resubmit again = { .blk = blk, .left = 3 };

    co_enter(co_new(submit_inside, &again));
    slow_run_until_idle();
    g_assert_cmpuint(again.left, ==, 0);
    must_close(blk);
}

/* ---- flags, closing ---- */

static void test_writethrough(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", BDRV_O_RDWR | BDRV_O_WRITETHROUGH);
    SlowState *slow = slow_state(graph, "disk");
    uint8_t byte = 0;

    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpuint(slow->fua_writes, ==, 1);
    blk_set_writethrough(blk, false);
    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpuint(slow->fua_writes, ==, 1);
    must_close(blk);
    blk = slow_open(graph, "driver=slow,node-name=disk,cache.writeback=off", BDRV_O_RDWR);
    slow = slow_state(graph, "disk");
    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpuint(slow->fua_writes, ==, 1);
    must_close(blk);
}

static void test_close_errors(void)
{
    static const struct {
        int flush, close;
        int code;
        const char *what;
    } cases[] = {
        { -EIO, 0, EIO, "flushing" },
        { 0, -ENOSPC, ENOSPC, "closing" },
        { -EIO, -ENOSPC, EIO, "flushing" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(BdrvGraph) graph = bdrv_graph_new();
        BlockBackend *blk = slow_open(graph, "driver=shape,file.driver=slow,file.node-name=disk", BDRV_O_RDWR);
        SlowState *slow = slow_state(graph, "disk");
        GError *error = NULL;
        uint8_t byte = 0;

        g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, 0);
        slow->flush_result = cases[i].flush;
        slow->close_result = cases[i].close;
        g_assert_false(blk_close(blk, &error));
        g_assert_error(error, BDRV_ERROR, cases[i].code);
        g_assert_nonnull(strstr(error->message, cases[i].what));
        g_clear_error(&error);
        g_assert_null(bdrv_graph_find(graph, "disk"));
    }
}

static void test_read_only(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", 0);
    GError *error = NULL;
    uint8_t byte = 0;

    g_assert_true(blk_is_read_only(blk));
    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, -EPERM);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 1, 0), ==, -EPERM);
    g_assert_false(blk_truncate(blk, 0, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_error(error, BDRV_ERROR, EACCES);
    g_clear_error(&error);
    must_close(blk);
}

static void test_layers(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=veil,file.driver=shape,file.node-name=top,file.file.driver=slow,"
                                         "file.backing.driver=veil,file.backing.node-name=base,"
                                         "file.backing.file.driver=slow", 0);
    BdrvLayer layer;

    g_assert_cmpstr(blk_driver(blk), ==, "veil");
    g_assert_true(blk_layer(blk, 0, &layer));
    g_assert_cmpstr(layer.node_name, ==, "top");
    g_assert_cmpstr(layer.driver, ==, "shape");
    g_assert_cmpint(layer.length, ==, SLOW_BYTES);
    g_assert_true(blk_layer(blk, 1, &layer));
    g_assert_cmpstr(layer.node_name, ==, "base");
    g_assert_cmpstr(layer.driver, ==, "veil"); /* right on a protocol: it is the layer */
    g_assert_false(blk_layer(blk, 2, &layer));
    g_assert_null(blk_layer_specific_info(blk, 2));
    must_close(blk);
}

static void test_copy(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *from = slow_open(graph, "driver=slow,node-name=from", 0);
    BlockBackend *to = slow_open(graph, "driver=slow,node-name=to", BDRV_O_RDWR);

    g_assert_cmpint(blk_copy_range(from, 0, to, 4096, 8192, 0), ==, 0);
    g_assert_cmpuint(slow_state(graph, "from")->reads, >, 0);
    g_assert_cmpuint(slow_state(graph, "to")->writes, >, 0);
    g_assert_cmpint(blk_copy_range(to, 0, to, 4096, 4096, 0), ==, 0);
    g_assert_cmpint(blk_copy_range(from, 0, to, SLOW_BYTES, 1, 0), ==, -EIO);
    g_assert_cmpint(blk_copy_range(from, SLOW_BYTES, to, 0, 1, 0), ==, -EIO);
    must_close(from);
    must_close(to);
}

static void test_truncate_rights(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", BDRV_O_RDWR);
    SlowState *slow = slow_state(graph, "disk");
    GError *error = NULL;

    g_assert_true(blk_truncate(blk, SLOW_BYTES / 2, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_no_error(error);
    g_assert_cmphex(slow->used_in_truncate, ==,
                    BDRV_RIGHT_CONSISTENT_READ | BDRV_RIGHT_WRITE | BDRV_RIGHT_RESIZE);
    g_assert_cmphex(slow->used, ==, BDRV_RIGHT_CONSISTENT_READ | BDRV_RIGHT_WRITE);
    g_assert_cmpint(slow->drained, ==, 0);
    g_assert_cmpint(blk_length(blk), ==, SLOW_BYTES / 2);
    g_assert_false(blk_truncate(blk, -1, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_error(error, BDRV_ERROR, EINVAL);
    g_clear_error(&error);
    must_close(blk);
}

/* ---- queue ---- */

static void test_queue_order_and_depth(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", 0);
    SlowState *slow = slow_state(graph, "disk");
    BlkQueue *queue = blk_queue_new(blk, 5, NULL);
    BlkQueueCompletion done[8];
    uint8_t buf[16];
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, sizeof(buf));
    BlkSubmission read = { .op = BLK_OP_READ, .iov = &iov };

    for (unsigned i = 0; i < 5; i++) {
        read.user_data = i;
        read.offset = i == 3 ? SLOW_BYTES : 0;
        g_assert_true(blk_queue_submit(queue, &read));
    }
    g_assert_false(blk_queue_submit(queue, &read));
    g_assert_cmpuint(slow->reads, ==, 0); /* not before the ring */
    g_assert_cmpuint(blk_queue_ring(queue), ==, 5);
    g_assert_cmpuint(blk_queue_ring(queue), ==, 0);
    g_assert_cmpuint(slow->reads, ==, 4);
    g_assert_false(blk_queue_submit(queue, &read)); /* complete, but not reaped */
    g_assert_cmpuint(blk_queue_reap(queue, done, 2), ==, 2);
    g_assert_cmpuint(blk_queue_reap(queue, done + 2, 6), ==, 3);
    for (unsigned i = 0; i < 5; i++) {
        g_assert_cmpuint(done[i].user_data, ==, i);
        g_assert_cmpint(done[i].result, ==, i == 3 ? -EIO : 0);
    }
    g_assert_cmpuint(blk_queue_reap(queue, done, 8), ==, 0);
    g_assert_cmpuint(blk_queue_wait(queue, done, 8), ==, 0);

    /* One that waits does not hold up the others. */
    slow_hold(slow);
    read.offset = 0;
    read.user_data = 10;
    g_assert_true(blk_queue_submit(queue, &read));
    g_assert_true(blk_queue_submit(queue, &(BlkSubmission){ .op = BLK_OP_FLUSH, .user_data = 11 }));
    blk_queue_ring(queue);
    g_assert_cmpuint(blk_queue_wait(queue, done, 8), ==, 1);
    g_assert_cmpuint(done[0].user_data, ==, 11);
    g_assert_cmpuint(blk_queue_reap(queue, done, 8), ==, 0);
    slow_release(slow);
    g_assert_cmpuint(blk_queue_wait(queue, done, 8), ==, 1);
    g_assert_cmpuint(done[0].user_data, ==, 10);
    blk_queue_free(queue);
    must_close(blk);
}

static void test_queue_long(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", 0);
    BlkQueue *queue = blk_queue_new(blk, 300, NULL);
    BlkQueueCompletion done[300];
    unsigned seen = 0;

    for (unsigned i = 0; i < 300; i++) {
        g_assert_true(blk_queue_submit(queue, &(BlkSubmission){ .op = BLK_OP_FLUSH, .user_data = i }));
    }
    g_assert_cmpuint(blk_queue_ring(queue), ==, 300);
    g_assert_cmpuint(blk_queue_reap(queue, done, 300), ==, 64); /* then the loop gets its turn */
    seen = 64;
    while (seen < 300) {
        unsigned n = blk_queue_wait(queue, done + seen, 300 - seen);

        g_assert_cmpuint(n, >, 0);
        seen += n;
    }
    for (unsigned i = 64; i < 300; i++) {
        g_assert_cmpuint(done[i].user_data, ==, i);
    }
    /* Freed with requests under way: it waits. */
    slow_state(graph, "disk")->reschedules = 2;
    for (unsigned i = 0; i < 300; i++) {
        blk_queue_submit(queue, &(BlkSubmission){ .op = BLK_OP_FLUSH });
    }
    blk_queue_free(queue);
    must_close(blk);
}

static bool readable(int fd)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

    return poll(&poll_fd, 1, 0) == 1;
}

static void test_queue_eventfd(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow", 0);
    BlkQueue *queue = blk_queue_new(blk, 4, NULL);
    BlkQueueCompletion done[4];
    BlkSubmission flush = { .op = BLK_OP_FLUSH };
    int fd;

    blk_queue_submit(queue, &flush);
    blk_queue_ring(queue);
    fd = blk_queue_eventfd(queue);
    g_assert_cmpint(fd, >=, 0);
    g_assert_true(readable(fd)); /* asked for after the completion */
    blk_queue_submit(queue, &flush);
    blk_queue_ring(queue);
    g_assert_cmpuint(blk_queue_reap(queue, done, 1), ==, 1);
    g_assert_true(readable(fd));
    g_assert_cmpuint(blk_queue_reap(queue, done, 1), ==, 1);
    g_assert_false(readable(fd));
    blk_queue_submit(queue, &flush);
    blk_queue_ring(queue);
    g_assert_true(readable(fd));
    g_assert_cmpint(blk_queue_eventfd(queue), ==, fd);
    blk_queue_free(queue);
    must_close(blk);
}

static void test_queue_bounds(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow", 0);
    GError *error = NULL;

    g_assert_null(blk_queue_new(blk, 0, &error));
    g_assert_error(error, BDRV_ERROR, EINVAL);
    g_clear_error(&error);
    g_assert_null(blk_queue_new(blk, 65537, NULL));
    blk_queue_free(blk_queue_new(blk, 65536, NULL));
    must_close(blk);
}

static void coroutine_fn reopen_often(void *opaque)
{
    for (unsigned i = 0; i < 8; i++) {
        GError *error = NULL;

        blk_co_reopen(opaque, NULL, BDRV_O_RDWR | (i % 2 ? BDRV_O_UNMAP : 0), &error);
        g_assert_no_error(error);
        co_reschedule();
    }
}

/* A drain keeps requests out, but not who drained as well. */
static void test_one_change_at_a_time(void)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        AioSim *sim = aio_sim_new(seed);
        AioContext *ctx[] = { aio_sim_context_new(sim), aio_sim_context_new(sim) };
        GError *error = NULL;

        aio_context_enter(ctx[0]);
        BdrvGraph *graph = bdrv_graph_new();
        BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", BDRV_O_RDWR);
        slow_state(graph, "disk")->reschedules = 3;
        co_start(ctx[1], co_new(reopen_often, blk));
        for (int64_t i = 1; i <= 8; i++) {
            blk_truncate(blk, i * 4096, true, BDRV_PREALLOC_OFF, 0, &error);
            g_assert_no_error(error);
        }
        while (aio_context_run(ctx[0], true)) {
        }
        g_assert_cmpuint(slow_state(graph, "disk")->committed, >, 0);
        g_assert_true(blk_close(blk, NULL));
        bdrv_graph_unref(graph);
        aio_context_leave(ctx[0]);
        aio_context_unref(ctx[0]);
        aio_context_unref(ctx[1]);
        aio_sim_free(sim);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    slow_register();
    g_test_add_func("/backend/a request outside of the image answers EIO", test_ranges);
    g_test_add_func("/backend/blocking calls are refused in callbacks and coroutines", test_blocking_refused);
    g_test_add_func("/backend/callbacks never run inside another call", test_callback_not_nested);
    g_test_add_func("/backend/cancel ends what has not started", test_cancel);
    g_test_add_func("/backend/a callback may submit again without nesting", test_resubmission);
    g_test_add_func("/backend/a coroutine may submit", test_submission_in_coroutine);
    g_test_add_func("/backend/writethrough makes every write durable", test_writethrough);
    g_test_add_func("/backend/close returns the first error", test_close_errors);
    g_test_add_func("/backend/a read-only handle refuses writes", test_read_only);
    g_test_add_func("/backend/layers are what images are made of", test_layers);
    g_test_add_func("/backend/a copy is a request on both handles", test_copy);
    g_test_add_func("/backend/truncate has the right to resize for the moment", test_truncate_rights);
    g_test_add_func("/backend/a resize and a reopen are not made at the same time", test_one_change_at_a_time);
    g_test_add_func("/backend/a new image is measured, or why not is told", test_measure);
    g_test_add_func("/queue/order and depth", test_queue_order_and_depth);
    g_test_add_func("/queue/a long ring leaves the loop its turn", test_queue_long);
    g_test_add_func("/queue/the eventfd tells of completions", test_queue_eventfd);
    g_test_add_func("/queue/depth is bounded", test_queue_bounds);
    return g_test_run();
}
