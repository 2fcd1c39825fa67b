/* SPDX-License-Identifier: MIT */
/* Carrying out one operation of a conformance run. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bdrv/driver.h>

#include "tests/lib/conformance_int.h"
#include "tests/lib/test-node.h"

#define MAX_ALIGN 4096

/* ---- data ---- */

static void scatter(Runner *r, Op *op, uint64_t *random)
{
    int64_t done = 0;

    op->vec_count = 0;
    while (done < op->what.bytes) {
        int64_t left = op->what.bytes - done, part = left;

        if (op->vec_count + 1 < MAX_VEC && test_random_below(random, 3)) {
            part = 1 + test_random_below(random, left);
            part += (r->unit - part % r->unit) % r->unit;
            part = MIN(part, left);
        }
        op->vec[op->vec_count++] = (struct iovec){ .iov_base = op->data + done, .iov_len = part };
        done += part;
    }
}

void conformance_prepare_op(Runner *r, Op *op, const HistoryOp *what)
{
    uint64_t random = what->seed;
    int64_t bytes = history_has_range(what->kind) ? what->bytes : 0;
    void *buffer = NULL;

    *op = (Op){ .what = *what, .runner = r, .ret = 1 };
    op->what.bytes = bytes;
    /* Where the buffer lies decides whether requests bounce: the seed says, not the allocator. */
    g_assert_cmpint(posix_memalign(&buffer, MAX_ALIGN, MAX_ALIGN + MAX(bytes, 1)), ==, 0);
    op->buffer = buffer;
    op->data = op->buffer + (test_random_below(&random, 2) ? 16 * test_random_below(&random, MAX_ALIGN / 16) : 0);
    memset(op->data, 0xa5, bytes);
    uint64_t word = 0;
    for (int64_t i = 0; what->kind == HISTORY_WRITE && i < bytes; i += 8) {
        /* What is to be compressed repeats itself, here more and there less. */
        word = what->flags & BDRV_REQ_COMPRESSED && i / 64 % 4 ? word : test_random(&random);
        memcpy(op->data + i, &word, MIN(8, bytes - i));
    }
    scatter(r, op, &random);
}

void conformance_clear_op(Op *op)
{
    free(op->buffer);
    op->buffer = op->data = NULL;
}

static BdrvIov op_iov(const Op *op)
{
    return bdrv_iov_init(op->vec, op->vec_count);
}

/* ---- waiting for callbacks ---- */

typedef struct Callbacks {
    unsigned left;
    int ret; /* the first error */
    Coroutine *waiter;
} Callbacks;

static void called_back(void *opaque, int ret)
{
    Callbacks *callbacks = opaque;

    callbacks->ret = callbacks->ret < 0 ? callbacks->ret : ret;
    if (--callbacks->left == 0 && callbacks->waiter) {
        co_wake(callbacks->waiter);
    }
}

static int coroutine_fn wait_for_callbacks(Callbacks *callbacks)
{
    if (callbacks->left) {
        callbacks->waiter = co_self();
        co_yield_reason("its callbacks");
    }
    return callbacks->ret;
}

static void coroutine_fn take_turns(unsigned turns)
{
    while (turns--) {
        co_reschedule();
    }
}

static BlkRequest *submit(BlockBackend *blk, const Op *op, const BdrvIov *iov, Callbacks *callbacks)
{
    const HistoryOp *what = &op->what;

    switch (what->kind) {
    case HISTORY_READ:
        return blk_aio_preadv(blk, what->offset, iov, 0, called_back, callbacks);
    case HISTORY_WRITE:
        return blk_aio_pwritev(blk, what->offset, iov, what->flags, called_back, callbacks);
    case HISTORY_ZERO:
        return blk_aio_pwrite_zeroes(blk, what->offset, what->bytes, what->flags, called_back, callbacks);
    case HISTORY_DISCARD:
        return blk_aio_pdiscard(blk, what->offset, what->bytes, called_back, callbacks);
    case HISTORY_FLUSH:
        return blk_aio_flush(blk, called_back, callbacks);
    default:
        return NULL;
    }
}

/* Cancelling only asks: 0 or -ECANCELED, and the callback comes once. */
static int coroutine_fn cancelled_request(Op *op)
{
    Callbacks callbacks = { .left = 1 };
    BdrvIov iov = op_iov(op);
    BlkRequest *request = submit(op->runner->blk, op, &iov, &callbacks);

    if (!request) {
        return -EINVAL;
    }
    take_turns(op->what.turns);
    if (callbacks.left) {
        blk_aio_cancel(request);
    }
    return wait_for_callbacks(&callbacks);
}

/* ---- drain, reopen, handles ---- */

static int coroutine_fn drain(Op *op)
{
    BlockBackend *blk = op->runner->blk;
    int ret = blk_co_drain_begin(blk);

    if (ret == 0) {
        take_turns(op->what.turns);
        blk_co_drain_end(blk);
    }
    return ret;
}

static int coroutine_fn reopen_as(Op *op, const char *options, BdrvOpenFlags flags)
{
    g_autoptr(GError) error = NULL;

    if (blk_co_reopen(op->runner->blk, bdrv_options_parse(options, NULL, NULL), flags, &error)) {
        return 0;
    }
    conformance_fail(op->runner, "reopening with '%s': %s", options, error->message);
}

