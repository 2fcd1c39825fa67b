/* SPDX-License-Identifier: MIT */
/* Edges: made, given other rights, and taken away, each by one edit. */
#include "block/graph/graph_int.h"

#include <errno.h>

static BdrvEdge *edge_new(BdrvNode *parent, const char *name, BdrvChildRole role, BlockDriverState *bs)
{
    BdrvEdge *edge = g_new0(BdrvEdge, 1);

    edge->name = g_strdup(name);
    edge->child = (BdrvChild){ .bs = bs, .name = edge->name, .role = role };
    edge->parent = parent;
    edge->shared = BDRV_RIGHTS_ALL;
    return edge;
}

static void edge_free(BdrvEdge *edge)
{
    bdrv_gate_free(edge->gate);
    g_free(edge->owner);
    g_free(edge->name);
    g_free(edge);
}

static bool node_reaches(const BdrvNode *from, const BdrvNode *to)
{
    if (from == to) {
        return true;
    }
    for (unsigned i = 0; i < from->children->len; i++) {
        const BdrvEdge *edge = from->children->pdata[i];

        if (node_reaches(bdrv_node(edge->child.bs), to)) {
            return true;
        }
    }
    return false;
}

BdrvChild *coroutine_fn bdrv_node_attach(BlockDriverState *parent, const char *name, BdrvChildRole role,
                                         BlockDriverState *bs, GError **errp)
{
    BdrvEdge *edge = edge_new(bdrv_node(parent), name, role, bs);
    BdrvEdit edit;
    bool ok = false;

    bdrv_edit_begin(&edit, parent->graph);
    if (node_reaches(bdrv_node(bs), bdrv_node(parent))) {
        g_set_error(errp, BDRV_ERROR, ELOOP, "node '%s' cannot be the %s of '%s', which it uses itself",
                    bs->node_name, name, parent->node_name);
    } else {
        bdrv_edit_add(&edit, edge, (BdrvRights){ .shared = BDRV_RIGHTS_ALL });
        ok = bdrv_edit_prepare(&edit, errp);
    }
    if (ok) {
        bdrv_edit_commit(&edit);
        if (bs->drv->bdrv_debug_event || bdrv_node(bs)->event_listener_below) {
            bdrv_node(parent)->event_listener_below = true;
        }
    }
    bdrv_edit_end(&edit);
    if (!ok) {
        edge_free(edge);
        return NULL;
    }
    return &edge->child;
}

BdrvChild *bdrv_find_child(BlockDriverState *bs, const char *name)
{
    const GPtrArray *children = bdrv_node(bs)->children;

    for (unsigned i = 0; i < children->len; i++) {
        BdrvEdge *edge = children->pdata[i];

        if (g_str_equal(edge->child.name, name)) {
            return &edge->child;
        }
    }
    return NULL;
}

unsigned bdrv_child_rights(const BdrvChild *child)
{
    return atomic_load_explicit(&bdrv_edge(child)->used, memory_order_relaxed);
}

BdrvEdge *coroutine_fn bdrv_root_attach(BlockDriverState *bs, BdrvGate *gate, const char *owner, unsigned used,
                                        unsigned shared, GError **errp)
{
    BdrvEdge *edge = edge_new(NULL, "root", BDRV_CHILD_FILTERED, bs);
    BdrvEdit edit;
    bool ok;

    edge->owner = g_strdup(owner);
    edge->gate = gate ? bdrv_gate_ref(gate) : NULL;
    bdrv_edit_begin(&edit, bs->graph);
    bdrv_edit_add(&edit, edge, (BdrvRights){ .used = used, .shared = shared });
    ok = bdrv_edit_prepare(&edit, errp);
    if (ok) {
        bdrv_edit_commit(&edit);
        bdrv_drain_adopt(bs->graph, edge);
    }
    bdrv_edit_end(&edit);
    if (!ok) {
        edge_free(edge);
        return NULL;
    }
    return edge;
}

int coroutine_fn bdrv_co_root_detach(BdrvEdge *edge)
{
    BlockDriverState *bs = edge->child.bs;
    BdrvGraph *graph = bs->graph;
    BdrvEdit edit;
    int ret;

    /* Giving up rights has no conflicts. The file locks go with the file if this was the last user. */
    co_mutex_lock(&graph->edit_lock);
    bdrv_edit_begin_locked(&edit, graph);
    bdrv_edit_remove(&edit, edge);
    bdrv_edit_prepare(&edit, NULL);
    bdrv_edit_commit(&edit);
    bdrv_edit_end_locked(&edit);
    edge_free(edge);
    ret = bdrv_co_node_unref_locked(bs);
    co_mutex_unlock(&graph->edit_lock);
    return ret;
}

bool coroutine_fn bdrv_co_root_set_rights(BdrvEdge *edge, unsigned used, unsigned shared, GError **errp)
{
    BdrvEdit edit;
    bool ok;

    bdrv_edit_begin(&edit, edge->child.bs->graph);
    bdrv_edit_set_root_rights(&edit, edge, (BdrvRights){ .used = used, .shared = shared });
    ok = bdrv_edit_prepare(&edit, errp);
    if (ok) {
        bdrv_edit_commit(&edit);
    }
    bdrv_edit_end(&edit);
    return ok;
}

BlockDriverState *coroutine_fn bdrv_edge_cut_locked(BdrvEdge *edge)
{
    BlockDriverState *bs = edge->child.bs;
    BdrvEdit edit;

    bdrv_edit_begin_locked(&edit, bs->graph);
    bdrv_edit_remove(&edit, edge);
    bdrv_edit_prepare(&edit, NULL);
    bdrv_edit_commit(&edit);
    bdrv_edit_end_locked(&edit);
    edge_free(edge);
    return bs;
}
