/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_META_BULK_H
#define BDRV_QCOW2_META_BULK_H

/*
 * Refcounts of whole trees at once, for structural operations. The node is drained and settled: nothing is dirty
 * or in limbo. Refcount blocks are read and written whole, past the caches, which are forgotten; in which order
 * they reach the disk is the caller's business. A few of them are kept at a time, so that memory is bounded
 * however large the image is.
 */

#include "drivers/qcow2/qcow2.h"

/* A refcount block. */
typedef struct Qcow2BulkSlot {
    uint64_t host_offset; /* 0: empty */
    uint8_t *counts;      /* a cluster; made when first needed */
    bool dirty;
} Qcow2BulkSlot;

typedef struct Qcow2BulkRun {
    uint64_t first, count; /* clusters */
} Qcow2BulkRun;

typedef struct Qcow2Bulk {
    BlockDriverState *bs;
    Qcow2BulkSlot *slots; /* by index of the block, modulo their number */
    unsigned slot_count;
    Qcow2BulkRun *freed; /* lost their last reference */
    unsigned freed_count;
    Qcow2DiscardType why;
} Qcow2Bulk;

/** qcow2_bulk_begin() - @why: what frees clusters; 0 or -ENOMEM, with @bulk zeroed. qcow2_bulk_end() is allowed in any case */
int coroutine_fn qcow2_bulk_begin(Qcow2Bulk *bulk, BlockDriverState *bs, Qcow2DiscardType why);
/** qcow2_bulk_renew() - allocations were made and settled meanwhile: read everything anew */
void qcow2_bulk_renew(Qcow2Bulk *bulk);
void qcow2_bulk_end(Qcow2Bulk *bulk);

/** qcow2_bulk_get() - the count of a cluster, 0 if no block has it; 0 or -errno */
int coroutine_fn qcow2_bulk_get(Qcow2Bulk *bulk, uint64_t cluster, uint64_t *count);
/**
 * qcow2_bulk_add() - @delta (1 or -1) to each of [first, +count)
 * @done: so many clusters were changed, also after an error
 * Returns: 0; -ERANGE if a count has its maximum; -EILSEQ if it is 0; -errno of a read or write.
 */
int coroutine_fn qcow2_bulk_add(Qcow2Bulk *bulk, uint64_t first, uint64_t count, int delta, uint64_t *done);
/**
 * qcow2_bulk_sync() - write what is changed, flush, then free what lost its last reference
 * What is freed may be allocated afterwards even if this fails: nothing durable leads there.
 */
int coroutine_fn qcow2_bulk_sync(Qcow2Bulk *bulk);

#endif
