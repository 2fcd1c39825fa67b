/* SPDX-License-Identifier: MIT */
/* Persistent dirty bitmaps. Changes run drained. */
#include <bdrv/bitmap.h>

#include "block/backend/backend_int.h"

#define PURPOSE "change its bitmaps"

/* ---- questions ---- */

typedef struct Question {
    const char *name;
    BdrvBitmapInfo *list;
    BdrvDirtyBits *bits;
    GError **errp;
} Question;

static int coroutine_fn list_bitmaps(BlockBackend *blk, void *opaque)
{
    Question *question = opaque;
    return bdrv_co_bitmap_list(blk_bs(blk), &question->list, question->errp);
}

int blk_bitmap_list(BlockBackend *blk, BdrvBitmapInfo **list, GError **errp)
{
    GError *error = NULL;
    Question question = { .errp = &error };
    int count = blk_ask(blk, list_bitmaps, &question);

    if (count < 0) {
        if (error) {
            g_propagate_error(errp, error);
        } else {
            blk_has_run(count, errp);
        }
        return -1;
    }
    *list = question.list;
    return count;
}

void bdrv_bitmap_list_free(BdrvBitmapInfo *list, int count)
{
    for (int i = 0; i < count; i++) {
        g_free(list[i].name);
    }
    g_free(list);
}

static int coroutine_fn read_bitmap(BlockBackend *blk, void *opaque)
{
    Question *question = opaque;
    question->bits = bdrv_co_bitmap_read(blk_bs(blk), question->name, question->errp);
    return 0;
}

BdrvDirtyBits *blk_bitmap_read(BlockBackend *blk, const char *name, GError **errp)
{
    Question question = { .name = name, .errp = errp };

    blk_has_run(blk_ask(blk, read_bitmap, &question), errp);
    return question.bits;
}

/* ---- changes ---- */

typedef struct Change {
    const char *name;
    int64_t granularity;
    bool enable;
    const BdrvDirtyBits *source;
} Change;

static bool coroutine_fn add(BlockBackend *blk, const void *args, GError **errp)
{
    const Change *change = args;
    return bdrv_co_bitmap_add(blk_bs(blk), change->name, change->granularity, change->enable, errp);
}

bool blk_bitmap_add(BlockBackend *blk, const char *name, int64_t granularity, bool enabled, GError **errp)
{
    return blk_change(blk, PURPOSE, add, &(Change){ name, granularity, enabled, NULL }, errp);
}

static bool coroutine_fn remove_bitmap(BlockBackend *blk, const void *args, GError **errp)
{
    const Change *change = args;
    return bdrv_co_bitmap_remove(blk_bs(blk), change->name, errp);
}

bool blk_bitmap_remove(BlockBackend *blk, const char *name, GError **errp)
{
    return blk_change(blk, PURPOSE, remove_bitmap, &(Change){ .name = name }, errp);
}

static bool coroutine_fn clear(BlockBackend *blk, const void *args, GError **errp)
{
    const Change *change = args;
    return bdrv_co_bitmap_clear(blk_bs(blk), change->name, errp);
}

bool blk_bitmap_clear(BlockBackend *blk, const char *name, GError **errp)
{
    return blk_change(blk, PURPOSE, clear, &(Change){ .name = name }, errp);
}

static bool coroutine_fn enable_bitmap(BlockBackend *blk, const void *args, GError **errp)
{
    const Change *change = args;
    return bdrv_co_bitmap_enable(blk_bs(blk), change->name, change->enable, errp);
}

bool blk_bitmap_enable(BlockBackend *blk, const char *name, bool enable, GError **errp)
{
    return blk_change(blk, PURPOSE, enable_bitmap, &(Change){ .name = name, .enable = enable }, errp);
}

static bool coroutine_fn merge(BlockBackend *blk, const void *args, GError **errp)
{
    const Change *change = args;
    return bdrv_co_bitmap_merge(blk_bs(blk), change->name, change->source, errp);
}

bool blk_bitmap_merge(BlockBackend *blk, const char *name, const BdrvDirtyBits *source, GError **errp)
{
    return blk_change(blk, PURPOSE, merge, &(Change){ .name = name, .source = source }, errp);
}
