/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_SLOW_H
#define BDRV_TEST_SLOW_H

/*
 * Drivers for tests of graph and backend: a protocol that can hold requests and tells what it was
 * asked, a format and a filter on top of it.
 */

#include "block/graph/graph.h"

#define SLOW_BYTES (1 << 20)

typedef struct SlowState {
    pthread_mutex_t lock;
    CoQueue held;             /* lock: requests that wait for slow_release() */
    unsigned holding;         /* lock: how many wait */
    bool hold;                /* lock: hold reads that come from now on */
    _Atomic unsigned reads, writes, fua_writes, flushes;
    _Atomic int busy;         /* requests inside */
    _Atomic unsigned reschedules; /* how often a read goes to the end of the ready list */
    _Atomic int drained;      /* bdrv_drain_begin minus bdrv_drain_end */
    _Atomic bool no_requests; /* a test holds a drain: ... */
    _Atomic unsigned flushes_drained; /* ... flushes that came all the same */
    unsigned used, unshared;  /* last bdrv_set_rights */
    unsigned used_in_truncate;
    bool refuse_rights;
    int flush_result, close_result;
    bool drain_in_read;       /* a read tries to drain its own node ... */
    int drain_result;         /* ... with this result */
    unsigned prepared, committed, aborted;
    int changes;              /* resizes and reopens under way: never more than one */
    bool refuse_reopen;
    bool last_reopen_wrote;
} SlowState;

/** slow_register() - "slow" (protocol), "shape" (format on "file"), "veil" (filter on "file") */
void slow_register(void);
/** slow_state() - of a published node */
SlowState *slow_state(BdrvGraph *graph, const char *node_name);
/** slow_hold() / slow_release() - reads wait; and go on. Any thread. */
void slow_hold(SlowState *slow);
void slow_release(SlowState *slow);
unsigned slow_holding(SlowState *slow);
/** slow_open() - with options as text; a failure fails the test */
BlockBackend *slow_open(BdrvGraph *graph, const char *options, BdrvOpenFlags flags);
/** slow_run_until_idle() - run the calling thread's context while there is something to do */
void slow_run_until_idle(void);

#endif
