/* SPDX-License-Identifier: MIT */
/*
 * The one place where edges and their rights change.
 *
 * The rights of an edge depend on the edges above (filters pass them on), so a change at one place
 * runs down the graph. First pass: find out what every edge will use and share, until nothing
 * changes any more. Second pass: compare the users of every node touched. Only then are file locks
 * taken, as the union of old and new, so that going back never has to wait for another process.
 */
#include "block/graph/graph_int.h"

#include <errno.h>
#include <stdatomic.h>

void bdrv_edit_begin_locked(BdrvEdit *edit, BdrvGraph *graph)
{
    *edit = (BdrvEdit){
        .graph = graph,
        .added = g_ptr_array_new(),
        .removed = g_ptr_array_new(),
        .rights = g_hash_table_new_full(NULL, NULL, NULL, g_free),
        .writers = g_hash_table_new(NULL, NULL),
        .touched = g_ptr_array_new(),
    };
}

void coroutine_fn bdrv_edit_begin(BdrvEdit *edit, BdrvGraph *graph)
{
    co_mutex_lock(&graph->edit_lock);
    bdrv_edit_begin_locked(edit, graph);
}

/* ---- noting changes ---- */

static void edit_touch(BdrvEdit *edit, BlockDriverState *bs)
{
    BdrvNode *node = bdrv_node(bs);

    if (!g_ptr_array_find(edit->touched, node, NULL)) {
        g_ptr_array_add(edit->touched, node);
    }
}

static void edit_put_rights(BdrvEdit *edit, BdrvEdge *edge, BdrvRights rights)
{
    BdrvRights *copy = g_new(BdrvRights, 1);

    *copy = rights;
    g_hash_table_insert(edit->rights, edge, copy);
    edit_touch(edit, edge->child.bs);
}

void bdrv_edit_add(BdrvEdit *edit, BdrvEdge *edge, BdrvRights rights)
{
    g_ptr_array_add(edit->added, edge);
    edit_put_rights(edit, edge, rights);
}

void bdrv_edit_remove(BdrvEdit *edit, BdrvEdge *edge)
{
    g_ptr_array_add(edit->removed, edge);
    edit_touch(edit, edge->child.bs);
}

void bdrv_edit_set_root_rights(BdrvEdit *edit, BdrvEdge *edge, BdrvRights rights)
{
    edit_put_rights(edit, edge, rights);
}

void bdrv_edit_set_node_mode(BdrvEdit *edit, BdrvNode *node, bool writes, bool force_share)
{
    g_hash_table_insert(edit->writers, node, GUINT_TO_POINTER((writes ? 2 : 1) + (force_share ? 4 : 0)));
    edit_touch(edit, &node->bs);
}

/* ---- what will be ---- */

static BdrvRights edit_rights(const BdrvEdit *edit, BdrvEdge *edge)
{
    const BdrvRights *rights = g_hash_table_lookup(edit->rights, edge);

    return rights ? *rights : (BdrvRights){ .used = edge->used, .shared = edge->shared };
}

static bool edit_node_writes(const BdrvEdit *edit, const BdrvNode *node)
{
    unsigned mode = GPOINTER_TO_UINT(g_hash_table_lookup(edit->writers, node));

    return mode ? mode & 2 : bdrv_node_writes(node);
}

static bool edit_node_shares_by_force(const BdrvEdit *edit, const BdrvNode *node)
{
    unsigned mode = GPOINTER_TO_UINT(g_hash_table_lookup(edit->writers, node));

    return mode ? mode & 4 : bdrv_node_shares_by_force(node);
}

/* The edges on @node (parents) or below it, as they will be. Caller unrefs. */
static GPtrArray *edit_edges(const BdrvEdit *edit, const BdrvNode *node, bool parents)
{
    GPtrArray *edges = g_ptr_array_new();
    const GPtrArray *now = parents ? node->parents : node->children;

    for (unsigned i = 0; i < now->len; i++) {
        if (!g_ptr_array_find(edit->removed, now->pdata[i], NULL)) {
            g_ptr_array_add(edges, now->pdata[i]);
        }
    }
    for (unsigned i = 0; i < edit->added->len; i++) {
        BdrvEdge *edge = edit->added->pdata[i];

        if (parents ? bdrv_node(edge->child.bs) == node : edge->parent == node) {
            g_ptr_array_add(edges, edge);
        }
    }
    return edges;
}

