/* SPDX-License-Identifier: MIT */
#ifndef BDRV_GRAPH_GRAPH_H
#define BDRV_GRAPH_GRAPH_H

/*
 * The graph from inside: what registry, io, open and backend use of it. Drivers see only <bdrv/driver.h>.
 *
 * Structure (nodes, edges, names) is protected by the graph's edit lock (a CoMutex: edits are
 * serialised) for writers and by the gate for readers: a request that has entered may follow any
 * child pointer, because an edit waits until every gate that reaches the node is closed and empty.
 */

#include <bdrv/bdrv.h>
#include <bdrv/driver.h>

#include "block/io/io_state.h"

typedef struct BdrvNode BdrvNode;
typedef struct BdrvEdge BdrvEdge;
typedef struct BdrvGate BdrvGate;

/* An edge: parent (a node, or a BlockBackend if NULL) uses child. First member: drivers get &edge->child. */
struct BdrvEdge {
    BdrvChild child;
    BdrvNode *parent;   /* NULL: the root edge of @blk */
    BlockBackend *blk;  /* owner of a root edge */
    unsigned used;      /* BdrvRight mask */
    unsigned shared;    /* BdrvRight mask: what other parents of the child may use */
};

/* A node: the driver's half first. */
struct BdrvNode {
    BlockDriverState bs;
    unsigned refs;          /* edit lock */
    bool published;         /* visible by name, may be used by others; false while being opened */
    bool closing;
    bool probed;            /* the format was guessed from the content */
    bool force_share;
    GPtrArray *parents;     /* BdrvEdge *; edit lock */
    GPtrArray *children;    /* BdrvEdge *, owned; edit lock */
    BdrvOptions *options;   /* as opened, this node's own keys only: reopen and filenames start from them */
    BdrvOptions *explicit_options; /* what the user gave, children included: json: filenames */
    bool event_listener_below; /* some driver below has bdrv_debug_event: bdrv_debug_event() walks only then */
    BdrvIoState io;         /* block/io */
};

static inline BdrvNode *bdrv_node(const BlockDriverState *bs)
{
    return (BdrvNode *)bs;
}

static inline BdrvEdge *bdrv_edge(const BdrvChild *child)
{
    return (BdrvEdge *)child;
}

/* ---- nodes (node.c, child.c) ---- */

/** bdrv_node_new() - a private node with one reference; opaque allocated; not yet opened */
BlockDriverState *bdrv_node_new(BdrvGraph *graph, const BlockDriver *drv);

/**
 * bdrv_node_attach() - give @parent (not yet published) the child @bs; takes the caller's reference
 * Works out the rights of the edge from role, flags of the parent and force-share, checks them
 * against the other parents of @bs and lets its protocol driver take its file locks before the
 * parent reads a byte. Sets parent->file / parent->backing by the child's name.
 * Fails with EBUSY naming who uses what; the reference is then still the caller's.
 */
BdrvChild *coroutine_fn bdrv_node_attach(BlockDriverState *parent, const char *name, BdrvChildRole role,
                                         BlockDriverState *bs, GError **errp);

/** bdrv_node_ref() / bdrv_co_node_unref() - the last one closes: driver's bdrv_close, then children
 * Returns: 0 or the first -errno of closing. */
void bdrv_node_ref(BlockDriverState *bs);
int coroutine_fn bdrv_co_node_unref(BlockDriverState *bs);

/** bdrv_graph_publish() - make a private tree visible: unique node names, lookup by name. One step, all or nothing. */
bool coroutine_fn bdrv_graph_publish(BdrvGraph *graph, BlockDriverState *root, GError **errp);

/** bdrv_graph_find() - published node by name, or NULL */
BlockDriverState *bdrv_graph_find(BdrvGraph *graph, const char *node_name);

/** bdrv_graph_ask_gate() - may @parent open @filename, which its image names? See BdrvOpenerGate. */
bool bdrv_graph_ask_gate(BdrvGraph *graph, const BlockDriverState *parent, const char *filename, const char *format,
                         bool *guess, GError **errp);

/* ---- gate (gate.c) ---- */

/*
 * A gate belongs to a BlockBackend (or a driver's background job). A request enters once, by marking
 * the slot of (gate, its AioContext); calls on children inherit it. Closing the gate makes newcomers
 * park in their own thread, first come first served.
 */
BdrvGate *bdrv_gate_new(BdrvGraph *graph);
void bdrv_gate_free(BdrvGate *gate); /* no request inside */
void coroutine_fn bdrv_gate_enter(BdrvGate *gate); /* may park; sets co_set_request() */
void coroutine_fn bdrv_gate_leave(BdrvGate *gate);

/* ---- drain (drain.c) ---- */

/** bdrv_co_drain_begin() - close the gates of every backend that reaches @bs, stop the drivers' own work,
 * wait until no request is inside. Nests. -EDEADLK inside a request. */
int coroutine_fn bdrv_co_drain_begin(BlockDriverState *bs);
void coroutine_fn bdrv_co_drain_end(BlockDriverState *bs);

/* ---- drivers' callbacks that the control path makes (io/driver_call.c has those of the data path) ---- */

/** bdrv_refresh_node_limits() - merge the children's limits, then ask the driver; must not yield */
void bdrv_refresh_node_limits(BlockDriverState *bs);

/** bdrv_refresh_node_filename() - recompute bs->filename (driver, child's name or json:{…}) */
void bdrv_refresh_node_filename(BlockDriverState *bs);

#endif
