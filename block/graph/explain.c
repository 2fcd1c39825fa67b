/* SPDX-License-Identifier: MIT */
/* What a driver somewhere below knows about failed requests beyond their error codes. */
#include "block/graph/graph_int.h"

static char *explain_locked(const BdrvNode *node)
{
    BlockDriverState *bs = (BlockDriverState *)&node->bs;
    char *text = node->opened && bs->drv->bdrv_explain ? bs->drv->bdrv_explain(bs) : NULL;

    for (unsigned i = 0; i < node->children->len && !text; i++) {
        const BdrvEdge *edge = node->children->pdata[i];

        text = explain_locked(bdrv_node(edge->child.bs));
    }
    return text;
}

char *bdrv_explain(BlockDriverState *bs)
{
    char *text;

    pthread_mutex_lock(&bs->graph->lock);
    text = explain_locked(bdrv_node(bs));
    pthread_mutex_unlock(&bs->graph->lock);
    return text;
}
