/* SPDX-License-Identifier: MIT */
/*
 * Breakpoints. Nothing here yields, so that a callback may resume what another waits for, also while the handle is
 * drained: the nodes below a handle stay where they are, and their drivers have locks of their own.
 */
#include "block/backend/backend_int.h"

bool blk_debug_breakpoint(BlockBackend *blk, const char *event, const char *tag, GError **errp)
{
    BdrvDebugEvent parsed;
    int ret;

    if (!bdrv_event_parse(event, &parsed, errp)) {
        return false;
    }
    ret = bdrv_breakpoint_set(blk_bs(blk), parsed, tag);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "'%s' has no node that stops requests; put blkdebug under it",
                    blk_filename(blk));
    }
    return ret >= 0;
}

int blk_debug_remove_breakpoint(BlockBackend *blk, const char *tag)
{
    return bdrv_breakpoint_remove(blk_bs(blk), tag);
}

int blk_debug_resume(BlockBackend *blk, const char *tag)
{
    return bdrv_breakpoint_resume(blk_bs(blk), tag);
}

int blk_debug_is_suspended(BlockBackend *blk, const char *tag)
{
    return bdrv_breakpoint_is_suspended(blk_bs(blk), tag);
}
