/* SPDX-License-Identifier: MIT */
/*
 * Drain: a state in which no request is inside a node or anything below it.
 *
 * Requests for these nodes come through any handle that reaches one of them, so the gates to close
 * are found by going down from the node and up again from everything found. What was closed is kept
 * in a record, so that the end undoes exactly that, whatever was opened or closed in between:
 * handles that come later and reach a drained node are adopted (they start closed), nodes that go
 * are forgotten.
 *
 * Waiting is done without the edit lock and without looking again and again: the last request to
 * leave wakes the drainer.
 */
#include "block/graph/graph_int.h"

#include <errno.h>

struct BdrvDrain {
    BlockDriverState *bs; /* NULL: only the drivers' own work is stopped, requests go on */
    GPtrArray *below; /* BdrvNode *: @bs and what is under it */
    GPtrArray *nodes; /* BdrvNode *: whose own work was stopped */
    GPtrArray *gates; /* BdrvGate *, referenced, closed */
};

void bdrv_drain_free(void *opaque)
{
    BdrvDrain *drain = opaque;

    g_ptr_array_unref(drain->below);
    g_ptr_array_unref(drain->nodes);
    g_ptr_array_unref(drain->gates);
    g_free(drain);
}

static bool add_once(GPtrArray *array, void *item)
{
    if (g_ptr_array_find(array, item, NULL)) {
        return false;
    }
    g_ptr_array_add(array, item);
    return true;
}

/* Children before their parents. */
static void collect_below(BdrvNode *node, GPtrArray *nodes)
{
    if (g_ptr_array_find(nodes, node, NULL)) {
        return;
    }
    for (unsigned i = 0; i < node->children->len; i++) {
        const BdrvEdge *edge = node->children->pdata[i];

        collect_below(bdrv_node(edge->child.bs), nodes);
    }
    g_ptr_array_add(nodes, node);
}

/* All users of @node, and theirs: nodes and the gates at the top. */
static void collect_above(BdrvNode *node, GPtrArray *nodes, GPtrArray *gates)
{
    if (!add_once(nodes, node)) {
        return;
    }
    for (unsigned i = 0; i < node->parents->len; i++) {
        const BdrvEdge *edge = node->parents->pdata[i];

        if (edge->parent) {
            collect_above(edge->parent, nodes, gates);
        } else if (edge->gate) {
            add_once(gates, edge->gate);
        }
    }
}

static void drain_close_gate(BdrvDrain *drain, BdrvGate *gate)
{
    g_ptr_array_add(drain->gates, bdrv_gate_ref(gate));
    bdrv_gate_close(gate);
}

static void drain_release_gate(void *gate)
{
    bdrv_gate_free(gate);
}

static void coroutine_fn drain_stop_node(BdrvDrain *drain, BdrvNode *node)
{
    if (!node->opened || node->closing) {
        return; /* being opened: has no work of its own yet */
    }
    g_ptr_array_add(drain->nodes, node);
    if (node->quiesced++ == 0 && node->bs.drv->bdrv_drain_begin) {
        node->bs.drv->bdrv_drain_begin(&node->bs);
    }
}

/* A record of what is below @bs, with the edit lock held. */
static BdrvDrain *drain_new(BlockDriverState *bs)
{
    BdrvDrain *drain = g_new0(BdrvDrain, 1);

    drain->below = g_ptr_array_new();
    drain->nodes = g_ptr_array_new();
    drain->gates = g_ptr_array_new_with_free_func(drain_release_gate);
    collect_below(bdrv_node(bs), drain->below);
    g_ptr_array_add(bs->graph->drains, drain);
    return drain;
}

/*
 * From the bottom up: a driver may wait for its own work to end (qcow2 for its commit), which may be held
 * back by one below.
 */
static void coroutine_fn drain_stop_nodes(BdrvDrain *drain, GPtrArray *others)
{
    for (unsigned i = 0; i < drain->below->len; i++) {
        drain_stop_node(drain, drain->below->pdata[i]);
    }
    for (unsigned i = 0; others && i < others->len; i++) {
        if (!g_ptr_array_find(drain->below, others->pdata[i], NULL)) {
            drain_stop_node(drain, others->pdata[i]);
        }
    }
}