/* There and back: whatever other reopens come in between, the last one of all leaves it as it was. */
static int coroutine_fn reopen(Op *op)
{
    static const char *const there[] = { "", "discard=ignore", "", "cache.writeback=off" };
    static const char *const back[] = { "", "discard=unmap", "", "cache.writeback=on" };
    BdrvOpenFlags flags = conformance_flags(op->runner->stack);
    bool read_only = op->what.seed % 2 == 0;

    reopen_as(op, there[op->what.seed % 4], read_only ? flags & ~(BDRV_O_RDWR | BDRV_O_RESIZE) : flags);
    take_turns(op->what.turns);
    return reopen_as(op, back[op->what.seed % 4], flags);
}

/* A filter that only passes on: other handles reach the image through it. */
static bool coroutine_fn through_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                      GError **errp)
{
    bs->length = bs->file->bs->length;
    return true;
}

static int coroutine_fn through_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                      size_t iov_offset, BdrvRequestFlags flags)
{
    return bdrv_co_preadv(bs->file, offset, bytes, iov, iov_offset, flags);
}

static const BdrvChildSpec through_children[] = { { "file", BDRV_CHILD_FILTERED, false }, { NULL } };

static const BlockDriver bdrv_through = {
    .format_name = "conformance-through",
    .is_filter = true,
    .children = through_children,
    .bdrv_open = through_open,
    .bdrv_co_readv = through_readv,
};

static void register_through(void)
{
    g_assert_true(bdrv_register(&bdrv_through));
}

static BlockBackend *coroutine_fn open_through(Op *op)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    g_autoptr(GError) error = NULL;
    BlockBackend *blk;

    pthread_once(&once, register_through);
    blk = blk_co_open(op->runner->graph, NULL,
                      bdrv_options_parse("driver=conformance-through,file=" CONFORMANCE_NODE, NULL, NULL), 0, &error);
    if (!blk) {
        conformance_fail(op->runner, "opening another handle: %s", error->message);
    }
    return blk;
}

#define HANDLE_READS 3

/* Where the next of @left reads from @at on ends: between two sectors, since several reads are not one. */
static int64_t end_of_read(const Op *op, int64_t at, unsigned left)
{
    int64_t end = op->what.offset + op->what.bytes, middle = at + (end - at) / left;

    middle += SECTOR - (middle + op->runner->stack->skew) % SECTOR;
    return left == 1 || middle > end ? end : middle;
}

/* Another handle that is closed with its requests under way: closing waits, and each callback comes once. */
static int coroutine_fn handle(Op *op)
{
    g_autoptr(GError) error = NULL;
    BlockBackend *blk = open_through(op);
    Callbacks callbacks = { 0 };
    struct iovec vecs[HANDLE_READS];
    BdrvIov iovs[HANDLE_READS];
    int64_t at = op->what.offset;

    for (unsigned i = 0; i < HANDLE_READS; i++) {
        int64_t end = end_of_read(op, at, HANDLE_READS - i);

        vecs[i] = (struct iovec){ .iov_base = op->data + (at - op->what.offset), .iov_len = (size_t)(end - at) };
        iovs[i] = bdrv_iov_init(&vecs[i], 1);
        callbacks.left++;
        if (!blk_aio_preadv(blk, at, &iovs[i], 0, called_back, &callbacks)) {
            conformance_fail(op->runner, "a request was not accepted");
        }
        at = end;
    }
    if (!blk_co_close(blk, &error)) {
        conformance_fail(op->runner, "closing another handle: %s", error->message);
    }
    return wait_for_callbacks(&callbacks);
}

/* ---- all ---- */

/*
 * Where compressing is refused (no whole clusters, not supported, space taken) the data goes as it is. Space that others
 * took meanwhile may be met when a part is written already.
 */
static int coroutine_fn write_op(Op *op, const BdrvIov *iov)
{
    BlockBackend *blk = op->runner->blk;
    int ret = blk_co_pwritev(blk, op->what.offset, iov, op->what.flags);

    if ((op->what.flags & BDRV_REQ_COMPRESSED) && (ret == -EINVAL || ret == -EIO || ret == -ENOTSUP)) {
        op->begun = ret == -EIO;
        ret = blk_co_pwritev(blk, op->what.offset, iov, op->what.flags & ~BDRV_REQ_COMPRESSED);
    }
    return ret;
}

static int coroutine_fn perform(Op *op)
{
    BlockBackend *blk = op->runner->blk;
    const HistoryOp *what = &op->what;
    BdrvIov iov = op_iov(op);

    if (what->cancel) {
        return cancelled_request(op);
    }
    switch (what->kind) {
    case HISTORY_READ:
        return blk_co_preadv(blk, what->offset, &iov, 0);
    case HISTORY_WRITE:
        return write_op(op, &iov);
    case HISTORY_ZERO:
        return blk_co_pwrite_zeroes(blk, what->offset, what->bytes, what->flags);
    case HISTORY_DISCARD:
        return blk_co_pdiscard(blk, what->offset, what->bytes);
    case HISTORY_FLUSH:
        return blk_co_flush(blk);
    case HISTORY_STATUS:
        return blk_co_block_status_above(blk, what->offset, what->bytes, &op->extent);
    case HISTORY_COPY:
        return blk_co_copy_range(blk, what->source, blk, what->offset, what->bytes, what->flags);
    case HISTORY_DRAIN:
        return drain(op);
    case HISTORY_REOPEN:
        return reopen(op);
    case HISTORY_HANDLE:
        return handle(op);
    default:
        g_assert_not_reached();
    }
}

void coroutine_fn conformance_carry_out(Op *op)
{
    _Atomic uint64_t *clock = &op->runner->clock;

    op->began = atomic_fetch_add(clock, 1);
    op->ret = perform(op);
    op->ended = atomic_fetch_add(clock, 1);
    op->done = true;
}
