/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_FANOUT_H
#define BDRV_QCOW2_FANOUT_H

/*
 * Parts of one piece of work that go on side by side: extents of a request, writes of a commit phase.
 * All run in the context of the coroutine that starts them, and as part of its request.
 */

#include "drivers/qcow2/qcow2.h"

/* Parts under way at a time. */
#define QCOW2_FANOUT_MAX 8u

/* Does the part [first, first + count) of @work, in whatever unit; 0 or -errno */
typedef int Qcow2PartFunc(void *work, uint64_t first, uint64_t count);

typedef struct Qcow2Fanout Qcow2Fanout;

/* A part that runs, or room for one. */
typedef struct Qcow2Part {
    Qcow2Fanout *fanout; /* NULL: free */
    uint64_t first, count;
} Qcow2Part;

/* On the stack of the coroutine that starts the parts. */
struct Qcow2Fanout {
    Qcow2PartFunc *func;
    void *work;
    Coroutine *owner;
    void *request; /* the owner's */
    unsigned running;
    bool waiting;  /* the owner sleeps until a part ends */
    int ret;       /* of the first part that failed */
    Qcow2Part parts[QCOW2_FANOUT_MAX];
};

void qcow2_fanout_init(Qcow2Fanout *fanout, Qcow2PartFunc *func, void *work);

/** qcow2_fanout_start() - run a part; waits if QCOW2_FANOUT_MAX are running
 * Returns: 0; or -errno of a part that failed, this one or another: then start no more. */
int coroutine_fn qcow2_fanout_start(Qcow2Fanout *fanout, uint64_t first, uint64_t count);

/** qcow2_fanout_finish() - wait for all parts; 0 or -errno of the first one that failed. In any case to be called. */
int coroutine_fn qcow2_fanout_finish(Qcow2Fanout *fanout);

#endif
