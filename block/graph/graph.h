/* SPDX-License-Identifier: MIT */
#ifndef BDRV_GRAPH_GRAPH_H
#define BDRV_GRAPH_GRAPH_H

/*
 * The graph from inside: what registry, io, open and backend use of it. Drivers see only <bdrv/driver.h>.
 *
 * Structure (nodes, edges, names) is protected by the graph's edit lock (a CoMutex: edits are
 * serialised) for writers and by the gate for readers: a request that has entered may follow any
 * child pointer, because an edit waits until every gate that reaches the node is closed and empty.
 * Code that is neither an edit nor inside a request (dump, find) reads under the graph's short lock,
 * which writers take as well.
 */

#include <bdrv/bdrv.h>
#include <bdrv/driver.h>

#include "block/io/io_state.h"

typedef struct BdrvNode BdrvNode;
typedef struct BdrvEdge BdrvEdge;
typedef struct BdrvGate BdrvGate;
typedef struct BdrvLengthWatch BdrvLengthWatch;

/* What detect-zeroes says of writes that hold nothing but zeroes. */
typedef enum BdrvDetectZeroes {
    BDRV_DETECT_ZEROES_OFF,
    BDRV_DETECT_ZEROES_ON,    /* write zeroes instead */
    BDRV_DETECT_ZEROES_UNMAP, /* write zeroes that may be unmapped */
} BdrvDetectZeroes;

/* An edge: parent (a node, or a BlockBackend if NULL) uses child. First member: drivers get &edge->child. */
struct BdrvEdge {
    BdrvChild child;
    BdrvNode *parent;        /* NULL: a root edge */
    BdrvGate *gate;          /* of a root edge: requests come through here; NULL if it makes none */
    char *owner;             /* of a root edge: what messages and dumps call it */
    char *name;              /* child.name points here */
    _Atomic unsigned used;   /* BdrvRight mask */
    _Atomic unsigned shared; /* BdrvRight mask: what other parents of the child may use */
};

