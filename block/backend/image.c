/* SPDX-License-Identifier: MIT */
/* Changes of an image as a whole. Each runs drained. */
#include "block/backend/backend_int.h"
#include "block/io/io.h"

#include <errno.h>

typedef struct ImageCall ImageCall;

struct ImageCall {
    bool (*func)(BlockDriverState *bs, const ImageCall *call);
    const char *filename, *format;
    GError **errp;
    bool ok;
};

static int coroutine_fn run_call(BlockBackend *blk, void *opaque)
{
    ImageCall *call = opaque;

    if (!blk_begin_change(blk, call->errp)) {
        return 0;
    }
    if (blk_is_read_only(blk)) {
        g_set_error(call->errp, BDRV_ERROR, EACCES, "'%s' is read-only; open it read-write to change it",
                    blk_filename(blk));
    } else {
        call->ok = call->func(blk_bs(blk), call);
    }
    blk_end_change(blk);
    return 0;
}

static bool change(BlockBackend *blk, ImageCall *call)
{
    blk_has_run(blk_run_blocking(blk, run_call, call), call->errp);
    return call->ok;
}

static bool coroutine_fn change_backing_file(BlockDriverState *bs, const ImageCall *call)
{
    return bdrv_co_change_backing_file(bs, call->filename, call->format, call->errp);
}

bool blk_change_backing_file(BlockBackend *blk, const char *filename, const char *format, GError **errp)
{
    return change(blk, &(ImageCall){ change_backing_file, .filename = filename, .format = format, .errp = errp });
}

static bool coroutine_fn make_empty(BlockDriverState *bs, const ImageCall *call)
{
    return bdrv_co_make_empty(bs, call->errp);
}

bool blk_make_empty(BlockBackend *blk, GError **errp)
{
    return change(blk, &(ImageCall){ make_empty, .errp = errp });
}
