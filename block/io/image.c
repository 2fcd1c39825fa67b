/* SPDX-License-Identifier: MIT */

/* Changes of an image as a whole, of the first node below @bs that is no filter. Drained. */

#include <errno.h>

#include "block/io/io.h"
#include "block/io/request.h"

static BlockDriverState *skip_filters(BlockDriverState *bs)
{
    while (bs->drv->is_filter && bs->file) {
        bs = bs->file->bs;
    }
    return bs;
}

static bool supports(BlockDriverState *bs, bool callback, const char *what, GError **errp)
{
    if (!callback) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "Block driver '%s' does not support %s", bs->drv->format_name, what);
    }
    return callback;
}

bool coroutine_fn bdrv_co_change_backing_file(BlockDriverState *bs, const char *filename, const char *format,
                                              GError **errp)
{
    bs = skip_filters(bs);
    if (!supports(bs, bs->drv->bdrv_change_backing_file, "another backing file", errp)) {
        return false;
    }
    bool ok = bs->drv->bdrv_change_backing_file(bs, filename && *filename ? filename : NULL,
                                                format && *format ? format : NULL, errp);
    bdrv_note_write(bs);
    g_clear_pointer(&bdrv_node(bs)->full_backing_filename, g_free);
    return ok;
}

bool coroutine_fn bdrv_co_make_empty(BlockDriverState *bs, GError **errp)
{
    bs = skip_filters(bs);
    if (!supports(bs, bs->drv->bdrv_make_empty, "emptying images", errp)) {
        return false;
    }
    int ret = bs->drv->bdrv_make_empty(bs);
    bdrv_note_write(bs);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "Could not empty '%s': %s", bs->filename, g_strerror(-ret));
    }
    return ret >= 0;
}
