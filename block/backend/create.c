/* SPDX-License-Identifier: MIT */
/* Making images, for callers outside of coroutines. */
#include "block/backend/backend_int.h"
#include "block/open/open.h"

#include <errno.h>

typedef struct CreateCall {
    BdrvGraph *graph;
    const char *format, *filename;
    BdrvOptions *options;
    GError **errp;
    bool created;
} CreateCall;

static void coroutine_fn run_create(void *opaque)
{
    CreateCall *call = opaque;

    call->created =
        bdrv_co_create_image(call->graph, call->format, call->filename, g_steal_pointer(&call->options), call->errp);
}

bool bdrv_create_image(BdrvGraph *graph, const char *format, const char *filename, BdrvOptions *options, GError **errp)
{
    CreateCall call = { graph, format, filename, options, errp, false };

    if (!blk_has_run(co_run_blocking(run_create, &call), errp)) {
        bdrv_options_free(call.options);
        return false;
    }
    return call.created;
}
