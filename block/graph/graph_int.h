/* SPDX-License-Identifier: MIT */
#ifndef BDRV_GRAPH_INT_H
#define BDRV_GRAPH_INT_H

/* Shared by the files of block/graph only. */

#include "block/graph/graph.h"

/*
 * Lock order: change_lock, edit_lock (both over I/O), then a gate's lock, lock or watch_lock (all short, never together).
 */
struct BdrvGraph {
    _Atomic unsigned refs;
    CoMutex edit_lock;    /* serialises edits, drains' bookkeeping and closing of nodes */
    CoMutex change_lock;  /* one reopen, resize or check at a time: a drain keeps out requests, not other drainers */
    pthread_mutex_t lock; /* the short lock; writers of the structure hold both */
    GHashTable *by_name;  /* lock: node_name -> BlockDriverState *, published nodes */
    GPtrArray *nodes;     /* lock: BdrvNode *, private ones too, in order of making */
    GPtrArray *roots;     /* lock: BdrvEdge *, root edges */
    unsigned next_serial; /* lock */
    pthread_mutex_t watch_lock; /* nodes' length_watches; held while the embedder is told */
    BdrvOpenerGate *opener_gate; /* lock */
    void *opener_gate_opaque;
    BdrvDebugNotify *debug_notify; /* lock */
    void *debug_notify_opaque;
    GHashTable *secrets;  /* lock: ID -> GBytes * */
    GPtrArray *drains;    /* edit_lock: BdrvDrain *, in order of beginning */
};

/* ---- rights.c ---- */

typedef struct BdrvRights {
    unsigned used, shared; /* BdrvRight masks */
} BdrvRights;

/** bdrv_rights_of_edge() - what an edge of @role needs, from what the parent is and how it is used itself */
BdrvRights bdrv_rights_of_edge(BdrvChildRole role, bool parent_writes, bool force_share, BdrvRights parent);

/** bdrv_rights_check() - do two users of a node bear each other? EBUSY, naming @other as who is there already */
bool bdrv_rights_check(const BdrvEdge *edge, BdrvRights mine, const BdrvEdge *other, BdrvRights theirs,
                       GError **errp);

/** bdrv_rights_text() - "read,write,resize" or "-"; caller frees */
char *bdrv_rights_text(unsigned mask);

/** bdrv_edge_user_text() - "node 'x' (qcow2)" or the owner's name; caller frees */
char *bdrv_edge_user_text(const BdrvEdge *edge);

/* ---- edit.c ---- */

/*
 * A transaction on edges and rights:
 *
 *     begin           takes the edit lock; then note the changes
 *     prepare         works out all rights, checks conflicts, takes file locks; may yield and fail
 *     commit          applies; neither yields nor fails. Left out: everything stays as it was.
 *     end             settles the file locks to what is true now, gives up the edit lock
 */
typedef struct BdrvEdit {
    BdrvGraph *graph;
    GPtrArray *added, *removed; /* BdrvEdge * */
    GHashTable *rights;         /* BdrvEdge * -> BdrvRights *: what they will be */
    GHashTable *writers;        /* BdrvNode * -> whether it will be read-write (pointer 1 or 2: no or yes), and
                                 * 4 added if it will share by force */
    GPtrArray *touched;         /* BdrvNode *, whose users change */
} BdrvEdit;

void coroutine_fn bdrv_edit_begin(BdrvEdit *edit, BdrvGraph *graph);
void bdrv_edit_begin_locked(BdrvEdit *edit, BdrvGraph *graph); /* the edit lock is held, and stays so at the end */
void bdrv_edit_add(BdrvEdit *edit, BdrvEdge *edge, BdrvRights rights); /* rights: of a root edge */
void bdrv_edit_remove(BdrvEdit *edit, BdrvEdge *edge);
void bdrv_edit_set_root_rights(BdrvEdit *edit, BdrvEdge *edge, BdrvRights rights);
void bdrv_edit_set_node_mode(BdrvEdit *edit, BdrvNode *node, bool writes, bool force_share);
bool coroutine_fn bdrv_edit_prepare(BdrvEdit *edit, GError **errp);
void bdrv_edit_commit(BdrvEdit *edit);
void coroutine_fn bdrv_edit_end(BdrvEdit *edit);
void coroutine_fn bdrv_edit_end_locked(BdrvEdit *edit);

/* ---- child.c ---- */

/** bdrv_edge_cut_locked() - take an edge out of the graph and free it, with the edit lock held
 * Returns: the child; its reference is the caller's. */
BlockDriverState *coroutine_fn bdrv_edge_cut_locked(BdrvEdge *edge);

/* ---- node.c ---- */

/** bdrv_node_writes() - whether its children must let it write */
bool bdrv_node_writes(const BdrvNode *node);
bool bdrv_node_shares_by_force(const BdrvNode *node);
int coroutine_fn bdrv_co_node_unref_locked(BlockDriverState *bs); /* edit lock held */

/* ---- gate.c ---- */
BdrvGate *bdrv_gate_ref(BdrvGate *gate);

/* ---- drain.c ---- */

/** bdrv_drain_adopt() - a new root edge below which something is drained starts closed. Edit lock held. */
void bdrv_drain_adopt(BdrvGraph *graph, BdrvEdge *root);
/** bdrv_drain_forget() - @node goes. Edit lock held. */
void bdrv_drain_forget(BdrvGraph *graph, BdrvNode *node);
void bdrv_drain_free(void *drain);

#endif
