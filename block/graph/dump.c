/* SPDX-License-Identifier: MIT */
/* The graph as text and as input for dot(1). */
#include "block/graph/graph_int.h"

static char *node_line(const BdrvNode *node)
{
    return g_strdup_printf("%s \"%s\" [%s]%s%s%s", node->bs.drv->format_name, node->bs.node_name, node->bs.filename,
                           bdrv_node_writes(node) ? " rw" : " ro", node->published ? "" : " private",
                           node->quiesced ? " drained" : "");
}

static void dump_edge(GString *text, const BdrvEdge *edge, unsigned depth)
{
    const BdrvNode *node = bdrv_node(edge->child.bs);
    g_autofree char *line = node_line(node);
    g_autofree char *used = bdrv_rights_text(edge->used);
    g_autofree char *unshared = bdrv_rights_text(BDRV_RIGHTS_ALL & ~edge->shared);

    g_string_append_printf(text, "%*s%s -> %s  uses %s, denies %s\n", (int)depth * 2, "",
                           edge->parent ? edge->child.name : edge->owner, line, used, unshared);
    for (unsigned i = 0; i < node->children->len; i++) {
        dump_edge(text, node->children->pdata[i], depth + 1);
    }
}

char *bdrv_graph_to_text(BdrvGraph *graph)
{
    GString *text = g_string_new(NULL);

    pthread_mutex_lock(&graph->lock);
    for (unsigned i = 0; i < graph->roots->len; i++) {
        dump_edge(text, graph->roots->pdata[i], 0);
    }
    for (unsigned i = 0; i < graph->nodes->len; i++) {
        const BdrvNode *node = graph->nodes->pdata[i];

        if (node->parents->len == 0) {
            g_autofree char *line = node_line(node);

            g_string_append_printf(text, "(no user) -> %s\n", line);
        }
    }
    pthread_mutex_unlock(&graph->lock);
    return g_string_free(text, FALSE);
}

static void dot_edge(GString *text, const BdrvEdge *edge, unsigned number)
{
    g_autofree char *used = bdrv_rights_text(edge->used);
    g_autofree char *unshared = bdrv_rights_text(BDRV_RIGHTS_ALL & ~edge->shared);
    g_autofree char *label = g_strdup_printf("%s\nuses %s\ndenies %s", edge->child.name, used, unshared);
    g_autofree char *escaped = g_strescape(label, NULL);

    if (edge->parent) {
        g_string_append_printf(text, "  n%u", edge->parent->serial);
    } else {
        g_autofree char *owner = g_strescape(edge->owner, NULL);

        g_string_append_printf(text, "  r%u [shape=ellipse, label=\"%s\"];\n  r%u", number, owner, number);
    }
    g_string_append_printf(text, " -> n%u [label=\"%s\"];\n", bdrv_node(edge->child.bs)->serial, escaped);
}

char *bdrv_graph_to_dot(BdrvGraph *graph)
{
    GString *text = g_string_new("digraph block {\n  node [shape=box];\n");

    pthread_mutex_lock(&graph->lock);
    for (unsigned i = 0; i < graph->nodes->len; i++) {
        const BdrvNode *node = graph->nodes->pdata[i];
        g_autofree char *label = g_strdup_printf("%s %s\n%s\n%s", node->bs.drv->format_name, node->bs.node_name,
                                                 node->bs.filename, bdrv_node_writes(node) ? "rw" : "ro");
        g_autofree char *escaped = g_strescape(label, NULL);

        g_string_append_printf(text, "  n%u [label=\"%s\"];\n", node->serial, escaped);
        for (unsigned j = 0; j < node->children->len; j++) {
            dot_edge(text, node->children->pdata[j], 0);
        }
    }
    for (unsigned i = 0; i < graph->roots->len; i++) {
        dot_edge(text, graph->roots->pdata[i], i);
    }
    pthread_mutex_unlock(&graph->lock);
    g_string_append(text, "}\n");
    return g_string_free(text, FALSE);
}
