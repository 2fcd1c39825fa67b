/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_SNAPSHOT_H
#define BDRV_QCOW2_SNAPSHOT_H

/* Internal snapshots: what snapshot.c and snapshot_table.c share. */

#include "drivers/qcow2/qcow2.h"

/** qcow2_snapshot_find() - index of the first one with this id and this name (NULL: any), or -1 */
int qcow2_snapshot_find(const Qcow2SnapshotTable *table, const char *id, const char *name);

/** qcow2_snapshot_new_id() - the number after the largest there is; caller frees */
char *qcow2_snapshot_new_id(const Qcow2SnapshotTable *table);

/** qcow2_snapshot_describe() - @info as a table entry, but for its L1 table and id; @snapshot owns what it holds */
bool qcow2_snapshot_describe(const Qcow2State *s, const BdrvSnapshotInfo *info, Qcow2Snapshot *snapshot, GError **errp);

/** qcow2_store_snapshots() - write @table where nothing is yet and nothing leads to; sets offset and bytes
 * An empty table takes no space. Durable with the next commit. */
bool coroutine_fn qcow2_store_snapshots(BlockDriverState *bs, Qcow2SnapshotTable *table, GError **errp);

/** qcow2_snapshots_record_sizes() - every entry says how large its disk is, as version 3 demands; drained
 * Nothing is written if they do already. */
bool coroutine_fn qcow2_snapshots_record_sizes(BlockDriverState *bs, GError **errp);

#endif
