/* SPDX-License-Identifier: MIT */

/*
 * Debug events. What a driver raises goes to every listener below its node. What the request layer
 * raises about a node's own requests (pwritev, pwritev_rmw_head …) goes to that node's driver alone, so
 * that one request is one event however many nodes it passes: see bdrv_event().
 *
 * Breakpoints are the business of the first node down from the one asked that knows them.
 */

#include "block/coroutine/coroutine_int.h"
#include "block/io/request.h"

void coroutine_fn bdrv_debug_event(BlockDriverState *bs, BdrvDebugEvent event)
{
    while (G_UNLIKELY(bdrv_node(bs)->event_listener_below) && bs->file) {
        bs = bs->file->bs;
        bdrv_event(bs, event);
    }
    co_maybe_yield_at_lock(); /* a place where others may come in between is one in a seeded run too */
}

static BlockDriverState *find_breaker(BlockDriverState *bs)
{
    while (!bs->drv->bdrv_debug_breakpoint && bs->file) {
        bs = bs->file->bs;
    }
    return bs->drv->bdrv_debug_breakpoint ? bs : NULL;
}

int bdrv_breakpoint_set(BlockDriverState *bs, BdrvDebugEvent event, const char *tag)
{
    bs = find_breaker(bs);
    return bs ? bs->drv->bdrv_debug_breakpoint(bs, event, tag) : -ENOTSUP;
}

int bdrv_breakpoint_remove(BlockDriverState *bs, const char *tag)
{
    bs = find_breaker(bs);
    return bs && bs->drv->bdrv_debug_remove_breakpoint ? bs->drv->bdrv_debug_remove_breakpoint(bs, tag) : -ENOTSUP;
}

int bdrv_breakpoint_resume(BlockDriverState *bs, const char *tag)
{
    bs = find_breaker(bs);
    return bs && bs->drv->bdrv_debug_resume ? bs->drv->bdrv_debug_resume(bs, tag) : -ENOTSUP;
}

int bdrv_breakpoint_is_suspended(BlockDriverState *bs, const char *tag)
{
    bs = find_breaker(bs);
    return bs && bs->drv->bdrv_debug_is_suspended ? bs->drv->bdrv_debug_is_suspended(bs, tag) : -ENOTSUP;
}
