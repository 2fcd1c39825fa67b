/* SPDX-License-Identifier: MIT */
/*
 * Reopen: what becomes of flags and options. The flags given are the root's and go down to the
 * children as when opening; options of then (cache.direct=on, file.read-only=on) still win over them.
 * But whether the root may be written to is what the flags say: that is what most reopens are for.
 * Children that are nodes of their own (file=node-name) and backing files stay as they are.
 */
#include "block/open/open_int.h"
#include "block/util/options_tree.h"

#include <errno.h>

/* Part of what the node is, not of how it may be used: a reopen does not speak of them. */
#define LASTING_FLAGS (BDRV_O_CHECK | BDRV_O_NO_BACKING | BDRV_O_NO_IO)

typedef struct ReopenPlan {
    GArray *items; /* BdrvReopenItem, parents first */
    const BlockDriverState *root;
} ReopenPlan;

static void plan_clear(ReopenPlan *plan)
{
    for (unsigned i = 0; i < plan->items->len; i++) {
        BdrvReopenItem *item = &g_array_index(plan->items, BdrvReopenItem, i);

        bdrv_options_free(item->options);
        bdrv_options_free(item->own);
        bdrv_options_free(item->given);
    }
}

/* Options of every node that were given for this one at open or by an earlier reopen, and not now. */
static void keep_given(const BdrvNode *node, BdrvOptions *options, bool is_root, BdrvOpenFlags flags)
{
    static const char *const kept[] = { "cache.direct", "cache.no-flush", "cache.drop-behind", "discard",
                                        "detect-zeroes", "force-share", "read-only" };
    unsigned count = !is_root ? 7 : flags & BDRV_O_RDWR ? 5 : 6; /* a writer cannot share by force */

    for (unsigned i = 0; i < count; i++) {
        if (node->explicit_options && !bdrv_options_has(options, kept[i])) {
            bdrv_options_copy_leaf(options, kept[i], node->explicit_options, kept[i]);
        }
    }
}

static bool check_unchangeable(const BlockDriverState *bs, BdrvOptions *options, GError **errp)
{
    const char *driver = bdrv_options_get_string(options, "driver", bs->drv->format_name);
    const char *name = bdrv_options_get_string(options, "node-name", bs->node_name);

    if (!g_str_equal(driver, bs->drv->format_name) || !g_str_equal(name, bs->node_name)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "driver '%s' and node-name '%s' cannot be changed by reopening; close it and open it",
                    bs->drv->format_name, bs->node_name);
        return false;
    }
    bdrv_options_remove(options, "driver");
    bdrv_options_remove(options, "node-name");
    return true;
}

/* Opened for this parent alone, not a node of its own. */
static bool belongs_to_parent(const BdrvEdge *edge)
{
    const BdrvOptions *given = edge->parent->explicit_options;

    return edge->child.role != BDRV_CHILD_COW && !(given && bdrv_options_has(given, edge->child.name)) &&
           bdrv_node(edge->child.bs)->parents->len == 1;
}

static bool plan_node(ReopenPlan *plan, BlockDriverState *bs, BdrvOptions *given, BdrvOpenFlags flags, GError **errp);

static bool plan_children(ReopenPlan *plan, BdrvNode *node, BdrvOptions *given, BdrvOpenFlags flags, GError **errp)
{
    for (unsigned i = 0; i < node->children->len; i++) {
        const BdrvEdge *edge = node->children->pdata[i];
        g_autoptr(BdrvOptions) below = NULL;

        if (!belongs_to_parent(edge)) {
            continue; /* options for it are left over, and refused as unknown */
        }
        below = bdrv_options_take_subtree(given, edge->child.name);
        if (!plan_node(plan, edge->child.bs, below, bdrv_inherited_flags(edge->child.role, flags), errp)) {
            return false;
        }
    }
    return true;
}

/* @given: the options for this node and its children; what is used up is removed. */
static bool plan_node(ReopenPlan *plan, BlockDriverState *bs, BdrvOptions *given, BdrvOpenFlags flags, GError **errp)
{
    BdrvNode *node = bdrv_node(bs);
    BdrvReopenItem item = { .bs = bs };
    g_autoptr(BdrvOptions) own = NULL, checked = NULL;
    BdrvNodeOptions common = { 0 };
    unsigned place = plan->items->len;

    flags |= bs->open_flags & LASTING_FLAGS;
    item.given = node->explicit_options ? bdrv_options_copy(node->explicit_options) : bdrv_options_new();
    bdrv_options_merge(item.given, NULL, given);
    keep_given(node, given, bs == plan->root, flags);
    if (!check_unchangeable(bs, given, errp) || !bdrv_take_node_options(given, flags, &common, errp)) {
        bdrv_options_free(item.given);
        return false;
    }
    g_free(common.node_name);
    item.flags = common.flags;
    item.force_share = common.flags & BDRV_O_FORCE_SHARE;
    item.detect_zeroes = common.detect_zeroes;
    g_array_append_val(plan->items, item);
    if (!plan_children(plan, node, given, common.flags, errp)) {
        return false;
    }
    own = bdrv_options_copy(node->options);
    bdrv_options_merge(own, NULL, given);
    checked = bdrv_options_copy(own);
    if (!bdrv_validate_open_options(bs->drv, checked, errp)) {
        return false;
    }
    if (item.flags == bs->open_flags && item.detect_zeroes == node->detect_zeroes &&
        bdrv_options_count(given) == 0) {
        bdrv_options_free(g_array_index(plan->items, BdrvReopenItem, place).given);
        g_array_remove_index(plan->items, place);
        return true;
    }
    g_array_index(plan->items, BdrvReopenItem, place).options = g_steal_pointer(&checked);
    g_array_index(plan->items, BdrvReopenItem, place).own = g_steal_pointer(&own);
    return true;
}

static unsigned root_rights(const ReopenPlan *plan)
{
    BdrvOpenFlags flags = plan->root->open_flags;

    for (unsigned i = 0; i < plan->items->len; i++) {
        const BdrvReopenItem *item = &g_array_index(plan->items, BdrvReopenItem, i);

        flags = item->bs == plan->root ? item->flags : flags;
    }
    if (!(flags & BDRV_O_RDWR)) {
        return BDRV_RIGHT_CONSISTENT_READ;
    }
    return BDRV_RIGHT_CONSISTENT_READ | BDRV_RIGHT_WRITE | (flags & BDRV_O_RESIZE ? BDRV_RIGHT_RESIZE : 0);
}

bool coroutine_fn bdrv_co_reopen(BdrvEdge *edge, BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    g_autoptr(BdrvOptions) given = options ? options : bdrv_options_new();
    ReopenPlan plan = { .root = edge->child.bs };
    bool ok;

    plan.items = g_array_new(FALSE, FALSE, sizeof(BdrvReopenItem));
    ok = plan_node(&plan, edge->child.bs, given, flags, errp);
    if (ok) {
        ok = bdrv_co_reopen_items(edge, root_rights(&plan), (BdrvReopenItem *)(void *)plan.items->data,
                                  plan.items->len, errp);
    } else {
        plan_clear(&plan);
    }
    if (!ok) {
        bdrv_error_prefix(errp, edge->child.bs->filename);
    }
    g_array_unref(plan.items);
    return ok;
}
