/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_REPAIR_H
#define BDRV_QCOW2_REPAIR_H

/*
 * Repairing an image. Nothing is written before the analysis (check.h) is complete. Then
 *
 *   repair_tree.c       if pointers, tables or the refcount structures are damaged: a second tree, L1 tables to
 *                       refcount table, is written into free clusters. It shares with the first one all that is
 *                       sound. One header switch leads to it: the image is the old one or the new one.
 *   repair_refcounts.c  the refcount structures of that tree
 *   repair.c            refcounts and COPIED flags that are merely wrong are put right in place, counts raised
 *                       before flags are cleared before counts are lowered (meta/rewrite.h)
 *
 * What an entry that leads nowhere had mapped is lost already: it becomes a zero cluster, so that no old data
 * of the backing file shows. What can be read stays: where two owners claim the same cluster, and counting
 * is not enough, one of them gets a copy.
 *
 * Memory: the counts of the analysis and those of the new tree, one L1 table, a bit for each cluster with a table.
 */

#include "drivers/qcow2/check.h"
#include "drivers/qcow2/meta/rewrite.h"

/* A cluster with a copy of another one, and how often it is referenced. */
typedef struct Qcow2RepairCopy {
    uint64_t host_offset, references;
} Qcow2RepairCopy;

typedef struct Qcow2Repair {
    Qcow2Check *c; /* the analysis: its counts say what is in use now */
    Qcow2Rewrite *rewrite;
    bool dry;            /* only find out whether the tree would be another one: -ECANCELED at the first change */
    Qcow2CheckRefs refs; /* references of the new tree */
    Qcow2Header header;  /* that leads to it */
    GHashTable *copies;  /* data cluster (gint64 *) -> its latest copy (Qcow2RepairCopy *) */
    Qcow2RepairCopy zeroes; /* version 2: a cluster that reads as zeroes */
    uint64_t disk_size;  /* of the L1 table at hand: nothing shines through past it */
    uint64_t cursor;     /* no free cluster before it */
    uint64_t allocated, max_allocated; /* clusters */
} Qcow2Repair;

/* ---- repair.c ---- */

/** qcow2_repair() - analyse and repair the file; s->meta is NULL. 0 or -errno
 * @result: what is left, and what was repaired. @rewrite: zeroed, with bs set */
int coroutine_fn qcow2_repair(Qcow2Rewrite *rewrite, BdrvCheckResult *result, BdrvCheckFix fix);
/** qcow2_repair_open_image() - the same for a node that may be serving: caches are loaded anew afterwards */
int coroutine_fn qcow2_repair_open_image(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix);
/** qcow2_repair_dry_run() - tell what a repair of the image would leave and repair; writes nothing */
int coroutine_fn qcow2_repair_dry_run(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix);
/** qcow2_repair_dirty() - what a writable open does with a dirty image: refcounts only; s->meta is NULL */
bool coroutine_fn qcow2_repair_dirty(BlockDriverState *bs, GError **errp);

/* ---- repair_tree.c ---- */

/** qcow2_repair_tree() - write a sound tree and switch to it; @dry: tell whether one is needed, write nothing
 * Returns: 1 if the tree was (or has to be) replaced, 0 if not (only @dry), or -errno. */
int coroutine_fn qcow2_repair_tree(Qcow2Check *c, Qcow2Rewrite *rewrite, bool dry);

/* The parts that snapshots need too. */

/** qcow2_repair_l1() - the L1 table of a disk of @size bytes and all below it; *@offset is changed if it moves */
int coroutine_fn qcow2_repair_l1(Qcow2Repair *r, uint64_t *offset, uint64_t entries, uint64_t size);
/** qcow2_repair_claim() - count a table that may stay where it is; false if it may not */
bool qcow2_repair_claim(Qcow2Repair *r, uint64_t offset, uint64_t bytes);
/** qcow2_repair_move_table() - write @bytes elsewhere; the old place is no longer counted if it was @claimed */
int coroutine_fn qcow2_repair_move_table(Qcow2Repair *r, const uint8_t *buf, uint64_t bytes, bool claimed,
                                         uint64_t *offset);

/* ---- repair_snapshots.c ---- */

/** qcow2_repair_snapshots() - the snapshot table and the trees of the snapshots */
int coroutine_fn qcow2_repair_snapshots(Qcow2Repair *r);

/* ---- repair_refcounts.c ---- */

/** qcow2_repair_alloc() - @count clusters in a row that neither tree uses, counted in @r->refs; 0 or -errno */
int coroutine_fn qcow2_repair_alloc(Qcow2Repair *r, uint64_t count, uint64_t *host_offset);
/** qcow2_repair_write_refcounts() - blocks and a table for @r->refs, themselves included; sets @r->header */
int coroutine_fn qcow2_repair_write_refcounts(Qcow2Repair *r);
/** qcow2_repair_refcounts_end() - the first cluster that no refcount table can describe */
uint64_t qcow2_repair_refcounts_end(const Qcow2Geometry *geometry);
/** qcow2_repair_in_place() - raise or lower the refcounts that differ from the counted references */
int coroutine_fn qcow2_repair_in_place(Qcow2Check *c, Qcow2Rewrite *rewrite, Qcow2RewritePhase phase);

#endif