static BdrvRights edit_node_rights(const BdrvEdit *edit, const BdrvNode *node)
{
    g_autoptr(GPtrArray) users = edit_edges(edit, node, true);
    BdrvRights sum = { .used = 0, .shared = BDRV_RIGHTS_ALL };

    for (unsigned i = 0; i < users->len; i++) {
        BdrvRights rights = edit_rights(edit, users->pdata[i]);

        sum.used |= rights.used;
        sum.shared &= rights.shared;
    }
    return sum;
}

/* Work out the rights of the edges below @node; go on where they change. The graph has no cycles. */
static void edit_spread(BdrvEdit *edit, BdrvNode *node)
{
    BdrvRights users = edit_node_rights(edit, node);
    g_autoptr(GPtrArray) below = edit_edges(edit, node, false);

    for (unsigned i = 0; i < below->len; i++) {
        BdrvEdge *edge = below->pdata[i];
        BdrvRights old = edit_rights(edit, edge);
        BdrvRights rights = bdrv_rights_of_edge(edge->child.role, edit_node_writes(edit, node),
                                                edit_node_shares_by_force(edit, node), users);

        if (rights.used != old.used || rights.shared != old.shared) {
            edit_put_rights(edit, edge, rights);
            edit_spread(edit, bdrv_node(edge->child.bs));
        }
    }
}

/* ---- prepare ---- */

static bool edit_is_new(const BdrvEdit *edit, const BdrvEdge *edge)
{
    return g_hash_table_contains(edit->rights, edge);
}

static bool edit_check_writable(const BdrvEdit *edit, const BdrvNode *node, GError **errp)
{
    if ((edit_node_rights(edit, node).used & (BDRV_RIGHT_WRITE | BDRV_RIGHT_RESIZE)) && !edit_node_writes(edit, node)) {
        g_set_error(errp, BDRV_ERROR, EACCES,
                    "node '%s' (%s) is read-only, but a user wants to write; open it read-write or its users "
                    "read-only", node->bs.node_name, node->bs.filename);
        return false;
    }
    return true;
}

static bool edit_check_node(const BdrvEdit *edit, const BdrvNode *node, GError **errp)
{
    g_autoptr(GPtrArray) users = edit_edges(edit, node, true);

    if (!node->closing && !edit_check_writable(edit, node, errp)) {
        return false;
    }
    for (unsigned i = 0; i < users->len; i++) {
        for (unsigned j = 0; j < users->len; j++) {
            BdrvEdge *edge = users->pdata[i], *other = users->pdata[j];

            /* Of each pair the one that changes is told of the other; two old ones got along before. */
            if (i != j && edit_is_new(edit, edge) &&
                !bdrv_rights_check(edge, edit_rights(edit, edge), other, edit_rights(edit, other), errp)) {
                return false;
            }
        }
    }
    return true;
}

static bool coroutine_fn node_hold(BdrvNode *node, unsigned used, unsigned unshared, GError **errp)
{
    if (node->held_used == used && node->held_unshared == unshared) {
        return true;
    }
    if (node->bs.drv->bdrv_set_rights && !node->bs.drv->bdrv_set_rights(&node->bs, used, unshared, errp)) {
        return false;
    }
    node->held_used = used;
    node->held_unshared = unshared;
    return true;
}

