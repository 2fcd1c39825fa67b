/* SPDX-License-Identifier: MIT */

/* Breakpoints through a BlockBackend: stopping, resuming, and that drain and close let go. */

#include <bdrv/bdrv.h>
#include <bdrv/simdisk.h>
#include <errno.h>
#include <string.h>

#define RAW "driver=raw,file.driver=blkdebug,file.image.driver=simdisk,file.image.disk=d"
#define QCOW2 "driver=qcow2,file.driver=blkdebug,file.image.driver=simdisk,file.image.disk=d"

typedef struct Stand {
    BdrvSimDisk *disk;
    BdrvGraph *graph;
    BlockBackend *blk;
    GString *told; /* "+A" stopped, "-A" goes on; of this thread or a stopped one */
    pthread_mutex_t lock;
    bool slow; /* telling that a request has stopped takes its time */
} Stand;

static void tell(void *opaque, const char *driver, const char *tag, bool suspended)
{
    Stand *stand = opaque;

    g_assert_cmpstr(driver, ==, "blkdebug");
    if (suspended && stand->slow) {
        g_usleep(50000);
    }
    pthread_mutex_lock(&stand->lock);
    g_string_append_printf(stand->told, "%s%s", suspended ? "+" : "-", tag);
    pthread_mutex_unlock(&stand->lock);
}

static void stand_open(Stand *stand, const char *options)
{
    GError *error = NULL;

    stand->blk = blk_open(stand->graph, NULL, bdrv_options_parse(options, NULL, NULL), BDRV_O_RDWR, &error);
    g_assert_no_error(error);
}

static void stand_init(Stand *stand, const char *options)
{
    GError *error = NULL;

    *stand = (Stand){ .disk = bdrv_simdisk_new("d", 1 << 20), .graph = bdrv_graph_new(), .told = g_string_new(NULL) };
    pthread_mutex_init(&stand->lock, NULL);
    bdrv_graph_set_debug_notify(stand->graph, tell, stand);
    if (g_str_has_prefix(options, "driver=qcow2")) {
        BdrvOptions *create = bdrv_options_parse("size=1M", NULL, NULL);

        bdrv_create_image(stand->graph, "qcow2", "simdisk:d", create, &error);
        g_assert_no_error(error);
    }
    stand_open(stand, options);
}

static void stand_end(Stand *stand, const char *told)
{
    GError *error = NULL;

    blk_close(stand->blk, &error);
    g_assert_no_error(error);
    bdrv_graph_unref(stand->graph);
    bdrv_simdisk_unref(stand->disk);
    g_assert_null(bdrv_simdisk_find("d"));
    if (told) {
        g_assert_cmpstr(stand->told->str, ==, told);
    }
    g_string_free(stand->told, TRUE);
    pthread_mutex_destroy(&stand->lock);
}

typedef struct Request {
    struct iovec vec;
    BdrvIov iov;
    uint8_t buf[512];
    int result;
    bool done;
} Request;

static void complete(void *opaque, int ret)
{
    Request *request = opaque;

    request->result = ret;
    request->done = true;
}

static void start_write(Stand *stand, Request *request, int64_t offset)
{
    *request = (Request){ .result = 1 };
    memset(request->buf, 0x44, sizeof(request->buf));
    request->vec = (struct iovec){ request->buf, sizeof(request->buf) };
    request->iov = (BdrvIov){ .vec = &request->vec, .count = 1, .bytes = sizeof(request->buf) };
    blk_aio_pwritev(stand->blk, offset, &request->iov, 0, complete, request);
}

/* Whatever can be done now. */
static void settle(void)
{
    while (aio_context_run(aio_context_current(), false)) {
    }
}

static void finish(Request *request)
{
    while (!request->done) {
        aio_context_run(aio_context_current(), true);
    }
    g_assert_cmpint(request->result, ==, 0);
}

static void wait_suspended(Stand *stand, const char *tag)
{
    while (blk_debug_is_suspended(stand->blk, tag) == 0) {
        aio_context_run(aio_context_current(), false);
    }
    g_assert_cmpint(blk_debug_is_suspended(stand->blk, tag), ==, 1);
}

static void set_break(Stand *stand, const char *event, const char *tag)
{
    GError *error = NULL;

    blk_debug_breakpoint(stand->blk, event, tag, &error);
    g_assert_no_error(error);
}

