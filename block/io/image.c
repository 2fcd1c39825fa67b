/* SPDX-License-Identifier: MIT */

/* Changes of an image as a whole, of the first node below @bs that is no filter. Drained. */

#include <errno.h>

#include "block/io/io.h"
#include "block/io/request.h"

bool coroutine_fn bdrv_co_change_backing_file(BlockDriverState *bs, const char *filename, const char *format,
                                              GError **errp)
{
    bs = bdrv_skip_filters(bs);
    if (!bdrv_supports(bs, bs->drv->bdrv_change_backing_file, "another backing file", errp)) {
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
    bs = bdrv_skip_filters(bs);
    if (!bdrv_supports(bs, bs->drv->bdrv_make_empty, "emptying images", errp)) {
        return false;
    }
    int ret = bs->drv->bdrv_make_empty(bs);
    bdrv_note_write(bs);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "Could not empty '%s': %s", bs->filename, g_strerror(-ret));
    }
    return ret >= 0;
}

bool coroutine_fn bdrv_co_set_key(BlockDriverState *bs, const uint8_t *key, size_t bytes, GError **errp)
{
    bs = bdrv_skip_filters(bs);
    if (!bs->encrypted || !bs->drv->bdrv_set_key) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "'%s' is not encrypted", bs->filename);
        return false;
    }
    return bs->drv->bdrv_set_key(bs, key, bytes, errp);
}