int coroutine_fn bdrv_co_drain_begin(BlockDriverState *bs)
{
    BdrvGraph *graph = bs->graph;
    g_autoptr(GPtrArray) gates = g_ptr_array_new_with_free_func(drain_release_gate);
    g_autoptr(GPtrArray) found = g_ptr_array_new();
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    BdrvDrain *drain;

    if (co_get_request()) {
        return -EDEADLK;
    }
    co_mutex_lock(&graph->edit_lock);
    drain = drain_new(bs);
    drain->bs = bs;
    for (unsigned i = 0; i < drain->below->len; i++) {
        collect_above(drain->below->pdata[i], nodes, found);
    }
    for (unsigned i = 0; i < found->len; i++) {
        drain_close_gate(drain, found->pdata[i]);
        g_ptr_array_add(gates, bdrv_gate_ref(found->pdata[i]));
    }
    drain_stop_nodes(drain, nodes);
    co_mutex_unlock(&graph->edit_lock);

    /* Our own list: adopted gates, which are empty, may join the record's while we wait. */
    for (unsigned i = 0; i < gates->len; i++) {
        bdrv_gate_wait_empty(gates->pdata[i]);
    }
    return 0;
}

static BdrvDrain *drain_find_last(BdrvGraph *graph, BlockDriverState *bs)
{
    for (unsigned i = graph->drains->len; i > 0; i--) {
        BdrvDrain *drain = graph->drains->pdata[i - 1];

        if (drain->bs == bs) {
            return drain;
        }
    }
    return NULL;
}

/* Undo what the record says, and free it. Edit lock held. */
static void coroutine_fn drain_undo(BdrvGraph *graph, BdrvDrain *drain)
{
    for (unsigned i = drain->nodes->len; i > 0; i--) {
        BdrvNode *node = drain->nodes->pdata[i - 1];

        if (--node->quiesced == 0 && node->bs.drv->bdrv_drain_end) {
            node->bs.drv->bdrv_drain_end(&node->bs);
        }
    }
    for (unsigned i = 0; i < drain->gates->len; i++) {
        bdrv_gate_open(drain->gates->pdata[i]);
    }
    g_ptr_array_remove(graph->drains, drain);
}

void coroutine_fn bdrv_co_drain_end(BlockDriverState *bs)
{
    BdrvGraph *graph = bs->graph;
    BdrvDrain *drain;

    co_mutex_lock(&graph->edit_lock);
    drain = drain_find_last(graph, bs);
    if (drain) {
        drain_undo(graph, drain);
    }
    co_mutex_unlock(&graph->edit_lock);
}

BdrvDrain *coroutine_fn bdrv_co_quiesce_begin(BlockDriverState *bs)
{
    BdrvGraph *graph = bs->graph;
    BdrvDrain *drain;

    co_mutex_lock(&graph->edit_lock);
    drain = drain_new(bs);
    drain_stop_nodes(drain, NULL);
    co_mutex_unlock(&graph->edit_lock);
    return drain;
}

void coroutine_fn bdrv_co_quiesce_end(BdrvGraph *graph, BdrvDrain *drain)
{
    co_mutex_lock(&graph->edit_lock);
    drain_undo(graph, drain);
    co_mutex_unlock(&graph->edit_lock);
}

void bdrv_drain_adopt(BdrvGraph *graph, BdrvEdge *root)
{
    g_autoptr(GPtrArray) reached = g_ptr_array_new();

    if (!root->gate || graph->drains->len == 0) {
        return;
    }
    collect_below(bdrv_node(root->child.bs), reached);
    for (unsigned i = 0; i < graph->drains->len; i++) {
        BdrvDrain *drain = graph->drains->pdata[i];
        bool reaches = false;

        for (unsigned j = 0; drain->bs && j < reached->len; j++) {
            reaches = reaches || g_ptr_array_find(drain->below, reached->pdata[j], NULL);
        }
        if (reaches) {
            drain_close_gate(drain, root->gate);
        }
    }
}

void bdrv_drain_forget(BdrvGraph *graph, BdrvNode *node)
{
    for (unsigned i = 0; i < graph->drains->len; i++) {
        BdrvDrain *drain = graph->drains->pdata[i];

        g_ptr_array_remove(drain->below, node);
        g_ptr_array_remove(drain->nodes, node);
    }
}
