/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_SNAPSHOT_TREE_H
#define BDRV_QCOW2_SNAPSHOT_TREE_H

/*
 * An L1 table and all below it, as a whole: what the active disk or a snapshot refers to. The node is drained and
 * settled, tables are read from the file and written in place past the caches (meta/bulk.h).
 *
 * A cluster is referenced once by each L1 table that leads to it: what two L1 tables share, down to the data
 * clusters below a common L2 table, counts twice.
 */

#include "drivers/qcow2/meta/bulk.h"

typedef struct Qcow2Tree {
    uint64_t *l1; /* host byte order */
    uint64_t count;
} Qcow2Tree;

/** qcow2_tree_active() - of the active disk */
bool qcow2_tree_active(BlockDriverState *bs, Qcow2Tree *tree, GError **errp);
/** qcow2_tree_load() - of an L1 table in the file, at least @min_count entries; those that it lacks are 0 */
bool coroutine_fn qcow2_tree_load(BlockDriverState *bs, uint64_t host_offset, uint64_t count, uint64_t min_count,
                                  Qcow2Tree *tree, GError **errp);
/** qcow2_tree_copy() - @copy: a new one, with the same entries */
bool qcow2_tree_copy(const Qcow2Tree *tree, Qcow2Tree *copy, GError **errp);
void qcow2_tree_clear(Qcow2Tree *tree);

/** qcow2_tree_read_table() - the L2 table that an L1 entry leads to
 * @l1_index: for messages. @buf: a cluster. EINVAL: the entry is damaged */
bool coroutine_fn qcow2_tree_read_table(BlockDriverState *bs, uint64_t l1_index, uint64_t l1_entry, uint8_t *buf,
                                        GError **errp);

/** qcow2_tree_look() - whether all of it can be read, is sound and counted, and @raise: could be counted once more
 * Writes nothing. */
bool coroutine_fn qcow2_tree_look(Qcow2Bulk *bulk, const Qcow2Tree *tree, bool raise, GError **errp);

/**
 * qcow2_tree_add() - @delta (1 or -1) to the count of everything the tree refers to
 * @left: at most so many references, the first ones; becomes less by those that were changed, also after an error
 */
bool coroutine_fn qcow2_tree_add(Qcow2Bulk *bulk, const Qcow2Tree *tree, int delta, uint64_t *left, GError **errp);

/** qcow2_tree_clear_copied() - no COPIED flag in the L1 entries in memory and in the L2 tables in the file */
bool coroutine_fn qcow2_tree_clear_copied(BlockDriverState *bs, Qcow2Tree *tree, GError **errp);
/** qcow2_tree_set_copied() - the flag where the count is 1
 * @where: only below L1 entries that are not 0 here */
bool coroutine_fn qcow2_tree_set_copied(Qcow2Bulk *bulk, Qcow2Tree *tree, const Qcow2Tree *where, GError **errp);

#endif
