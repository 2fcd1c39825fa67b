/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_COMPRESSED_H
#define BDRV_QCOW2_COMPRESSED_H

/* Reading compressed clusters (specification: "Compressed Clusters Descriptor"). */

#include "drivers/qcow2/qcow2.h"

/**
 * qcow2_read_compressed() - read a part of one compressed guest cluster
 * @l2_entry: the cluster's L2 entry, host byte order, QCOW2_COMPRESSED set
 * @offset_in_cluster: first guest byte wanted, counted from the start of the cluster
 * @bytes: @offset_in_cluster + @bytes <= cluster size
 * @iov, @iov_offset: where the bytes go
 *
 * Inflates in a CPU worker, outside of any lock; the last clusters stay in a small cache of the node.
 * Context: coroutine, inside an epoch (qcow2_epoch_enter()): the host clusters must not be reused
 * meanwhile. Yields.
 * Returns: 0; -EIO if the data does not inflate to a whole cluster or lies outside of the file;
 * -ENOMEM; -ENOTSUP for zstd in a build without it.
 */
int coroutine_fn qcow2_read_compressed(BlockDriverState *bs, uint64_t l2_entry, uint64_t offset_in_cluster,
                                       uint64_t bytes, const BdrvIov *iov, size_t iov_offset);

/** qcow2_compressed_open() / _close() - make and free the node's cache */
bool qcow2_compressed_open(BlockDriverState *bs, GError **errp);
void qcow2_compressed_close(BlockDriverState *bs);

/** qcow2_compressed_forget() - drop cached clusters that lie in [host_offset, +bytes); any thread
 * Called when host clusters are freed for reuse: the cache is keyed by L2 entry. */
void qcow2_compressed_forget(BlockDriverState *bs, uint64_t host_offset, uint64_t bytes);

#endif
