/* SPDX-License-Identifier: MIT */
/*
 * BdrvGraph: what nodes, names and handles of one embedder have in common. Where to go from here:
 * node.c (life of a node), child.c (edges), edit.c (how edges change), rights.c (who may do what),
 * gate.c and drain.c (requests against changes), reopen.c, length.c (who is told of another length), dump.c.
 */
#include "block/graph/graph_int.h"

#include <errno.h>
#include <stdatomic.h>

BdrvGraph *bdrv_graph_new(void)
{
    BdrvGraph *graph = g_new0(BdrvGraph, 1);

    atomic_init(&graph->refs, 1);
    co_mutex_init(&graph->edit_lock);
    co_mutex_init(&graph->change_lock);
    pthread_mutex_init(&graph->lock, NULL);
    pthread_mutex_init(&graph->watch_lock, NULL);
    graph->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    graph->nodes = g_ptr_array_new();
    graph->roots = g_ptr_array_new();
    graph->secrets = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_bytes_unref);
    graph->drains = g_ptr_array_new_with_free_func(bdrv_drain_free);
    return graph;
}

BdrvGraph *bdrv_graph_ref(BdrvGraph *graph)
{
    atomic_fetch_add_explicit(&graph->refs, 1, memory_order_relaxed);
    return graph;
}

void bdrv_graph_unref(BdrvGraph *graph)
{
    if (!graph || atomic_fetch_sub_explicit(&graph->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    g_ptr_array_unref(graph->drains);
    g_ptr_array_unref(graph->roots);
    g_ptr_array_unref(graph->nodes);
    g_hash_table_unref(graph->by_name);
    g_hash_table_unref(graph->secrets);
    pthread_mutex_destroy(&graph->lock);
    pthread_mutex_destroy(&graph->watch_lock);
    co_mutex_destroy(&graph->edit_lock);
    co_mutex_destroy(&graph->change_lock);
    g_free(graph);
}

void bdrv_graph_set_opener_gate(BdrvGraph *graph, BdrvOpenerGate *gate, void *opaque)
{
    pthread_mutex_lock(&graph->lock);
    graph->opener_gate = gate;
    graph->opener_gate_opaque = opaque;
    pthread_mutex_unlock(&graph->lock);
}

/* @error: why, by the embedder; NULL: it did not say */
static bool refused(const char *filename, GError *error, GError **errp)
{
    if (error) {
        g_propagate_error(errp, error);
    } else {
        g_set_error(errp, BDRV_ERROR, EACCES, "the image names the file '%s', which the opener gate refuses", filename);
    }
    return false;
}

bool bdrv_graph_ask_gate(BdrvGraph *graph, const BlockDriverState *parent, const char *filename, const char *format,
                         bool *guess, GError **errp)
{
    BdrvOpenerGate *gate;
    GError *error = NULL;
    void *opaque;

    pthread_mutex_lock(&graph->lock);
    gate = graph->opener_gate;
    opaque = graph->opener_gate_opaque;
    pthread_mutex_unlock(&graph->lock);

    *guess = false;
    if (!gate) {
        g_set_error(errp, BDRV_ERROR, EACCES,
                    "the image names the file '%s', and no opener gate was set that allows it; "
                    "allow it with bdrv_graph_set_opener_gate() or open without backing file", filename);
        return false;
    }
    return gate(opaque, parent->node_name, filename, format, guess, &error) || refused(filename, error, errp);
}

void bdrv_graph_set_debug_notify(BdrvGraph *graph, BdrvDebugNotify *notify, void *opaque)
{
    pthread_mutex_lock(&graph->lock);
    graph->debug_notify = notify;
    graph->debug_notify_opaque = opaque;
    pthread_mutex_unlock(&graph->lock);
}

void bdrv_debug_notify(BlockDriverState *bs, const char *tag, bool suspended)
{
    BdrvGraph *graph = bs->graph;
    BdrvDebugNotify *notify;
    void *opaque;

    if (!graph) {
        return;
    }
    pthread_mutex_lock(&graph->lock);
    notify = graph->debug_notify;
    opaque = graph->debug_notify_opaque;
    pthread_mutex_unlock(&graph->lock);
    if (notify) {
        notify(opaque, bs->drv->format_name, tag, suspended);
    }
}

int coroutine_fn bdrv_graph_begin_change(BdrvGraph *graph)
{
    if (co_get_request()) {
        return -EDEADLK; /* the change that is made may be waiting for this request */
    }
    co_mutex_lock(&graph->change_lock);
    return 0;
}

void coroutine_fn bdrv_graph_end_change(BdrvGraph *graph)
{
    co_mutex_unlock(&graph->change_lock);
}