static void test_stop(void)
{
    Request first, second;
    Stand stand;

    stand_init(&stand, RAW);
    set_break(&stand, "pwritev", "A");
    start_write(&stand, &first, 0);
    wait_suspended(&stand, "A");
    g_assert_false(first.done);
    start_write(&stand, &second, 512); /* the breakpoint is gone */
    finish(&second);
    settle();
    g_assert_false(first.done);
    g_assert_cmpint(blk_debug_resume(stand.blk, "B"), ==, -ENOENT);
    g_assert_cmpint(blk_debug_resume(stand.blk, "A"), ==, 0);
    finish(&first);
    g_assert_cmpint(blk_debug_resume(stand.blk, "A"), ==, -ENOENT);
    stand_end(&stand, "+A-A");
}

static void *write_blocking(void *opaque)
{
    Stand *stand = opaque;

    g_assert_cmpint(blk_pwrite(stand->blk, 0, 1, "x", 0), ==, 0);
    return NULL;
}

static void test_order_of_notices(void)
{
    pthread_t thread;
    Stand stand;

    stand_init(&stand, RAW);
    stand.slow = true;
    set_break(&stand, "pwritev", "A");
    g_assert_cmpint(pthread_create(&thread, NULL, write_blocking, &stand), ==, 0);
    while (blk_debug_resume(stand.blk, "A") == -ENOENT) { /* as soon as it can be */
        g_usleep(100);
    }
    pthread_join(thread, NULL);
    stand_end(&stand, "+A-A");
}

static void test_two_at_one(void)
{
    Request request;
    Stand stand;

    stand_init(&stand, RAW);
    set_break(&stand, "pwritev", "A");
    set_break(&stand, "pwritev", "B");
    start_write(&stand, &request, 0);
    wait_suspended(&stand, "A");
    g_assert_cmpint(blk_debug_resume(stand.blk, "A"), ==, 0);
    settle();
    g_assert_false(request.done);
    g_assert_cmpint(blk_debug_resume(stand.blk, "B"), ==, 0);
    finish(&request);
    stand_end(&stand, "+B+A-A-B");
}

static void test_remove(void)
{
    Request request;
    Stand stand;

    stand_init(&stand, RAW);
    g_assert_cmpint(blk_debug_remove_breakpoint(stand.blk, "A"), ==, -ENOENT);
    set_break(&stand, "write_aio", "A");
    set_break(&stand, "read_aio", "A");
    start_write(&stand, &request, 0);
    wait_suspended(&stand, "A");
    g_assert_cmpint(blk_debug_remove_breakpoint(stand.blk, "A"), ==, 0);
    finish(&request);
    g_assert_cmpint(blk_pread(stand.blk, 0, 512, request.buf, 0), ==, 0);
    stand_end(&stand, "+A-A");
}

static void test_drain(void)
{
    Request request, later;
    Stand stand;

    stand_init(&stand, RAW);
    set_break(&stand, "write_aio", "A");
    set_break(&stand, "pwritev_done", "B"); /* must not stop it again on its way */
    start_write(&stand, &request, 0);
    wait_suspended(&stand, "A");
    g_assert_cmpint(blk_drain_begin(stand.blk), ==, 0);
    settle();
    g_assert_true(request.done);
    blk_drain_end(stand.blk);
    start_write(&stand, &later, 0); /* the other breakpoint is still there */
    wait_suspended(&stand, "B");
    g_assert_true(blk_reopen(stand.blk, NULL, 0, NULL));
    finish(&later);
    stand_end(&stand, "+A-A+B-B");
}

static void test_close(void)
{
    Request request;
    Stand stand;

    stand_init(&stand, RAW);
    set_break(&stand, "write_aio", "A");
    set_break(&stand, "flush_to_os", "B");
    start_write(&stand, &request, 0);
    wait_suspended(&stand, "A");
    stand_end(&stand, "+A-A");
    settle();
    g_assert_true(request.done);
    g_assert_cmpint(request.result, ==, 0);
}

