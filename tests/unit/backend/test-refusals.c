/* SPDX-License-Identifier: MIT */
/* What the embedding API refuses: what it does not know of, and what names nothing. */
#include <bdrv/testing.h>

#include <errno.h>
#include <string.h>

#define LATER (1 << 29) /* a flag of some later library */

#define assert_refused(ok_, error_, code_, said_)           \
    do {                                                    \
        g_assert_false(ok_);                                \
        g_assert_error((error_), BDRV_ERROR, (code_));      \
        g_assert_nonnull(strstr((error_)->message, said_)); \
        g_clear_error(&(error_));                           \
    } while (0)

static BdrvTestStack *new_image(void)
{
    return bdrv_test_stack_new("qcow2(size=1M):simdisk");
}

static void has_ended(void *opaque, int ret)
{
    *(int *)opaque = ret;
}

static int wait_for(BlkRequest *request, int *ret)
{
    g_assert_nonnull(request);
    while (*ret == 1) {
        aio_context_run(aio_context_current(), true);
    }
    return *ret;
}

static int through_queue(BlockBackend *blk, BlkSubmission submission)
{
    BlkQueue *queue = blk_queue_new(blk, 1, NULL);
    BlkQueueCompletion completion;

    g_assert_true(blk_queue_submit(queue, &submission));
    g_assert_cmpuint(blk_queue_wait(queue, &completion, 1), ==, 1);
    g_assert_cmpint(blk_queue_free(queue), ==, 0);
    return completion.result;
}

static void test_request_flags(void)
{
    g_autoptr(BdrvTestStack) stack = new_image();
    BlockBackend *blk = stack->blk;
    char buf[512] = "x";
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, sizeof(buf));
    int ret = 1;

    g_assert_cmpint(blk_pread(blk, 0, 512, buf, (BdrvRequestFlags)LATER), ==, -EINVAL);
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, (BdrvRequestFlags)(BDRV_REQ_FUA | LATER)), ==, -EINVAL);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 512, (BdrvRequestFlags)LATER), ==, -EINVAL);
    g_assert_cmpint(blk_copy_range(blk, 0, blk, 4096, 512, (BdrvRequestFlags)LATER), ==, -EINVAL);
    g_assert_cmpint(wait_for(blk_aio_pwritev(blk, 0, &iov, (BdrvRequestFlags)LATER, has_ended, &ret), &ret), ==, -EINVAL);
    BlkSubmission write = { .op = BLK_OP_WRITE, .iov = &iov };
    write.flags = (BdrvRequestFlags)LATER;
    g_assert_cmpint(through_queue(blk, write), ==, -EINVAL);
    write.flags = (BdrvRequestFlags)0;
    write.reserved = 1;
    g_assert_cmpint(through_queue(blk, write), ==, -EINVAL);
    write.op = (BlkOp)99;
    write.reserved = 0;
    g_assert_cmpint(through_queue(blk, write), ==, -EINVAL);
    bdrv_test_assert_zero(stack, 0, 1 << 20);
}

static void test_other_flags(void)
{
    g_autoptr(BdrvTestStack) stack = new_image();
    BlockBackend *blk = stack->blk;
    BdrvCheckResult result = { 0 };
    GError *error = NULL;

    BlockBackend *other = blk_open(stack->graph, "null-co://", NULL, (BdrvOpenFlags)LATER, &error);
    assert_refused(other, error, EINVAL, "open flags 0x20000000");
    assert_refused(blk_reopen(blk, NULL, (BdrvOpenFlags)(BDRV_O_RDWR | LATER), &error), error, EINVAL, "open flags");
    assert_refused(blk_check(blk, &result, (BdrvCheckFix)LATER, &error), error, EINVAL, "check flags");
    assert_refused(blk_truncate(blk, 2 << 20, true, (BdrvPrealloc)9, 0, &error), error, EINVAL, "9 is no mode");
    assert_refused(blk_check_truncate(blk, 2 << 20, true, (BdrvPrealloc)9, &error), error, EINVAL, "9 is no mode");
    assert_refused(blk_truncate(blk, 2 << 20, true, BDRV_PREALLOC_OFF, (BdrvRequestFlags)LATER, &error), error, EINVAL,
                   "request flags");
    g_assert_cmpint(blk_length(blk), ==, 1 << 20);
    g_assert_false(blk_is_read_only(blk));
}

static void test_no_snapshot(void)
{
    g_autoptr(BdrvTestStack) stack = new_image();
    BlockBackend *blk = stack->blk;
    BdrvSnapshotInfo named = { .name = (char *)"kept" }, unnamed = { 0 }, *list;
    GError *error = NULL;

    assert_refused(blk_snapshot_create(blk, &unnamed, &error), error, EINVAL, "has no name");
    g_assert_true(blk_snapshot_create(blk, &named, &error));
    g_free(named.id);
    bdrv_test_write_pattern(stack, 0, 512, 0x61);
    assert_refused(blk_snapshot_goto(blk, NULL, &error), error, EINVAL, "no snapshot is named");
    assert_refused(blk_snapshot_delete(blk, NULL, NULL, &error), error, EINVAL, "no snapshot is named");
    g_assert_true(blk_reopen(blk, NULL, 0, &error));
    assert_refused(blk_snapshot_load_tmp(blk, NULL, NULL, &error), error, EINVAL, "no snapshot is named");
    bdrv_test_assert_pattern(stack, 0, 512, 0x61);
    int count = blk_list_snapshots(blk, &list);
    g_assert_cmpint(count, ==, 1);
    bdrv_snapshot_list_free(list, count);
}

