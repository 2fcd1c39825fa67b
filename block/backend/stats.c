/* SPDX-License-Identifier: MIT */
/* Statistics of the nodes of a handle. */
#include "block/backend/backend_int.h"
#include "block/io/stats.h"

#include <errno.h>

/* @func for @bs and all nodes below, some of them more than once, until it is false. */
typedef bool NodeFunc(BlockDriverState *bs, void *opaque);
static bool visit(BlockDriverState *bs, NodeFunc *func, void *opaque)
{
    GPtrArray *children = bdrv_node(bs)->children;
    bool ok = func(bs, opaque);

    for (unsigned i = 0; ok && i < children->len; i++) {
        const BdrvEdge *edge = children->pdata[i];

        ok = visit(edge->child.bs, func, opaque);
    }
    return ok;
}

static bool switch_node(BlockDriverState *bs, void *opaque)
{
    const bool *on = opaque;

    return bdrv_stats_switch(bs, *on);
}

static bool coroutine_fn switch_all(BlockBackend *blk, const void *args, GError **errp)
{
    bool ok = visit(blk_bs(blk), switch_node, (void *)args);

    if (!ok) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for statistics");
    }
    return ok;
}

bool blk_keep_stats(BlockBackend *blk, bool on, GError **errp)
{
    return blk_change(blk, NULL, switch_all, &on, errp);
}

typedef struct ReadCall {
    const char *node_name;
    BdrvNodeStats sums;
    bool found, kept;
} ReadCall;

static bool read_node(BlockDriverState *bs, void *opaque)
{
    ReadCall *call = opaque;

    call->found = !call->node_name || strcmp(call->node_name, bs->node_name) == 0;
    call->kept = call->found && bdrv_stats_read(bs, &call->sums);
    return !call->found;
}

static int coroutine_fn read_stats(BlockBackend *blk, void *opaque)
{
    visit(blk_bs(blk), read_node, opaque);
    return 0;
}

bool blk_get_stats_sized(BlockBackend *blk, const char *node_name, BdrvNodeStats *stats, size_t stats_size,
                         GError **errp)
{
    ReadCall call = { .node_name = node_name };

    if (!blk_has_run(blk_ask(blk, read_stats, &call), errp)) {
        return false;
    }
    if (!call.found) {
        g_set_error(errp, BDRV_ERROR, ENOENT, "'%s' has no node '%s' below it", blk_filename(blk), node_name);
        return false;
    }
    if (!call.kept) {
        g_set_error(errp, BDRV_ERROR, ENODATA, "no statistics of '%s' are kept; switch them on with blk_keep_stats()",
                    node_name ? node_name : blk_filename(blk));
        return false;
    }
    bdrv_sized_out(stats, stats_size, &call.sums, sizeof(call.sums));
    return true;
}
