/* SPDX-License-Identifier: MIT */
/* What a node derives from its children: limits. */
#include "block/graph/graph_int.h"

#include <limits.h>

static int64_t min_limit(int64_t a, int64_t b)
{
    return a == 0 ? b : b == 0 ? a : MIN(a, b);
}

static void merge_limits(BdrvLimits *into, const BdrvLimits *from, bool shown)
{
    into->mem_alignment = MAX(into->mem_alignment, from->mem_alignment);
    into->opt_transfer = MAX(into->opt_transfer, from->opt_transfer);
    if (!shown) {
        return; /* the request layer splits and pads again at the child */
    }
    into->request_alignment = MAX(into->request_alignment, from->request_alignment);
    into->max_iov = (uint32_t)min_limit(into->max_iov, from->max_iov);
    into->max_transfer = min_limit(into->max_transfer, from->max_transfer);
    into->pwrite_zeroes_alignment = MAX(into->pwrite_zeroes_alignment, from->pwrite_zeroes_alignment);
    into->max_pwrite_zeroes = min_limit(into->max_pwrite_zeroes, from->max_pwrite_zeroes);
    into->pdiscard_alignment = MAX(into->pdiscard_alignment, from->pdiscard_alignment);
    into->max_pdiscard = min_limit(into->max_pdiscard, from->max_pdiscard);
}

static void refresh_limits_locked(BlockDriverState *bs)
{
    const BdrvNode *node = bdrv_node(bs);
    BdrvLimits limits = { .request_alignment = 1, .mem_alignment = 1 };

    for (unsigned i = 0; i < node->children->len; i++) {
        const BdrvEdge *edge = node->children->pdata[i];

        merge_limits(&limits, &edge->child.bs->limits, edge->child.role == BDRV_CHILD_FILTERED);
    }
    bs->limits = limits;
    if (bs->drv->bdrv_refresh_limits) {
        bs->drv->bdrv_refresh_limits(bs);
    }
    bs->limits.request_alignment = MAX(bs->limits.request_alignment, 1);
    bs->limits.mem_alignment = MAX(bs->limits.mem_alignment, 1);
    if (bs->limits.max_iov == 0 || bs->limits.max_iov > IOV_MAX) {
        bs->limits.max_iov = IOV_MAX;
    }
}

void bdrv_refresh_node_limits(BlockDriverState *bs)
{
    pthread_mutex_lock(&bs->graph->lock);
    refresh_limits_locked(bs);
    pthread_mutex_unlock(&bs->graph->lock);
}

BdrvLimits bdrv_node_limits(const BlockDriverState *bs)
{
    BdrvLimits limits;

    pthread_mutex_lock(&bs->graph->lock);
    limits = bs->limits;
    pthread_mutex_unlock(&bs->graph->lock);
    return limits;
}
