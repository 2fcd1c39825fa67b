/* SPDX-License-Identifier: MIT */
/* Breakpoints. Nothing here yields, so that a callback may resume what another waits for. */
#include "block/backend/backend_int.h"

#include <errno.h>

typedef struct DebugCall {
    const char *tag;
    BdrvDebugEvent event;
} DebugCall;

static int set_breakpoint(BlockBackend *blk, void *opaque)
{
    const DebugCall *call = opaque;

    return bdrv_breakpoint_set(blk_bs(blk), call->event, call->tag);
}

bool blk_debug_breakpoint(BlockBackend *blk, const char *event, const char *tag, GError **errp)
{
    DebugCall call = { .tag = tag };
    int ret;

    if (!bdrv_event_parse(event, &call.event, errp)) {
        return false;
    }
    ret = blk_ask_anywhere(blk, set_breakpoint, &call);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "'%s' has no node that stops requests; put blkdebug under it",
                    blk_filename(blk));
    }
    return ret >= 0;
}

static int remove_breakpoint(BlockBackend *blk, void *opaque)
{
    return bdrv_breakpoint_remove(blk_bs(blk), opaque);
}

int blk_debug_remove_breakpoint(BlockBackend *blk, const char *tag)
{
    return blk_ask_anywhere(blk, remove_breakpoint, (void *)tag);
}

static int resume(BlockBackend *blk, void *opaque)
{
    return bdrv_breakpoint_resume(blk_bs(blk), opaque);
}

int blk_debug_resume(BlockBackend *blk, const char *tag)
{
    return blk_ask_anywhere(blk, resume, (void *)tag);
}

static int is_suspended(BlockBackend *blk, void *opaque)
{
    return bdrv_breakpoint_is_suspended(blk_bs(blk), opaque);
}

int blk_debug_is_suspended(BlockBackend *blk, const char *tag)
{
    return blk_ask_anywhere(blk, is_suspended, (void *)tag);
}
