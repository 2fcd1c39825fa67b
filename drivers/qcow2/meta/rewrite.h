/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_META_REWRITE_H
#define BDRV_QCOW2_META_REWRITE_H

/*
 * Writing metadata of an image of which nothing is cached: what a repair does. The order is that of a
 * commit (docs/qcow2-metadata.md), so a cut at any point leaves the image no worse than it was: what
 * lies in clusters that nothing leads to yet; counts raised; COPIED flags cleared; counts lowered and
 * COPIED flags set. A flush lies between two phases, and around the header.
 */

#include "drivers/qcow2/qcow2.h"

typedef enum Qcow2RewritePhase {
    QCOW2_REWRITE_NEW,      /* clusters that the header switch will lead to */
    QCOW2_REWRITE_RAISE,    /* refcounts, none of which becomes lower */
    QCOW2_REWRITE_RESTRICT, /* COPIED flags, cleared only */
    QCOW2_REWRITE_RELAX,    /* refcounts that become lower, COPIED flags that are set */
} Qcow2RewritePhase;

typedef struct Qcow2Rewrite {
    BlockDriverState *bs;
    Qcow2RewritePhase phase;
    bool unflushed; /* something was written in this phase */
    bool written;   /* something was written at all */
    bool in_doubt;  /* a failed header write may or may not have reached the file */
} Qcow2Rewrite;

/** qcow2_rewrite() - write [host_offset, +bytes) in @phase, which never goes back; 0 or -errno */
int coroutine_fn qcow2_rewrite(Qcow2Rewrite *rewrite, Qcow2RewritePhase phase, uint64_t host_offset, uint64_t bytes,
                               const void *buf);

/**
 * qcow2_rewrite_header() - flush, replace the fixed header fields in one sector, flush
 * @wanted: becomes s->header on success; all that it leads to is written
 * Afterwards phases start from the first one again.
 */
int coroutine_fn qcow2_rewrite_header(Qcow2Rewrite *rewrite, const Qcow2Header *wanted);

#endif