static void test_no_options(void)
{
    g_autoptr(BdrvTestStack) stack = new_image();
    GError *error = NULL;

    g_assert_true(blk_amend(stack->blk, NULL, false, NULL, NULL, &error));
    g_assert_no_error(error);
}

static void test_read_only(void)
{
    g_autoptr(BdrvTestStack) stack = new_image();
    BdrvCheckResult result = { 0 };
    GError *error = NULL;

    g_assert_true(blk_reopen(stack->blk, NULL, 0, &error));
    assert_refused(blk_check(stack->blk, &result, BDRV_FIX_LEAKS, &error), error, EROFS, "open it read-write to repair");
}

static void test_no_name(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    GError *error = NULL;

    g_assert_null(blk_open(graph, "", NULL, 0, &error));
    g_assert_error(error, BDRV_ERROR, EINVAL);
    g_assert_true(g_str_has_prefix(error->message, "the file is not named"));
    g_clear_error(&error);
}

static bool say_nothing(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                        GError **errp)
{
    return false;
}

static void test_silent_gate(void)
{
    g_autoptr(BdrvTestStack) stack = new_image();
    GError *error = NULL;

    bdrv_graph_set_opener_gate(stack->graph, say_nothing, NULL);
    g_assert_true(blk_change_backing_file(stack->blk, "null-co://", "raw", &error));
    bdrv_test_stack_close(stack);
    assert_refused(bdrv_test_stack_try_open(stack, 0, &error), error, EACCES, "'null-co://', which the opener gate refuses");
}

static void test_too_many_bytes(void)
{
    g_autoptr(BdrvTestStack) stack = new_image();
    BlockBackend *blk = stack->blk;
    char buf[512] = "x";
    struct iovec vec[] = { { buf, SIZE_MAX - 100 }, { buf, 612 }, { buf, 1 } };
    BdrvIov wraps = bdrv_iov_init(vec, 3), large = BDRV_IOV_BUF(vec[0], buf, (size_t)SSIZE_MAX + 1);
    int ret = 1;

    g_assert_true(wraps.bytes == SIZE_MAX);
    g_assert_cmpint(blk_pwritev(blk, 0, &wraps, 0), ==, -EINVAL);
    g_assert_cmpint(blk_preadv(blk, 0, &large, 0), ==, -EINVAL);
    g_assert_cmpint(wait_for(blk_aio_pwritev(blk, 0, &wraps, 0, has_ended, &ret), &ret), ==, -EINVAL);
    g_assert_cmpint(through_queue(blk, (BlkSubmission){ .op = BLK_OP_WRITE, .iov = &wraps }), ==, -EINVAL);
    g_assert_cmpint(blk_save_vmstate(blk, 0, &wraps), ==, -EINVAL);
    large.bytes = SSIZE_MAX;
    g_assert_cmpint(blk_preadv(blk, 0, &large, 0), ==, -EIO); /* longer than the disk */
}

/* Of a handle that may not write, as qemu-io says of "write 0 0". */
static void test_no_bytes(void)
{
    g_autoptr(BdrvTestStack) stack = new_image();
    BlockBackend *blk = stack->blk;
    char byte = 0;

    g_assert_cmpint(blk_pwrite(blk, 0, 0, &byte, 0), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, 1 << 20, 0, &byte, 0), ==, 0);
    g_assert_true(blk_reopen(blk, NULL, 0, NULL));
    g_assert_cmpint(blk_pread(blk, 0, 0, &byte, 0), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, 0, 0, &byte, 0), ==, -EPERM);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 0, 0), ==, -EPERM);
    g_assert_cmpint(blk_pdiscard(blk, 0, 0), ==, -EPERM);
    g_assert_cmpint(blk_copy_range(blk, 0, blk, 0, 0, 0), ==, -EPERM);
}

static void test_no_id(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    GError *error = NULL;

    assert_refused(bdrv_graph_add_secret(graph, "", "x", 1, &error), error, EINVAL, "has no id");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/refusals/request flags of a later library", test_request_flags);
    g_test_add_func("/refusals/flags of a later library for whole images", test_other_flags);
    g_test_add_func("/refusals/a snapshot has to be named", test_no_snapshot);
    g_test_add_func("/refusals/an amend without options changes nothing", test_no_options);
    g_test_add_func("/refusals/a repair of a read-only image says what to do", test_read_only);
    g_test_add_func("/refusals/an empty filename is no prefix of a message", test_no_name);
    g_test_add_func("/refusals/a gate need not say why", test_silent_gate);
    g_test_add_func("/refusals/a request of more bytes than can be counted", test_too_many_bytes);
    g_test_add_func("/refusals/a write of no bytes to a read-only image", test_no_bytes);
    g_test_add_func("/refusals/a secret has an id", test_no_id);
    return g_test_run();
}
