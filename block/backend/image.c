/* SPDX-License-Identifier: MIT */
/* Changes of an image as a whole. Each runs drained. */
#include "block/backend/backend_int.h"
#include "block/io/io.h"

typedef struct BackingName {
    const char *filename, *format;
} BackingName;

static bool coroutine_fn change_backing_file(BlockBackend *blk, const void *args, GError **errp)
{
    const BackingName *name = args;
    return bdrv_co_change_backing_file(blk_bs(blk), name->filename, name->format, errp);
}

bool blk_change_backing_file(BlockBackend *blk, const char *filename, const char *format, GError **errp)
{
    return blk_change(blk, "change it", change_backing_file, &(BackingName){ filename, format }, errp);
}

static bool coroutine_fn make_empty(BlockBackend *blk, const void *args, GError **errp)
{
    return bdrv_co_make_empty(blk_bs(blk), errp);
}

bool blk_make_empty(BlockBackend *blk, GError **errp)
{
    return blk_change(blk, "change it", make_empty, NULL, errp);
}

typedef struct AmendCall {
    const BdrvOptions *options;
    bool force;
    BdrvProgressFunc *progress;
    void *opaque;
} AmendCall;

static bool coroutine_fn amend(BlockBackend *blk, const void *args, GError **errp)
{
    const AmendCall *call = args;
    return bdrv_co_amend(blk_bs(blk), call->options, call->force, call->progress, call->opaque, errp);
}

/* The size may be among the options. */
static bool coroutine_fn amend_resizable(BlockBackend *blk, const void *args, GError **errp)
{
    return blk_co_with_resize(blk, amend, args, errp);
}

bool blk_amend(BlockBackend *blk, const BdrvOptions *options, bool force, BdrvProgressFunc *progress, void *opaque,
               GError **errp)
{
    g_autoptr(BdrvOptions) ours = bdrv_options_copy(options);
    AmendCall call = { ours, force, progress, opaque };
    BlkChangeFunc *func = bdrv_options_has(ours, "size") ? amend_resizable : amend;
    return blk_change(blk, "amend it", func, &call, errp);
}

static bool coroutine_fn invalidate_cache(BlockBackend *blk, const void *args, GError **errp)
{
    return bdrv_co_invalidate_cache(blk_bs(blk), errp);
}

bool blk_invalidate_cache(BlockBackend *blk, GError **errp)
{
    return blk_change(blk, NULL, invalidate_cache, NULL, errp);
}

typedef struct Key {
    const uint8_t *data;
    size_t bytes;
} Key;

static bool coroutine_fn set_key(BlockBackend *blk, const void *args, GError **errp)
{
    const Key *key = args;
    return bdrv_co_set_key(blk_bs(blk), key->data, key->bytes, errp);
}

bool coroutine_fn blk_co_set_key(BlockBackend *blk, const void *key, size_t bytes, GError **errp)
{
    return blk_co_change(blk, NULL, set_key, &(Key){ key, bytes }, errp);
}

bool blk_set_key(BlockBackend *blk, const void *key, size_t bytes, GError **errp)
{
    return blk_change(blk, NULL, set_key, &(Key){ key, bytes }, errp);
}
