/* SPDX-License-Identifier: MIT */

/* Internal snapshots and VM state of the node that keeps them: the first below @bs that is no filter. Drained. */

#include <errno.h>

#include "block/io/request.h"

/* Filters show the length of what is below them. */
static bool coroutine_fn refresh_lengths(BlockDriverState *bs, BlockDriverState *last, GError **errp)
{
    if (bs != last && !refresh_lengths(bs->file->bs, last, errp)) {
        return false;
    }
    int ret = bdrv_co_refresh_length(bs);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "Could not refresh the size: %s", g_strerror(-ret));
    }
    return ret >= 0;
}

int coroutine_fn bdrv_co_snapshot_list(BlockDriverState *bs, BdrvSnapshotInfo **list)
{
    bs = bdrv_skip_filters(bs);
    return bs->drv->bdrv_snapshot_list ? bs->drv->bdrv_snapshot_list(bs, list) : -ENOTSUP;
}

bool coroutine_fn bdrv_co_snapshot_create(BlockDriverState *bs, BdrvSnapshotInfo *info, GError **errp)
{
    bs = bdrv_skip_filters(bs);
    bool ok = bdrv_supports(bs, bs->drv->bdrv_snapshot_create, "internal snapshots", errp) &&
              bs->drv->bdrv_snapshot_create(bs, info, errp);
    bdrv_note_write(bs);
    return ok;
}

bool coroutine_fn bdrv_co_snapshot_goto(BlockDriverState *bs, const char *id, GError **errp)
{
    BlockDriverState *of = bdrv_skip_filters(bs);
    bool ok = bdrv_supports(of, of->drv->bdrv_snapshot_goto, "internal snapshots", errp) &&
              of->drv->bdrv_snapshot_goto(of, id, errp);
    bdrv_note_write(of);
    return refresh_lengths(bs, of, ok ? errp : NULL) && ok;
}

bool coroutine_fn bdrv_co_snapshot_delete(BlockDriverState *bs, const char *id, const char *name, GError **errp)
{
    bs = bdrv_skip_filters(bs);
    bool ok = bdrv_supports(bs, bs->drv->bdrv_snapshot_delete, "internal snapshots", errp) &&
              bs->drv->bdrv_snapshot_delete(bs, id, name, errp);
    bdrv_note_write(bs);
    return ok;
}

bool coroutine_fn bdrv_co_snapshot_load_tmp(BlockDriverState *bs, const char *id, const char *name, GError **errp)
{
    BlockDriverState *of = bdrv_skip_filters(bs);
    return bdrv_supports(of, of->drv->bdrv_snapshot_load_tmp, "temporarily loading internal snapshots", errp) &&
           of->drv->bdrv_snapshot_load_tmp(of, id, name, errp) && refresh_lengths(bs, of, errp);
}

int coroutine_fn bdrv_co_save_vmstate(BlockDriverState *bs, int64_t offset, const BdrvIov *iov)
{
    bs = bdrv_skip_filters(bs);
    if (!bs->drv->bdrv_save_vmstate) {
        return -ENOTSUP;
    }
    int ret = bs->drv->bdrv_save_vmstate(bs, offset, (int64_t)iov->bytes, iov);
    bdrv_note_write(bs);
    return ret;
}

int coroutine_fn bdrv_co_load_vmstate(BlockDriverState *bs, int64_t offset, const BdrvIov *iov)
{
    bs = bdrv_skip_filters(bs);
    return bs->drv->bdrv_load_vmstate ? bs->drv->bdrv_load_vmstate(bs, offset, (int64_t)iov->bytes, iov) : -ENOTSUP;
}
