/* SPDX-License-Identifier: MIT */
/* Making images, for callers outside of coroutines. */
#include "block/backend/backend_int.h"
#include "block/io/operation.h"
#include "block/open/open.h"

#include <errno.h>

typedef struct CreateCall {
    BdrvGraph *graph;
    const char *format, *filename;
    BdrvOptions *options;
    BdrvOperation operation;
    GError **errp;
    bool created;
} CreateCall;

static void coroutine_fn run_create(void *opaque)
{
    CreateCall *call = opaque;

    bdrv_operation_set(&call->operation);
    call->created =
        bdrv_co_create_image(call->graph, call->format, call->filename, g_steal_pointer(&call->options), call->errp);
}

bool bdrv_create_image_progress(BdrvGraph *graph, const char *format, const char *filename, BdrvOptions *options,
                                BdrvProgressFunc *progress, void *opaque, GError **errp)
{
    CreateCall call = { graph, format, filename, options, { progress, opaque }, errp, false };

    if (!blk_has_run(co_run_blocking(run_create, &call), errp)) {
        bdrv_options_free(call.options);
        return false;
    }
    return call.created;
}

bool bdrv_create_image(BdrvGraph *graph, const char *format, const char *filename, BdrvOptions *options, GError **errp)
{
    return bdrv_create_image_progress(graph, format, filename, options, NULL, NULL, errp);
}
