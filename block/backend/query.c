/* SPDX-License-Identifier: MIT */
/* Questions about an image and its layers. Each is asked inside a request, so that nothing changes meanwhile. */
#include "block/backend/backend_int.h"
#include "block/open/open.h"

#include <errno.h>

/* Run @func inside a request: in this coroutine, or in one of its own. */
typedef struct InsideCall {
    BlkBlockingFunc *func;
    void *opaque;
} InsideCall;

static int coroutine_fn run_inside(BlockBackend *blk, void *opaque)
{
    const InsideCall *call = opaque;
    void *outer = bdrv_gate_enter(blk->gate);
    int ret = call->func(blk, call->opaque);

    bdrv_gate_leave(blk->gate, outer);
    return ret;
}

int blk_ask(BlockBackend *blk, BlkBlockingFunc *func, void *opaque)
{
    InsideCall call = { func, opaque };

    return blk_run_blocking(blk, run_inside, &call);
}

static int ask_at_once(BlockBackend *blk, BlkBlockingFunc *func, void *opaque)
{
    void *entered = bdrv_gate_try_enter(blk->gate);
    int ret;

    if (!entered) {
        return -EBUSY;
    }
    ret = func(blk, opaque);
    bdrv_gate_leave_entered(entered);
    return ret;
}

int blk_ask_anywhere(BlockBackend *blk, BlkBlockingFunc *func, void *opaque)
{
    BlkBlockingFunc *inside = run_inside; /* a coroutine_fn, which may be called in a coroutine alone */

    if (co_in_coroutine()) {
        return inside(blk, &(InsideCall){ func, opaque });
    }
    return aio_in_callback() ? ask_at_once(blk, func, opaque) : blk_ask(blk, func, opaque);
}

static int coroutine_fn has_zero_init(BlockBackend *blk, void *opaque)
{
    return bdrv_has_zero_init(blk_bs(blk));
}

bool blk_has_zero_init(BlockBackend *blk)
{
    return blk_ask_anywhere(blk, has_zero_init, NULL) == 1;
}

static int coroutine_fn get_info(BlockBackend *blk, void *opaque)
{
    return bdrv_get_info(blk_bs(blk), opaque);
}

int blk_get_info_sized(BlockBackend *blk, BdrvInfo *info, size_t info_size)
{
    BdrvInfo found = { 0 };
    int ret = blk_ask(blk, get_info, &found);

    if (ret >= 0) {
        bdrv_sized_out(info, info_size, &found, sizeof(found));
    }
    return ret < 0 ? ret : 0;
}

int blk_get_limits_sized(BlockBackend *blk, BdrvLimits *limits, size_t limits_size)
{
    BdrvLimits found = bdrv_node_limits(blk_bs(blk));

    bdrv_sized_out(limits, limits_size, &found, sizeof(found));
    return 0;
}

static int coroutine_fn allocated_size(BlockBackend *blk, void *opaque)
{
    int64_t *size = opaque;

    *size = bdrv_co_get_allocated_file_size(&blk->root->child);
    return 0;
}

int64_t blk_allocated_size(BlockBackend *blk)
{
    int64_t size = 0;
    int ret = blk_ask(blk, allocated_size, &size);

    return ret < 0 ? ret : size;
}

/* ---- layers ---- */

/* Filters are passed over, but not one that sits right on a protocol: raw is the layer then, not its file. */
static BdrvChild *skip_filters(BdrvChild *child)
{
    while (child->bs->drv->is_filter && child->bs->file && !child->bs->file->bs->drv->protocol_name) {
        child = child->bs->file;
    }
    return child;
}

static BdrvChild *find_layer(BlockBackend *blk, unsigned depth)
{
    BdrvChild *child = skip_filters(&blk->root->child);

    for (; depth > 0; depth--) {
        if (!child->bs->backing) {
            return NULL;
        }
        child = skip_filters(child->bs->backing);
    }
    return child;
}

typedef struct LayerCall {
    unsigned depth;
    BdrvLayer layer;
    BdrvOptions *specific;
} LayerCall;

static int coroutine_fn describe_layer(BlockBackend *blk, void *opaque)
{
    LayerCall *call = opaque;
    BdrvChild *child = find_layer(blk, call->depth);
    BlockDriverState *bs = child ? child->bs : NULL;
    g_autofree char *full = NULL;
    BdrvInfo info = { 0 };

    if (!child) {
        return -ENOENT;
    }
    full = bs->backing_filename ? bdrv_node_full_backing_filename(bs, NULL) : NULL;
    if (bdrv_get_info(bs, &info) < 0) {
        info = (BdrvInfo){ 0 };
    }
    call->layer = (BdrvLayer){
        .filename = blk_keep_text(blk, bs->filename),
        .driver = bs->drv->format_name,
        .node_name = blk_keep_text(blk, bs->node_name),
        .backing_filename = blk_keep_text(blk, bs->backing_filename),
        .backing_format = blk_keep_text(blk, bs->backing_format),
        .full_backing_filename = blk_keep_text(blk, full),
        .length = atomic_load_explicit(&bs->length, memory_order_relaxed),
        .allocated_size = bdrv_co_get_allocated_file_size(child),
        .encrypted = bs->encrypted,
        .is_dirty = info.is_dirty,
        .is_corrupt = info.is_corrupt,
        .cluster_size = info.cluster_size,
    };
    return 0;
}

bool blk_layer_sized(BlockBackend *blk, unsigned depth, BdrvLayer *layer, size_t layer_size)
{
    LayerCall call = { .depth = depth };

    if (blk_ask(blk, describe_layer, &call) < 0) {
        return false;
    }
    bdrv_sized_out(layer, layer_size, &call.layer, sizeof(call.layer));
    return true;
}

static int coroutine_fn count_layers(BlockBackend *blk, void *opaque)
{
    int *count = opaque;

    while (find_layer(blk, (unsigned)*count)) {
        ++*count;
    }
    return 0;
}

int blk_count_layers(BlockBackend *blk)
{
    int count = 0, ret = blk_ask(blk, count_layers, &count);

    return ret < 0 ? ret : count;
}

static int coroutine_fn layer_specific(BlockBackend *blk, void *opaque)
{
    LayerCall *call = opaque;
    BdrvChild *child = find_layer(blk, call->depth);

    call->specific = child ? bdrv_get_specific_info(child->bs) : NULL;
    return 0;
}

BdrvOptions *blk_layer_specific_info(BlockBackend *blk, unsigned depth)
{
    LayerCall call = { .depth = depth };

    blk_ask_anywhere(blk, layer_specific, &call);
    return call.specific;
}

char *blk_explain(BlockBackend *blk)
{
    return bdrv_explain(blk_bs(blk));
}

BdrvOptions *blk_get_specific_info(BlockBackend *blk)
{
    return blk_layer_specific_info(blk, 0);
}
