/* SPDX-License-Identifier: MIT */

/* Debug events: from whoever raises one down to the drivers that listen. */

#include "block/io/request.h"

void coroutine_fn bdrv_debug_event_walk(BlockDriverState *bs, BdrvDebugEvent event)
{
    for (; bs && bdrv_node(bs)->event_listener_below; bs = bs->file ? bs->file->bs : NULL) {
        if (bs->drv->bdrv_debug_event) {
            bs->drv->bdrv_debug_event(bs, event);
        }
    }
}

void coroutine_fn bdrv_debug_event(BlockDriverState *bs, BdrvDebugEvent event)
{
    bdrv_event(bs, event);
}
