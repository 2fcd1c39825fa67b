/* SPDX-License-Identifier: MIT */
/* The life of a node: made private, published with its tree, closed with its last reference. */
#include "block/graph/graph_int.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define NODE_NAME_MAX 31 /* characters */

BlockDriverState *bdrv_node_new(BdrvGraph *graph, const BlockDriver *drv)
{
    BdrvNode *node = g_new0(BdrvNode, 1);

    node->bs.drv = drv;
    node->bs.graph = graph;
    node->bs.opaque = drv->instance_size ? g_malloc0(drv->instance_size) : NULL;
    node->bs.filename = g_strdup("");
    node->bs.limits.request_alignment = 1;
    node->parents = g_ptr_array_new();
    node->children = g_ptr_array_new();
    atomic_init(&node->refs, 1);
    bdrv_io_state_init(&node->io);

    pthread_mutex_lock(&graph->lock);
    node->serial = graph->next_serial++;
    node->bs.node_name = g_strdup_printf("#block%u", node->serial);
    g_ptr_array_add(graph->nodes, node);
    pthread_mutex_unlock(&graph->lock);
    return &node->bs;
}

static void node_free(BdrvNode *node)
{
    BdrvGraph *graph = node->bs.graph;

    pthread_mutex_lock(&graph->lock);
    g_ptr_array_remove(graph->nodes, node);
    pthread_mutex_unlock(&graph->lock);

    bdrv_io_state_destroy(&node->io);
    bdrv_stats_free(node->stats_kept);
    g_ptr_array_unref(node->parents);
    g_ptr_array_unref(node->children);
    bdrv_options_free(node->options);
    bdrv_options_free(node->explicit_options);
    g_free(node->bs.opaque);
    g_free(node->bs.filename);
    g_free(node->bs.node_name);
    g_free(node->bs.backing_filename);
    g_free(node->bs.backing_format);
    g_free(node->bs.data_filename);
    g_free(node);
}

static void replace_text(char **place, char *text)
{
    if (text) {
        g_free(*place);
        *place = text;
    }
}

void bdrv_node_set_names(BlockDriverState *bs, char *node_name, char *filename)
{
    pthread_mutex_lock(&bs->graph->lock);
    replace_text(&bs->node_name, node_name);
    replace_text(&bs->filename, filename);
    pthread_mutex_unlock(&bs->graph->lock);
}

void bdrv_node_set_mode(BlockDriverState *bs, BdrvOpenFlags flags, bool read_only)
{
    pthread_mutex_lock(&bs->graph->lock);
    bs->open_flags = flags;
    bs->read_only = read_only;
    pthread_mutex_unlock(&bs->graph->lock);
}

bool bdrv_node_writes(const BdrvNode *node)
{
    return (node->bs.open_flags & BDRV_O_RDWR) && !node->bs.read_only;
}

bool bdrv_node_shares_by_force(const BdrvNode *node)
{
    return node->force_share || (node->bs.open_flags & BDRV_O_FORCE_SHARE);
}

void bdrv_node_ref(BlockDriverState *bs)
{
    atomic_fetch_add_explicit(&bdrv_node(bs)->refs, 1, memory_order_relaxed);
}