/* A node: the driver's half first. */
struct BdrvNode {
    BlockDriverState bs;
    _Atomic unsigned refs;  /* the last one goes under the edit lock */
    _Atomic bool opened;    /* set by block/open when bdrv_open succeeded: bdrv_close is due */
    bool published;         /* visible by name, may be used by others; false while being opened */
    bool closing;
    bool probed;            /* the format was guessed from the content */
    bool force_share;       /* children take no locks against others; so does BDRV_O_FORCE_SHARE */
    BdrvDetectZeroes detect_zeroes;
    _Atomic(BdrvStats *) stats; /* block/io/stats.c: where requests are counted; NULL: they are not */
    BdrvStats *stats_kept;      /* what was counted, also when they are not any more; a blk_keep_stats() at a time */
    unsigned serial;        /* number in a generated name */
    _Atomic unsigned quiesced; /* drains that stopped this driver's own work; changed with edit lock */
    unsigned held_used;     /* what bdrv_set_rights was last told; edit lock */
    unsigned held_unshared;
    GPtrArray *parents;     /* BdrvEdge *; changed with edit lock and short lock */
    GPtrArray *children;    /* BdrvEdge *, owned; changed with edit lock and short lock */
    BdrvOptions *options;   /* as opened, this node's own keys only: reopen and filenames start from them */
    BdrvOptions *explicit_options; /* what the user gave, children included: json: filenames */
    _Atomic(BdrvLengthWatch *) length_watches; /* length.c: who is told when the length changes */
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

/** bdrv_node_new() - a private node with one reference; opaque allocated; not yet opened
 * node_name is "#blockN" until block/open replaces it by what the user gave. */
BlockDriverState *bdrv_node_new(BdrvGraph *graph, const BlockDriver *drv);

/** bdrv_node_set_names() / _set_mode() - as dumps by other threads may look at the node
 * @node_name, @filename: taken; NULL: stays as it is */
void bdrv_node_set_names(BlockDriverState *bs, char *node_name, char *filename);
void bdrv_node_set_mode(BlockDriverState *bs, BdrvOpenFlags flags, bool read_only);

/**
 * bdrv_node_attach() - give @parent (not yet published) the child @bs; takes the caller's reference
 * Works out the rights of the edge from role, flags of the parent and force-share, checks them
 * against the other parents of @bs and lets its protocol driver take its file locks before the
 * parent reads a byte. Sets parent->file / parent->backing by the child's name.
 * @parent's open_flags and read_only must be set: it counts as read-write only with BDRV_O_RDWR and
 * not read_only. Fails with EBUSY naming who uses what; the reference is then still the caller's.
 */
BdrvChild *coroutine_fn bdrv_node_attach(BlockDriverState *parent, const char *name, BdrvChildRole role,
                                         BlockDriverState *bs, GError **errp);

/** bdrv_node_ref() / bdrv_co_node_unref() - the last one closes: driver's bdrv_close, then children
 * A node that was never opened (bdrv_node()->opened is false) is only freed.
 * Returns: 0 or the first -errno of closing. */
void bdrv_node_ref(BlockDriverState *bs);
int coroutine_fn bdrv_co_node_unref(BlockDriverState *bs);

/** bdrv_graph_publish() - make a private tree visible: unique node names, lookup by name. One step, all or nothing. */
bool coroutine_fn bdrv_graph_publish(BdrvGraph *graph, BlockDriverState *root, GError **errp);

/** bdrv_graph_find_ref() - published node by name with a new reference, or NULL. Any thread. */
BlockDriverState *bdrv_graph_find_ref(BdrvGraph *graph, const char *node_name);

/** bdrv_graph_find() - the same without a reference: only for who knows that the node stays */
BlockDriverState *bdrv_graph_find(BdrvGraph *graph, const char *node_name);

/** bdrv_graph_ask_gate() - may @parent open @filename, which its image names? See BdrvOpenerGate. */
bool bdrv_graph_ask_gate(BdrvGraph *graph, const BlockDriverState *parent, const char *filename, const char *format,
                         bool *guess, GError **errp);

/* ---- root edges (child.c): of BlockBackends, and of the core where it works on a node without one ---- */

/**
 * bdrv_root_attach() - use @bs from outside of the graph; takes the caller's reference
 * @gate: where requests come in; NULL if the caller makes none or sees to draining itself
 * @owner: for messages
 * @used, @shared: BdrvRight masks
 * Returns: the edge, whose &edge->child takes I/O; NULL with EBUSY (the reference is the caller's then).
 */
BdrvEdge *coroutine_fn bdrv_root_attach(BlockDriverState *bs, BdrvGate *gate, const char *owner, unsigned used,
                                        unsigned shared, GError **errp);
/** bdrv_co_root_detach() - end it and drop the reference; 0 or the first -errno of closing nodes */
int coroutine_fn bdrv_co_root_detach(BdrvEdge *edge);
/** bdrv_co_root_set_rights() - ask for other rights; EBUSY. Giving up rights never fails. */
bool coroutine_fn bdrv_co_root_set_rights(BdrvEdge *edge, unsigned used, unsigned shared, GError **errp);

/**
 * bdrv_graph_begin_change() / _end_change() - around what changes an image as a whole, before it drains
 * One reopen, resize or check at a time: a drain keeps requests out, but not others who drained too.
 * Returns: -EDEADLK inside a request.
 */
int coroutine_fn bdrv_graph_begin_change(BdrvGraph *graph);
void coroutine_fn bdrv_graph_end_change(BdrvGraph *graph);

/* ---- gate (gate.c) ---- */

/*
 * A gate belongs to a BlockBackend (or a driver's background job). A request enters once, by marking
 * the slot of (gate, its AioContext); calls on children inherit it. Closing the gate makes newcomers
 * park in their own thread, first come first served.
 */
BdrvGate *bdrv_gate_new(void);
void bdrv_gate_free(BdrvGate *gate); /* no request inside or parked */

/**
 * bdrv_gate_enter() - begin a request; may park. Sets co_set_request().
 * A coroutine that is inside this gate already passes freely.
 * Returns: what to give to bdrv_gate_leave(): the outer request, or NULL.
 */
void *coroutine_fn bdrv_gate_enter(BdrvGate *gate);
void coroutine_fn bdrv_gate_leave(BdrvGate *gate, void *outer);

/* The wait of a request that may be cancelled while it is parked; lives in the request. */
typedef struct BdrvGateWait {
    Coroutine *co;
    struct BdrvGateWait *next;
    bool parked, woken, cancelled; /* gate's lock */
} BdrvGateWait;

/** bdrv_gate_enter_or_cancel() - as bdrv_gate_enter(); -ECANCELED if cancelled before it got in, else 0 */
int coroutine_fn bdrv_gate_enter_or_cancel(BdrvGate *gate, BdrvGateWait *wait, void **outer);
/** bdrv_gate_cancel() - end the wait if it is parked; else nothing. The waiter's thread. */
bool bdrv_gate_cancel(BdrvGate *gate, BdrvGateWait *wait);

/**
 * bdrv_gate_try_enter() - begin a request whose coroutine starts later
 * Returns: what the coroutine gives to bdrv_gate_adopt(); NULL if it would have to park. Any context.
 */
void *bdrv_gate_try_enter(BdrvGate *gate);
void coroutine_fn bdrv_gate_adopt(void *entered); /* in the same thread; then bdrv_gate_leave(gate, NULL) */
void bdrv_gate_leave_entered(void *entered); /* or this, in the same thread, without a coroutine */

/** bdrv_gate_enter_both() - for a request on two BlockBackends; never waits for one inside the other */
void *coroutine_fn bdrv_gate_enter_both(BdrvGate *a, BdrvGate *b);
void coroutine_fn bdrv_gate_leave_both(BdrvGate *a, BdrvGate *b, void *outer);

/** bdrv_gate_close() / _open() - newcomers park from now on; nests. close does not wait. Any thread. */
void bdrv_gate_close(BdrvGate *gate);
void bdrv_gate_open(BdrvGate *gate);
/** bdrv_gate_wait_empty() - until no request is inside the closed gate */
void coroutine_fn bdrv_gate_wait_empty(BdrvGate *gate);
/** bdrv_gate_shut() - for closing a handle: let drains end and the parked in, wait until all have left, stay closed
 * The caller counts as inside until bdrv_gate_gone(): drains that begin meanwhile wait for it. */
void coroutine_fn bdrv_gate_shut(BdrvGate *gate);
void bdrv_gate_gone(BdrvGate *gate);
bool bdrv_gate_is_empty(BdrvGate *gate); /* a snapshot, for tests */

/* ---- drain (drain.c) ---- */

/** bdrv_co_drain_begin() - close the gates of every backend that reaches @bs or a node below it, stop
 * the drivers' own work, wait until no request is inside. Nests. -EDEADLK inside a request. */
int coroutine_fn bdrv_co_drain_begin(BlockDriverState *bs);
void coroutine_fn bdrv_co_drain_end(BlockDriverState *bs);

/** bdrv_co_quiesce_begin() / _end() - stop the own work of the drivers from @bs down, requests held back go
 * For closing a handle: no gate is closed. Nodes may be closed in between. */
typedef struct BdrvDrain BdrvDrain;
BdrvDrain *coroutine_fn bdrv_co_quiesce_begin(BlockDriverState *bs);
void coroutine_fn bdrv_co_quiesce_end(BdrvGraph *graph, BdrvDrain *drain);

/* ---- length (length.c) ---- */

/* Who is told of a node's length; its owner's memory. */
struct BdrvLengthWatch {
    void (*notice)(void *opaque, int64_t length); /* NULL: nobody */
    void *opaque;
    int64_t told;
    BdrvLengthWatch *next;
};

/** bdrv_length_watch() - let @watch, which is not in use, be told from now on whenever @bs has another length */
void bdrv_length_watch(BlockDriverState *bs, BdrvLengthWatch *watch, void (*notice)(void *opaque, int64_t length),
                       void *opaque);
/** bdrv_length_unwatch() - it is not told any more, nor is being told, when this returns; may not have been in use */
void bdrv_length_unwatch(BlockDriverState *bs, BdrvLengthWatch *watch);
/** bdrv_length_is_telling() - whether the calling thread is in a notice of this graph, where the two would wait for ever */
bool bdrv_length_is_telling(const BdrvGraph *graph);
/** bdrv_length_tell() - tell the length to those who were told another one, in order of its changes */
void bdrv_length_tell(BlockDriverState *bs);

/** bdrv_length_changed() - to be called after bs->length was set; one test while nobody watches */
static inline void bdrv_length_changed(BlockDriverState *bs)
{
    if (G_UNLIKELY(atomic_load(&bdrv_node(bs)->length_watches))) {
        bdrv_length_tell(bs);
    }
}

/** bdrv_co_refresh_filter_lengths() - after a change of @bs or below it: filters there, and those of others that
 * reach what has changed, show the length of what is below them. Drained. */
void coroutine_fn bdrv_co_refresh_filter_lengths(BlockDriverState *bs);

/* ---- reopen (reopen.c; open/reopen.c works out the items) ---- */

typedef struct BdrvReopenItem {
    BlockDriverState *bs;
    BdrvOpenFlags flags;   /* new ones, as for bdrv_open */
    BdrvOptions *options;  /* own keys, validated: what the driver gets; owned */
    BdrvOptions *own;      /* the same as given: becomes node->options; owned */
    BdrvOptions *given;    /* all that the user ever gave: becomes node->explicit_options; owned */
    bool force_share;
    BdrvDetectZeroes detect_zeroes;
    void *state;           /* the driver's, between prepare and commit or abort */
} BdrvReopenItem;

/**
 * bdrv_co_reopen_items() - give nodes new flags and options; all or nothing
 * @edge: root edge; everything below it is drained meanwhile
 * @used: rights that @edge needs from then on
 * @items: parents before children; emptied
 */
bool coroutine_fn bdrv_co_reopen_items(BdrvEdge *edge, unsigned used, BdrvReopenItem *items, unsigned count,
                                       GError **errp);

/* ---- drivers' callbacks that the control path makes (io/driver_call.c has those of the data path) ---- */

/** bdrv_explain() - what the first driver at or below @bs that has bdrv_explain says; NULL: nothing; caller frees */
char *bdrv_explain(BlockDriverState *bs);

/** bdrv_flush_node() - make durable what was written to the node and, unless its driver does so, below it (io/flush.c)
 * Nothing written since the last one: nothing is called. 0 or -errno */
int coroutine_fn bdrv_flush_node(BlockDriverState *bs);

/** bdrv_co_refresh_length() - ask the driver; 0 or -errno (io/resize.c) */
int coroutine_fn bdrv_co_refresh_length(BlockDriverState *bs);

/** bdrv_refresh_node_limits() - merge the children's limits, then ask the driver; must not yield */
void bdrv_refresh_node_limits(BlockDriverState *bs);
/** bdrv_node_limits() - what they are now, for who is not inside a request. Any thread. */
BdrvLimits bdrv_node_limits(const BlockDriverState *bs);

/** bdrv_refresh_node_filename() - recompute bs->filename (driver, child's name or json:{…}); open/filename.c */
void bdrv_refresh_node_filename(BlockDriverState *bs);

#endif