/* Closing qcow2 writes metadata, whose events come when no request is under way any more. */
static void test_close_qcow2(void)
{
    static const char *const events[] = { "l2_update", "refblock_update_part", "flush_to_disk", "flush_to_os", "l1_update" };
    BdrvCheckResult result = { 0 };
    Request request;
    Stand stand;

    stand_init(&stand, QCOW2);
    start_write(&stand, &request, 0);
    finish(&request);
    for (unsigned i = 0; i < G_N_ELEMENTS(events); i++) {
        set_break(&stand, events[i], "A");
    }
    g_assert_true(blk_close(stand.blk, NULL));
    stand_open(&stand, "driver=qcow2,file.driver=simdisk,file.disk=d");
    g_assert_true(blk_check(stand.blk, &result, BDRV_FIX_NONE, NULL));
    g_assert_cmpint(result.corruptions + result.leaks, ==, 0);
    stand_end(&stand, NULL);
}

/* qcow2 waits in its own drain for a commit in the service thread, which a breakpoint below holds. */
static void test_drain_background(void)
{
    Request request;
    Stand stand;

    stand_init(&stand, QCOW2);
    start_write(&stand, &request, 0);
    finish(&request);
    g_assert_cmpint(blk_flush(stand.blk), ==, 0);
    set_break(&stand, "refblock_update_part", "A");
    start_write(&stand, &request, 65536);
    finish(&request);
    wait_suspended(&stand, "A"); /* the driver's own commit, after a second */
    g_assert_cmpint(blk_drain_begin(stand.blk), ==, 0);
    blk_drain_end(stand.blk);
    stand_end(&stand, "+A-A");
}

static void test_two_handles(void)
{
    BlockBackend *other;
    Request request, mine;
    GError *error = NULL;
    Stand stand;

    stand_init(&stand, "driver=raw,file.driver=blkdebug,file.image.driver=simdisk,file.image.disk=d,file.node-name=n");
    other = blk_open(stand.graph, NULL, bdrv_options_parse("driver=raw,file=n", NULL, NULL), BDRV_O_RDWR, &error);
    g_assert_no_error(error);
    set_break(&stand, "pwritev", "A");
    start_write(&stand, &request, 0);
    wait_suspended(&stand, "A");
    g_assert_true(blk_close(other, &error)); /* lets all go below it, and leaves the node working */
    finish(&request);
    set_break(&stand, "pwritev", "B");
    start_write(&stand, &mine, 0);
    wait_suspended(&stand, "B");
    g_assert_cmpint(blk_debug_resume(stand.blk, "B"), ==, 0);
    finish(&mine);
    stand_end(&stand, "+A-A+B-B");
}

static void test_none(void)
{
    GError *error = NULL;
    Stand stand;

    stand_init(&stand, "driver=raw,file.driver=simdisk,file.disk=d");
    g_assert_false(blk_debug_breakpoint(stand.blk, "pwritev", "A", &error));
    g_assert_error(error, BDRV_ERROR, ENOTSUP);
    g_clear_error(&error);
    g_assert_false(blk_debug_breakpoint(stand.blk, "pwrite", "A", &error));
    g_assert_error(error, BDRV_ERROR, ENOENT);
    g_assert_nonnull(strstr(error->message, "pwritev_zero"));
    g_clear_error(&error);
    g_assert_cmpint(blk_debug_remove_breakpoint(stand.blk, "A"), ==, -ENOTSUP);
    g_assert_cmpint(blk_debug_resume(stand.blk, "A"), ==, -ENOTSUP);
    g_assert_cmpint(blk_debug_is_suspended(stand.blk, "A"), ==, -ENOTSUP);
    stand_end(&stand, "");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/blkdebug/break/a breakpoint stops one request until it is resumed", test_stop);
    g_test_add_func("/blkdebug/break/two breakpoints at one event must both be resumed", test_two_at_one);
    g_test_add_func("/blkdebug/break/removing breakpoints lets their requests go", test_remove);
    g_test_add_func("/blkdebug/break/drain and reopen let requests go, and breakpoints stay", test_drain);
    g_test_add_func("/blkdebug/break/close lets requests go", test_close);
    g_test_add_func("/blkdebug/break/that a request goes on is told after that it stopped", test_order_of_notices);
    g_test_add_func("/blkdebug/break/close of qcow2 is not stopped", test_close_qcow2);
    g_test_add_func("/blkdebug/break/drain of qcow2 lets its own commit go", test_drain_background);
    g_test_add_func("/blkdebug/break/closing one handle leaves the others working", test_two_handles);
    g_test_add_func("/blkdebug/break/without blkdebug there are no breakpoints", test_none);
    return g_test_run();
}