bool coroutine_fn bdrv_edit_prepare(BdrvEdit *edit, GError **errp)
{
    /* Spreading touches more nodes, which spread by themselves. */
    for (unsigned i = 0, count = edit->touched->len; i < count; i++) {
        edit_spread(edit, edit->touched->pdata[i]);
    }
    for (unsigned i = 0; i < edit->added->len; i++) {
        BdrvEdge *edge = edit->added->pdata[i];

        if (edge->parent) {
            edit_spread(edit, edge->parent);
        }
    }
    for (unsigned i = 0; i < edit->touched->len; i++) {
        if (!edit_check_node(edit, edit->touched->pdata[i], errp)) {
            return false;
        }
    }
    for (unsigned i = 0; i < edit->touched->len; i++) {
        BdrvNode *node = edit->touched->pdata[i];
        BdrvRights rights = edit_node_rights(edit, node);

        if (!node->closing && !node_hold(node, node->held_used | rights.used,
                                         node->held_unshared | (BDRV_RIGHTS_ALL & ~rights.shared), errp)) {
            return false;
        }
    }
    return true;
}

/* ---- commit, end ---- */

static bool is_file(const BlockDriverState *parent, const BdrvChild *child)
{
    return g_str_equal(child->name, "file") || (parent->drv->is_filter && child->role == BDRV_CHILD_FILTERED);
}

static void edge_point(BdrvEdge *edge, bool there)
{
    BlockDriverState *parent = edge->parent ? &edge->parent->bs : NULL;

    if (parent && is_file(parent, &edge->child)) {
        parent->file = there ? &edge->child : NULL;
    } else if (parent && g_str_equal(edge->child.name, "backing")) {
        parent->backing = there ? &edge->child : NULL;
    } else if (parent && g_str_equal(edge->child.name, "data-file")) {
        parent->data_file = there ? &edge->child : NULL;
    }
}

void bdrv_edit_commit(BdrvEdit *edit)
{
    BdrvGraph *graph = edit->graph;
    GHashTableIter iter;
    void *key, *value;

    pthread_mutex_lock(&graph->lock);
    for (unsigned i = 0; i < edit->removed->len; i++) {
        BdrvEdge *edge = edit->removed->pdata[i];

        g_ptr_array_remove(bdrv_node(edge->child.bs)->parents, edge);
        g_ptr_array_remove(edge->parent ? edge->parent->children : graph->roots, edge);
        edge_point(edge, false);
    }
    for (unsigned i = 0; i < edit->added->len; i++) {
        BdrvEdge *edge = edit->added->pdata[i];

        g_ptr_array_add(bdrv_node(edge->child.bs)->parents, edge);
        g_ptr_array_add(edge->parent ? edge->parent->children : graph->roots, edge);
        edge_point(edge, true);
    }
    g_hash_table_iter_init(&iter, edit->rights);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        BdrvEdge *edge = key;
        const BdrvRights *rights = value;

        atomic_store_explicit(&edge->used, rights->used, memory_order_relaxed);
        atomic_store_explicit(&edge->shared, rights->shared, memory_order_relaxed);
    }
    pthread_mutex_unlock(&graph->lock);

    /* What will be now is. */
    g_ptr_array_set_size(edit->added, 0);
    g_ptr_array_set_size(edit->removed, 0);
    g_hash_table_remove_all(edit->rights);
    g_hash_table_remove_all(edit->writers);
}

void coroutine_fn bdrv_edit_end_locked(BdrvEdit *edit)
{
    g_ptr_array_set_size(edit->added, 0);
    g_ptr_array_set_size(edit->removed, 0);
    g_hash_table_remove_all(edit->rights);
    g_hash_table_remove_all(edit->writers);
    for (unsigned i = 0; i < edit->touched->len; i++) {
        BdrvNode *node = edit->touched->pdata[i];
        BdrvRights rights = edit_node_rights(edit, node);

        if (!node->closing) {
            node_hold(node, rights.used, BDRV_RIGHTS_ALL & ~rights.shared, NULL);
        }
    }
    g_ptr_array_unref(edit->added);
    g_ptr_array_unref(edit->removed);
    g_ptr_array_unref(edit->touched);
    g_hash_table_unref(edit->rights);
    g_hash_table_unref(edit->writers);
}

void coroutine_fn bdrv_edit_end(BdrvEdit *edit)
{
    BdrvGraph *graph = edit->graph;

    bdrv_edit_end_locked(edit);
    co_mutex_unlock(&graph->edit_lock);
}
