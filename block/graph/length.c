/* SPDX-License-Identifier: MIT */
/*
 * Who is told when a node has another length, and the nodes that show the length of another one.
 *
 * Whoever sets bs->length looks for watchers afterwards, a watcher looks at the length after it is in the list: one of
 * the two sees the other. The lock is held while watchers are told, so that the last thing that each is told is how it
 * is, and that none is told any more when it has been taken out.
 */
#include "block/graph/graph_int.h"

static _Thread_local const BdrvGraph *telling; /* whose lock is held by this thread while it tells */

bool bdrv_length_is_telling(const BdrvGraph *graph)
{
    return telling == graph;
}

static void watch_remove_locked(BdrvNode *node, BdrvLengthWatch *watch)
{
    BdrvLengthWatch *first = atomic_load(&node->length_watches), **link;

    if (first == watch) {
        atomic_store(&node->length_watches, watch->next);
    } else {
        for (link = &first->next; *link != watch; link = &(*link)->next) {
        }
        *link = watch->next;
    }
    watch->notice = NULL;
}

void bdrv_length_watch(BlockDriverState *bs, BdrvLengthWatch *watch, void (*notice)(void *opaque, int64_t length),
                       void *opaque)
{
    BdrvNode *node = bdrv_node(bs);

    pthread_mutex_lock(&bs->graph->watch_lock);
    *watch = (BdrvLengthWatch){ .notice = notice, .opaque = opaque, .next = atomic_load(&node->length_watches) };
    atomic_store(&node->length_watches, watch);
    watch->told = atomic_load(&bs->length);
    pthread_mutex_unlock(&bs->graph->watch_lock);
}

void bdrv_length_unwatch(BlockDriverState *bs, BdrvLengthWatch *watch)
{
    pthread_mutex_lock(&bs->graph->watch_lock);
    if (watch->notice) {
        watch_remove_locked(bdrv_node(bs), watch);
    }
    pthread_mutex_unlock(&bs->graph->watch_lock);
}

void bdrv_length_tell(BlockDriverState *bs)
{
    pthread_mutex_lock(&bs->graph->watch_lock);
    telling = bs->graph;
    int64_t length = atomic_load(&bs->length);
    for (BdrvLengthWatch *watch = atomic_load(&bdrv_node(bs)->length_watches); watch; watch = watch->next) {
        if (watch->told != length) {
            watch->told = length;
            watch->notice(watch->opaque, length);
        }
    }
    telling = NULL;
    pthread_mutex_unlock(&bs->graph->watch_lock);
}

/* ---- filters ---- */

static bool shows_length_of(const BdrvNode *filter, const BdrvNode *node)
{
    const BdrvChild *file = filter->bs.file;

    return filter->bs.drv->is_filter && file && file->bs == &node->bs && filter->opened && !filter->closing;
}

/* One that cannot tell keeps the length that it had. */
static void coroutine_fn refresh_filters_above(const BdrvNode *node)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        BdrvEdge *edge = node->parents->pdata[i];

        if (edge->parent && shows_length_of(edge->parent, node)) {
            bdrv_co_refresh_length(&edge->parent->bs);
            refresh_filters_above(edge->parent);
        }
    }
}

static void coroutine_fn refresh_from_below(const BdrvNode *node)
{
    for (unsigned i = 0; i < node->children->len; i++) {
        const BdrvEdge *edge = node->children->pdata[i];

        refresh_from_below(bdrv_node(edge->child.bs));
    }
    refresh_filters_above(node);
}

void coroutine_fn bdrv_co_refresh_filter_lengths(BlockDriverState *bs)
{
    co_mutex_lock(&bs->graph->edit_lock);
    refresh_from_below(bdrv_node(bs));
    co_mutex_unlock(&bs->graph->edit_lock);
}
