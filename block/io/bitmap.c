/* SPDX-License-Identifier: MIT */

/* Persistent dirty bitmaps of the node that keeps them: the first below @bs that is no filter. */

#include "block/io/request.h"

#define WHAT "persistent dirty bitmaps"

int coroutine_fn bdrv_co_bitmap_list(BlockDriverState *bs, BdrvBitmapInfo **list, GError **errp)
{
    bs = bdrv_skip_filters(bs);
    return bdrv_supports(bs, bs->drv->bdrv_bitmap_list, WHAT, errp) ? bs->drv->bdrv_bitmap_list(bs, list, errp) : -1;
}

bool coroutine_fn bdrv_co_bitmap_add(BlockDriverState *bs, const char *name, int64_t granularity, bool enabled,
                                     GError **errp)
{
    bs = bdrv_skip_filters(bs);
    bool ok = bdrv_supports(bs, bs->drv->bdrv_bitmap_add, WHAT, errp) &&
              bs->drv->bdrv_bitmap_add(bs, name, granularity, enabled, errp);
    bdrv_note_write(bs);
    return ok;
}

bool coroutine_fn bdrv_co_bitmap_remove(BlockDriverState *bs, const char *name, GError **errp)
{
    bs = bdrv_skip_filters(bs);
    bool ok = bdrv_supports(bs, bs->drv->bdrv_bitmap_remove, WHAT, errp) && bs->drv->bdrv_bitmap_remove(bs, name, errp);
    bdrv_note_write(bs);
    return ok;
}

bool coroutine_fn bdrv_co_bitmap_clear(BlockDriverState *bs, const char *name, GError **errp)
{
    bs = bdrv_skip_filters(bs);
    bool ok = bdrv_supports(bs, bs->drv->bdrv_bitmap_clear, WHAT, errp) && bs->drv->bdrv_bitmap_clear(bs, name, errp);
    bdrv_note_write(bs);
    return ok;
}

bool coroutine_fn bdrv_co_bitmap_enable(BlockDriverState *bs, const char *name, bool enable, GError **errp)
{
    bs = bdrv_skip_filters(bs);
    bool ok = bdrv_supports(bs, bs->drv->bdrv_bitmap_enable, WHAT, errp) &&
              bs->drv->bdrv_bitmap_enable(bs, name, enable, errp);
    bdrv_note_write(bs);
    return ok;
}

bool coroutine_fn bdrv_co_bitmap_merge(BlockDriverState *bs, const char *name, const BdrvDirtyBits *source,
                                       GError **errp)
{
    bs = bdrv_skip_filters(bs);
    bool ok = bdrv_supports(bs, bs->drv->bdrv_bitmap_merge, WHAT, errp) &&
              bs->drv->bdrv_bitmap_merge(bs, name, source, errp);
    bdrv_note_write(bs);
    return ok;
}

BdrvDirtyBits *coroutine_fn bdrv_co_bitmap_read(BlockDriverState *bs, const char *name, GError **errp)
{
    bs = bdrv_skip_filters(bs);
    return bdrv_supports(bs, bs->drv->bdrv_bitmap_read, WHAT, errp) ? bs->drv->bdrv_bitmap_read(bs, name, errp) : NULL;
}