/* Drop a reference that is not the last. */
static bool node_unref_fast(BdrvNode *node)
{
    unsigned refs = atomic_load_explicit(&node->refs, memory_order_relaxed);

    while (refs > 1) {
        if (atomic_compare_exchange_weak_explicit(&node->refs, &refs, refs - 1, memory_order_release,
                                                  memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

/* The last reference goes together with the name: who finds the node by name gets one that stays. */
static bool node_unref_last(BdrvNode *node)
{
    BdrvGraph *graph = node->bs.graph;
    bool last;

    pthread_mutex_lock(&graph->lock);
    last = atomic_fetch_sub_explicit(&node->refs, 1, memory_order_acq_rel) == 1;
    if (last) {
        node->closing = true;
        if (node->published) {
            g_hash_table_remove(graph->by_name, node->bs.node_name);
            node->published = false;
        }
    }
    pthread_mutex_unlock(&graph->lock);
    return last;
}

int coroutine_fn bdrv_co_node_unref_locked(BlockDriverState *bs)
{
    BdrvNode *node = bdrv_node(bs);
    int ret = 0;

    if (node_unref_fast(node) || !node_unref_last(node)) {
        return 0;
    }
    if (node->opened) {
        if (node->quiesced == 0 && bs->drv->bdrv_drain_begin) {
            bs->drv->bdrv_drain_begin(bs);
        }
        ret = bdrv_flush_node(bs); /* who used the node without a handle may not have */
        if (bs->drv->bdrv_close) {
            int ret2 = bs->drv->bdrv_close(bs);

            ret = ret < 0 ? ret : ret2;
        }
    }
    bdrv_drain_forget(bs->graph, node);
    while (node->children->len > 0) {
        int ret2 = bdrv_co_node_unref_locked(bdrv_edge_cut_locked(node->children->pdata[0]));

        ret = ret < 0 ? ret : ret2;
    }
    node_free(node);
    return ret < 0 ? ret : 0;
}

int coroutine_fn bdrv_co_node_unref(BlockDriverState *bs)
{
    BdrvGraph *graph = bs->graph;
    int ret;

    if (node_unref_fast(bdrv_node(bs))) {
        return 0;
    }
    co_mutex_lock(&graph->edit_lock);
    ret = bdrv_co_node_unref_locked(bs);
    co_mutex_unlock(&graph->edit_lock);
    return ret;
}

/* ---- names ---- */

static bool node_name_is_ours(const BdrvNode *node)
{
    char name[32];

    g_snprintf(name, sizeof(name), "#block%u", node->serial);
    return g_str_equal(name, node->bs.node_name);
}

static bool node_name_check(const BdrvNode *node, GError **errp)
{
    const char *name = node->bs.node_name;
    bool good = g_ascii_isalpha(name[0]) && strlen(name) <= NODE_NAME_MAX;

    for (const char *c = name; *c; c++) {
        good = good && (g_ascii_isalnum(*c) || strchr("-._", *c));
    }
    if (!good && !node_name_is_ours(node)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "'%s' is not a node name: one is a letter and up to %d letters, digits, '-', '.' or '_'", name,
                    NODE_NAME_MAX - 1);
        return false;
    }
    return true;
}

static void collect_private(BdrvNode *node, GPtrArray *nodes)
{
    if (node->published || g_ptr_array_find(nodes, node, NULL)) {
        return;
    }
    g_ptr_array_add(nodes, node);
    for (unsigned i = 0; i < node->children->len; i++) {
        const BdrvEdge *edge = node->children->pdata[i];

        collect_private(bdrv_node(edge->child.bs), nodes);
    }
}

bool coroutine_fn bdrv_graph_publish(BdrvGraph *graph, BlockDriverState *root, GError **errp)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    unsigned done = 0;
    bool ok = true;

    collect_private(bdrv_node(root), nodes);
    pthread_mutex_lock(&graph->lock);
    for (; ok && done < nodes->len; done += ok) {
        BdrvNode *node = nodes->pdata[done];

        ok = node_name_check(node, errp);
        if (ok && g_hash_table_contains(graph->by_name, node->bs.node_name)) {
            g_set_error(errp, BDRV_ERROR, EEXIST, "node name '%s' is taken; choose another with node-name=",
                        node->bs.node_name);
            ok = false;
        }
        if (ok) {
            g_hash_table_insert(graph->by_name, node->bs.node_name, &node->bs);
        }
    }
    for (unsigned i = 0; i < done; i++) {
        BdrvNode *node = nodes->pdata[i];

        if (ok) {
            node->published = true;
        } else {
            g_hash_table_remove(graph->by_name, node->bs.node_name);
        }
    }
    pthread_mutex_unlock(&graph->lock);
    return ok;
}

BlockDriverState *bdrv_graph_find(BdrvGraph *graph, const char *node_name)
{
    BlockDriverState *bs;

    pthread_mutex_lock(&graph->lock);
    bs = g_hash_table_lookup(graph->by_name, node_name);
    pthread_mutex_unlock(&graph->lock);
    return bs;
}

BlockDriverState *bdrv_graph_find_ref(BdrvGraph *graph, const char *node_name)
{
    BlockDriverState *bs;

    pthread_mutex_lock(&graph->lock);
    bs = g_hash_table_lookup(graph->by_name, node_name);
    if (bs) {
        bdrv_node_ref(bs);
    }
    pthread_mutex_unlock(&graph->lock);
    return bs;
}

const char *bdrv_node_filename(const BlockDriverState *bs)
{
    return bs->filename;
}
