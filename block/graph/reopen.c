/* SPDX-License-Identifier: MIT */
/*
 * Reopen: the same nodes with other flags and options. Rights and file locks are part of the
 * transaction: they are taken (old and new together) before any driver prepares, and given up when
 * all have committed or aborted.
 */
#include "block/graph/graph_int.h"

#include <errno.h>

static bool item_writes(const BdrvReopenItem *item)
{
    return item->flags & BDRV_O_RDWR;
}

/* What was written must be durable before the right to write is gone. */
static bool coroutine_fn flush_writers(BdrvEdge *edge, const BdrvReopenItem *items, unsigned count, GError **errp)
{
    int ret = 0;

    if (count > 0 && bdrv_node_writes(bdrv_node(items[0].bs)) && !item_writes(&items[0])) {
        ret = bdrv_co_flush(&edge->child);
    }
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "flushing '%s' before it becomes read-only failed: %s",
                    edge->child.bs->filename, g_strerror(-ret));
    }
    return ret >= 0;
}

static bool coroutine_fn prepare_item(BdrvReopenItem *item, GError **errp)
{
    const BlockDriver *drv = item->bs->drv;

    if (drv->bdrv_reopen_prepare) {
        return drv->bdrv_reopen_prepare(item->bs, item->options, item->flags, &item->state, errp);
    }
    if (drv->is_filter) {
        return true;
    }
    g_set_error(errp, BDRV_ERROR, ENOTSUP, "driver '%s' cannot change the way '%s' is open; close and open it",
                drv->format_name, item->bs->filename);
    return false;
}

static void abort_item(BdrvReopenItem *item)
{
    if (item->bs->drv->bdrv_reopen_abort && item->bs->drv->bdrv_reopen_prepare) {
        item->bs->drv->bdrv_reopen_abort(item->bs, item->state);
    }
}

static void commit_item(BdrvReopenItem *item)
{
    BlockDriverState *bs = item->bs;
    BdrvNode *node = bdrv_node(bs);

    bdrv_node_set_mode(bs, item->flags, !item_writes(item));
    node->force_share = item->force_share;
    node->detect_zeroes = item->detect_zeroes;
    bdrv_options_free(node->options);
    node->options = g_steal_pointer(&item->own);
    bdrv_options_free(node->explicit_options);
    node->explicit_options = g_steal_pointer(&item->given);
    if (bs->drv->bdrv_reopen_commit && bs->drv->bdrv_reopen_prepare) {
        bs->drv->bdrv_reopen_commit(bs, item->state);
    }
}

/* Only the way back to reading is left, which cannot fail: rights are given up. Files below may stay open for writing. */
static void coroutine_fn back_to_reading(BdrvEdge *edge, BlockDriverState *bs)
{
    BdrvEdit edit;

    bdrv_node_set_mode(bs, bs->open_flags & ~(BDRV_O_RDWR | BDRV_O_RESIZE), true);
    bdrv_edit_begin(&edit, bs->graph);
    bdrv_edit_set_node_mode(&edit, bdrv_node(bs), false, bdrv_node(bs)->force_share);
    if (bs == edge->child.bs) {
        bdrv_edit_set_root_rights(&edit, edge, (BdrvRights){ BDRV_RIGHT_CONSISTENT_READ, edge->shared });
    }
    if (bdrv_edit_prepare(&edit, NULL)) {
        bdrv_edit_commit(&edit);
    }
    bdrv_edit_end(&edit);
}

/* Children before their parents. */
static bool coroutine_fn finish_items(BdrvEdge *edge, BdrvReopenItem *items, unsigned count, GError **errp)
{
    bool ok = true;

    for (unsigned i = count; i > 0; i--) {
        BlockDriverState *bs = items[i - 1].bs;

        if (ok && !bs->read_only && bs->drv->bdrv_reopen_finish && !bs->drv->bdrv_reopen_finish(bs, errp)) {
            back_to_reading(edge, bs);
            ok = false;
        }
    }
    return ok;
}

static bool coroutine_fn reopen_drained(BdrvEdge *edge, unsigned used, BdrvReopenItem *items, unsigned count,
                                        GError **errp)
{
    unsigned prepared = 0;
    BdrvEdit edit;
    bool ok;

    if (!flush_writers(edge, items, count, errp)) {
        return false;
    }
    bdrv_edit_begin(&edit, edge->child.bs->graph);
    for (unsigned i = 0; i < count; i++) {
        bdrv_edit_set_node_mode(&edit, bdrv_node(items[i].bs), item_writes(&items[i]), items[i].force_share);
    }
    bdrv_edit_set_root_rights(&edit, edge, (BdrvRights){ .used = used, .shared = edge->shared });
    ok = bdrv_edit_prepare(&edit, errp);
    while (ok && prepared < count) {
        ok = prepare_item(&items[prepared], errp);
        prepared += ok;
    }
    if (ok) {
        for (unsigned i = count; i > 0; i--) {
            commit_item(&items[i - 1]);
        }
        bdrv_edit_commit(&edit);
        for (unsigned i = count; i > 0; i--) {
            bdrv_refresh_node_limits(items[i - 1].bs);
        }
    } else {
        while (prepared > 0) {
            abort_item(&items[--prepared]);
        }
    }
    bdrv_edit_end(&edit);
    return ok && finish_items(edge, items, count, errp);
}

bool coroutine_fn bdrv_co_reopen_items(BdrvEdge *edge, unsigned used, BdrvReopenItem *items, unsigned count,
                                       GError **errp)
{
    BlockDriverState *root = edge->child.bs;
    int ret = bdrv_co_drain_begin(root);
    bool ok = false;

    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "'%s' cannot be reopened from inside one of its requests",
                    root->filename);
    } else {
        ok = reopen_drained(edge, used, items, count, errp);
        bdrv_co_refresh_filter_lengths(root); /* raw may show another part of its file */
        bdrv_co_drain_end(root);
    }
    for (unsigned i = 0; i < count; i++) {
        bdrv_options_free(items[i].options);
        bdrv_options_free(items[i].own);
        bdrv_options_free(items[i].given);
    }
    return ok;
}
