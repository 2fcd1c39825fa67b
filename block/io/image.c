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

static bool has_spec(const BdrvOptionSpec *specs, const char *key)
{
    while (specs && specs->name && !g_str_equal(specs->name, key)) {
        specs++;
    }
    return specs && specs->name;
}

/* What is decided for good when an image is made is not merely unknown. */
static bool check_amendable(const BlockDriver *drv, const BdrvOptions *options, GError **errp)
{
    for (unsigned i = 0; i < bdrv_options_count(options); i++) {
        const char *key;
        bdrv_options_nth(options, i, &key, NULL, NULL);
        if (!has_spec(drv->amend_options, key) && has_spec(drv->create_options, key)) {
            g_set_error(errp, BDRV_ERROR, EINVAL,
                        "Invalid parameter '%s': This option is only supported for image creation; convert the image",
                        key);
            return false;
        }
    }
    return true;
}

bool coroutine_fn bdrv_co_amend(BlockDriverState *bs, const BdrvOptions *options, bool force,
                                BdrvProgressFunc *progress, void *opaque, GError **errp)
{
    bs = bdrv_skip_filters(bs);
    const BdrvOptionSpec *const specs[] = { bs->drv->amend_options, NULL };
    g_autoptr(BdrvOptions) checked = bdrv_options_copy(options);
    if (!bdrv_supports(bs, bs->drv->bdrv_amend && bs->drv->amend_options, "option amendment", errp) ||
        !check_amendable(bs->drv, options, errp) ||
        !bdrv_options_validate(checked, specs, "the amendment", errp)) {
        return false;
    }
    bool ok = bs->drv->bdrv_amend(bs, checked, force, progress, opaque, errp);
    bdrv_note_write(bs);
    return ok;
}

bool coroutine_fn bdrv_co_invalidate_cache(BlockDriverState *bs, GError **errp)
{
    BdrvNode *node = bdrv_node(bs);
    for (unsigned i = 0; i < node->children->len; i++) {
        const BdrvEdge *edge = node->children->pdata[i];
        if (!bdrv_co_invalidate_cache(edge->child.bs, errp)) {
            return false;
        }
    }
    if (bs->drv->bdrv_invalidate_cache && !bs->drv->bdrv_invalidate_cache(bs, errp)) {
        bdrv_error_prefix(errp, bs->filename);
        return false;
    }
    int ret = bdrv_co_refresh_length(bs);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot get the length of '%s': %s", bs->filename, g_strerror(-ret));
        return false;
    }
    bdrv_refresh_node_limits(bs);
    return true;
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
