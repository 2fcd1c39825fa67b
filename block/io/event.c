/* SPDX-License-Identifier: MIT */

/*
 * Debug events. What a driver raises goes to every listener below its node. What the request layer
 * raises about a node's own requests (pwritev, pwritev_rmw_head …) goes to that node's driver alone, so
 * that one request is one event however many nodes it passes: see bdrv_event().
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
