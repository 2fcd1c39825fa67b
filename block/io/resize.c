/* SPDX-License-Identifier: MIT */

/* Length: asking, noting and changing it. */

#include "block/io/request.h"

void bdrv_set_length(BlockDriverState *bs, int64_t length)
{
    atomic_store(&bs->length, length);
    bdrv_length_changed(bs);
}

int64_t coroutine_fn bdrv_co_getlength(BdrvChild *child)
{
    return atomic_load(&child->bs->length);
}

int coroutine_fn bdrv_co_refresh_length(BlockDriverState *bs)
{
    int64_t length;

    if (!bs->drv->bdrv_getlength) {
        if (bs->drv->is_filter && bs->file) {
            bdrv_set_length(bs, atomic_load(&bs->file->bs->length));
        } else {
            bdrv_length_changed(bs); /* or not: the driver has set it */
        }
        return 0;
    }
    length = bs->drv->bdrv_getlength(bs);
    if (length < 0) {
        return length;
    }
    bdrv_set_length(bs, length);
    return 0;
}

static bool check_length(int64_t length, GError **errp)
{
    if (length < 0 || length > BDRV_LENGTH_MAX) {
        g_set_error(errp, BDRV_ERROR, EFBIG,
                    "Image size %" G_GINT64_FORMAT " is not in 0 .. %" G_GINT64_FORMAT, length,
                    (gint64)BDRV_LENGTH_MAX);
        return false;
    }
    return true;
}

static bool cannot_resize(BlockDriverState *bs, GError **errp)
{
    g_set_error(errp, BDRV_ERROR, ENOTSUP, "Image format driver '%s' does not support resize", bs->drv->format_name);
    return false;
}

static bool check_truncate(BdrvChild *child, int64_t length, GError **errp)
{
    if (!check_length(length, errp)) {
        return false;
    }
    if (child->bs->read_only) {
        g_set_error(errp, BDRV_ERROR, EACCES, "Image is read-only");
        return false;
    }
    if (!(bdrv_edge(child)->used & BDRV_RIGHT_RESIZE)) {
        g_set_error(errp, BDRV_ERROR, EPERM, "Image was not opened for resizing");
        return false;
    }
    return true;
}

static bool coroutine_fn truncate_node(BlockDriverState *bs, int64_t length, bool exact,
                                       BdrvPrealloc prealloc, BdrvRequestFlags flags, GError **errp)
{
    int ret;

    if (bs->drv->bdrv_truncate) {
        if (!bs->drv->bdrv_truncate(bs, length, exact, prealloc, flags, errp)) {
            return false;
        }
    } else if (bs->drv->is_filter && bs->file) {
        if (!bdrv_co_truncate(bs->file, length, exact, prealloc, flags, errp)) {
            return false;
        }
    } else {
        return cannot_resize(bs, errp);
    }
    ret = bdrv_co_refresh_length(bs);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "Could not refresh the size after resizing: %s",
                    g_strerror(-ret));
        return false;
    }
    return true;
}

static bool coroutine_fn begin_guarded(BlockDriverState *bs, int64_t length, GError **errp)
{
    int ret = bdrv_guard_begin_resize(bs, length);

    if (ret == -EPERM) {
        g_set_error(
            errp, BDRV_ERROR, EPERM,
            "Resizing would make the image look like another format; open it with format=raw to allow it");
    } else if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "Could not read the start of the image to tell its format: %s",
                    g_strerror(-ret));
    }
    return ret >= 0;
}

bool coroutine_fn bdrv_co_truncate(BdrvChild *child, int64_t length, bool exact, BdrvPrealloc prealloc,
                                   BdrvRequestFlags flags, GError **errp)
{
    BlockDriverState *bs = child->bs;
    int64_t old = atomic_load(&bs->length);
    bool tracked = bdrv_must_track(bs), guarded = bdrv_guard_applies(bs, MIN(old, length)), ok;
    BdrvTrackedRequest request;

    if (!check_truncate(child, length, errp) || (guarded && !begin_guarded(bs, length, errp))) {
        return false;
    }
    if (tracked) { /* nobody may read-modify-write what comes or goes */
        bdrv_tracked_begin(bs, &request, bdrv_round_down(MIN(old, length), bdrv_alignment(bs)), INT64_MAX,
                           true);
    } else {
        co_rwlock_wrlock(&bdrv_io(bs)->length_lock);
    }
    ok = truncate_node(bs, length, exact, prealloc, flags, errp);
    bdrv_note_write(bs);
    if (tracked) {
        bdrv_tracked_end(bs, &request);
    } else {
        co_rwlock_unlock(&bdrv_io(bs)->length_lock);
    }
    if (guarded) {
        bdrv_guard_end(bs);
    }
    return ok;
}

bool coroutine_fn bdrv_co_check_truncate(BdrvChild *child, int64_t length, bool exact, BdrvPrealloc prealloc,
                                         GError **errp)
{
    BlockDriverState *bs = child->bs;

    if (!check_length(length, errp)) {
        return false;
    }
    if (bs->drv->bdrv_check_truncate) {
        return bs->drv->bdrv_check_truncate(bs, length, exact, prealloc, errp);
    }
    if (bs->drv->is_filter && bs->file) {
        return bdrv_co_check_truncate(bs->file, length, exact, prealloc, errp);
    }
    return bs->drv->bdrv_truncate || cannot_resize(bs, errp);
}
