/* SPDX-License-Identifier: MIT */
#include "tests/unit/backend/slow.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

/* ---- slow ---- */

static bool coroutine_fn slow_co_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                      GError **errp)
{
    SlowState *slow = bs->opaque;

    pthread_mutex_init(&slow->lock, NULL);
    co_queue_init(&slow->held);
    bs->length = SLOW_BYTES;
    bs->supported_write_flags = BDRV_REQ_FUA;
    return true;
}

static int coroutine_fn slow_co_close(BlockDriverState *bs)
{
    SlowState *slow = bs->opaque;

    g_assert_cmpint(slow->busy, ==, 0);
    pthread_mutex_destroy(&slow->lock);
    return slow->close_result;
}

static int coroutine_fn slow_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                      size_t iov_offset, BdrvRequestFlags flags)
{
    SlowState *slow = bs->opaque;

    atomic_fetch_add(&slow->busy, 1);
    atomic_fetch_add(&slow->reads, 1);
    if (slow->drain_in_read) {
        slow->drain_result = bdrv_co_drain_begin(bs);
    }
    pthread_mutex_lock(&slow->lock);
    if (slow->hold) {
        slow->holding++;
        co_queue_wait(&slow->held, &slow->lock);
        slow->holding--;
    }
    pthread_mutex_unlock(&slow->lock);
    for (unsigned i = atomic_load(&slow->reschedules); i > 0; i--) {
        co_reschedule();
    }
    bdrv_iov_memset(iov, iov_offset, 0x5a, bytes);
    atomic_fetch_sub(&slow->busy, 1);
    return 0;
}

static int coroutine_fn slow_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                       size_t iov_offset, BdrvRequestFlags flags)
{
    SlowState *slow = bs->opaque;

    atomic_fetch_add(&slow->busy, 1);
    atomic_fetch_add(&slow->writes, 1);
    atomic_fetch_add(&slow->fua_writes, flags & BDRV_REQ_FUA ? 1 : 0);
    for (unsigned i = atomic_load(&slow->reschedules); i > 0; i--) {
        co_reschedule();
    }
    atomic_fetch_sub(&slow->busy, 1);
    return 0;
}

static int coroutine_fn slow_co_flush(BlockDriverState *bs)
{
    SlowState *slow = bs->opaque;

    atomic_fetch_add(&slow->flushes, 1);
    atomic_fetch_add(&slow->flushes_drained, atomic_load(&slow->no_requests));
    return slow->flush_result;
}

/* What changes the image as a whole is alone with it. */
static void coroutine_fn change(SlowState *slow)
{
    g_assert_cmpint(slow->changes++, ==, 0);
    for (unsigned i = atomic_load(&slow->reschedules); i > 0; i--) {
        co_reschedule();
    }
    slow->changes--;
}

static bool coroutine_fn slow_co_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                          BdrvRequestFlags flags, GError **errp)
{
    SlowState *slow = bs->opaque;

    g_assert_cmpint(slow->drained, ==, 1);
    change(slow);
    slow->used_in_truncate = slow->used;
    bdrv_set_length(bs, length);
    return true;
}

static bool coroutine_fn slow_co_set_rights(BlockDriverState *bs, unsigned used, unsigned unshared, GError **errp)
{
    SlowState *slow = bs->opaque;

    if (slow->refuse_rights && (used & ~slow->used || unshared & ~slow->unshared)) {
        g_set_error(errp, BDRV_ERROR, EAGAIN, "another process holds the lock");
        return false;
    }
    slow->used = used;
    slow->unshared = unshared;
    return true;
}

static void coroutine_fn slow_drain_begin(BlockDriverState *bs)
{
    atomic_fetch_add(&((SlowState *)bs->opaque)->drained, 1);
}

static void coroutine_fn slow_drain_end(BlockDriverState *bs)
{
    atomic_fetch_sub(&((SlowState *)bs->opaque)->drained, 1);
}

static bool coroutine_fn slow_co_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options,
                                                BdrvOpenFlags flags, void **state, GError **errp)
{
    SlowState *slow = bs->opaque;

    g_assert_cmpint(slow->busy, ==, 0);
    change(slow);
    if (slow->refuse_reopen) {
        g_set_error(errp, BDRV_ERROR, EPERM, "not now");
        return false;
    }
    slow->prepared++;
    *state = slow;
    return true;
}

