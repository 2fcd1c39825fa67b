/* SPDX-License-Identifier: MIT */
/*
 * Refusals, until map and metadata cache are in the build: weak, so that the real functions take their
 * place as they come. Create, info and check work without them.
 */

#include <errno.h>

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/meta/meta.h"

#define MISSING __attribute__((weak))

MISSING bool coroutine_fn qcow2_meta_open(BlockDriverState *bs, const Qcow2MetaConfig *config, GError **errp)
{
    if (bs->open_flags & BDRV_O_CHECK) {
        return true;
    }
    g_set_error(errp, BDRV_ERROR, ENOTSUP, "reading and writing qcow2 is not built yet");
    return false;
}

MISSING int coroutine_fn qcow2_meta_close(BlockDriverState *bs)
{
    return 0;
}

MISSING int coroutine_fn qcow2_meta_settle(BlockDriverState *bs)
{
    return 0;
}

MISSING int coroutine_fn qcow2_meta_commit(BlockDriverState *bs)
{
    return -ENOTSUP;
}

MISSING int coroutine_fn qcow2_meta_grow_l1(BlockDriverState *bs, uint64_t entries)
{
    return -ENOTSUP;
}

MISSING int coroutine_fn qcow2_write_header_sector(BlockDriverState *bs)
{
    return -ENOTSUP;
}

MISSING int64_t coroutine_fn qcow2_alloc_clusters(BlockDriverState *bs, uint64_t host_hint, uint64_t count,
                                                  uint64_t *host_offset)
{
    return -ENOTSUP;
}

MISSING void qcow2_release_clusters(BlockDriverState *bs, uint64_t host_offset, uint64_t count)
{
}

MISSING int coroutine_fn qcow2_l2_read(BlockDriverState *bs, uint64_t guest_offset, uint64_t *entries, unsigned max)
{
    return -ENOTSUP;
}

MISSING int coroutine_fn qcow2_l2_publish(BlockDriverState *bs, uint64_t guest_offset, const uint64_t *entries,
                                          unsigned count, uint64_t *old)
{
    return -ENOTSUP;
}

MISSING int coroutine_fn qcow2_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                        size_t iov_offset, BdrvRequestFlags flags)
{
    return -ENOTSUP;
}

MISSING int coroutine_fn qcow2_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                         size_t iov_offset, BdrvRequestFlags flags)
{
    return -ENOTSUP;
}

MISSING int coroutine_fn qcow2_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                               BdrvRequestFlags flags)
{
    return -ENOTSUP;
}

MISSING int coroutine_fn qcow2_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return -ENOTSUP;
}

MISSING int coroutine_fn qcow2_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                               BlockExtent *extent)
{
    return -ENOTSUP;
}

MISSING int coroutine_fn qcow2_co_flush_to_disk(BlockDriverState *bs)
{
    return 0;
}

MISSING void coroutine_fn qcow2_drain_begin(BlockDriverState *bs)
{
}

MISSING void coroutine_fn qcow2_drain_end(BlockDriverState *bs)
{
}