static void slow_reopen_commit(BlockDriverState *bs, void *state)
{
    SlowState *slow = state;

    slow->committed++;
    slow->last_reopen_wrote = !bs->read_only;
}

static void slow_reopen_abort(BlockDriverState *bs, void *state)
{
    ((SlowState *)state)->aborted++;
}

static const BlockDriver bdrv_slow = {
    .format_name = "slow",
    .protocol_name = "slow",
    .instance_size = sizeof(SlowState),
    .bdrv_open = slow_co_open,
    .bdrv_close = slow_co_close,
    .bdrv_co_readv = slow_co_readv,
    .bdrv_co_writev = slow_co_writev,
    .bdrv_co_flush_to_disk = slow_co_flush,
    .bdrv_truncate = slow_co_truncate,
    .bdrv_set_rights = slow_co_set_rights,
    .bdrv_drain_begin = slow_drain_begin,
    .bdrv_drain_end = slow_drain_end,
    .bdrv_reopen_prepare = slow_co_reopen_prepare,
    .bdrv_reopen_commit = slow_reopen_commit,
    .bdrv_reopen_abort = slow_reopen_abort,
};

/* ---- what stands on it ---- */

static bool coroutine_fn pass_co_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                      GError **errp)
{
    bs->length = SLOW_BYTES;
    bs->supported_write_flags = BDRV_REQ_FUA;
    return true;
}

static int coroutine_fn pass_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                      size_t iov_offset, BdrvRequestFlags flags)
{
    return bdrv_co_preadv(bs->file, offset, bytes, iov, iov_offset, flags);
}

static int coroutine_fn pass_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                       size_t iov_offset, BdrvRequestFlags flags)
{
    return bdrv_co_pwritev(bs->file, offset, bytes, iov, iov_offset, flags);
}

static bool coroutine_fn pass_co_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options,
                                                BdrvOpenFlags flags, void **state, GError **errp)
{
    return true;
}

static const BdrvChildSpec shape_children[] = {
    { "file", BDRV_CHILD_PROTOCOL, false },
    { NULL },
};

static const BlockDriver bdrv_shape = {
    .format_name = "shape",
    .children = shape_children,
    .supports_backing = true,
    .bdrv_open = pass_co_open,
    .bdrv_co_readv = pass_co_readv,
    .bdrv_co_writev = pass_co_writev,
    .bdrv_reopen_prepare = pass_co_reopen_prepare,
};

static const BdrvChildSpec veil_children[] = {
    { "file", BDRV_CHILD_FILTERED, false },
    { NULL },
};

static const BlockDriver bdrv_veil = {
    .format_name = "veil",
    .is_filter = true,
    .children = veil_children,
    .bdrv_open = pass_co_open,
    .bdrv_co_readv = pass_co_readv,
    .bdrv_co_writev = pass_co_writev,
};

void slow_register(void)
{
    g_assert_true(bdrv_register(&bdrv_slow));
    g_assert_true(bdrv_register(&bdrv_shape));
    g_assert_true(bdrv_register(&bdrv_veil));
}

/* ---- handles for tests ---- */

SlowState *slow_state(BdrvGraph *graph, const char *node_name)
{
    BlockDriverState *bs = bdrv_graph_find(graph, node_name);

    g_assert_nonnull(bs);
    return bs->opaque;
}

void slow_hold(SlowState *slow)
{
    pthread_mutex_lock(&slow->lock);
    slow->hold = true;
    pthread_mutex_unlock(&slow->lock);
}

void slow_release(SlowState *slow)
{
    pthread_mutex_lock(&slow->lock);
    slow->hold = false;
    co_queue_wake_all(&slow->held);
    pthread_mutex_unlock(&slow->lock);
}

unsigned slow_holding(SlowState *slow)
{
    unsigned holding;

    pthread_mutex_lock(&slow->lock);
    holding = slow->holding;
    pthread_mutex_unlock(&slow->lock);
    return holding;
}

BlockBackend *slow_open(BdrvGraph *graph, const char *options, BdrvOpenFlags flags)
{
    GError *error = NULL;
    BlockBackend *blk = blk_open(graph, NULL, bdrv_options_parse(options, NULL, &error), flags, &error);

    g_assert_no_error(error);
    g_assert_nonnull(blk);
    return blk;
}

void slow_run_until_idle(void)
{
    while (aio_context_run(aio_context_current(), false)) {
    }
}
