/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/data_file.h"
#include "drivers/qcow2/map.h"
#include "drivers/qcow2/meta/meta.h"

int coroutine_fn qcow2_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    Qcow2Meta *meta = qcow2_state(bs)->meta;
    Qcow2Extent mapped;

    if (!meta) {
        return -EIO;
    }
    unsigned epoch = qcow2_epoch_enter(meta);
    int ret = qcow2_map(bs, (uint64_t)offset, (uint64_t)bytes, QCOW2_MAP_PLAIN, &mapped);
    qcow2_epoch_leave(meta, epoch);
    if (ret < 0) {
        return ret;
    }
    bool as_it_lies = mapped.placed && !qcow2_state(bs)->crypto; /* whoever reads there finds what the guest does */
    *extent = (BlockExtent){
        .kind = mapped.kind == QCOW2_CLUSTER_UNALLOCATED ? EXTENT_BACKING
                : mapped.kind == QCOW2_CLUSTER_ZERO      ? EXTENT_ZERO
                                                         : EXTENT_DATA,
        .allocated = mapped.kind == QCOW2_CLUSTER_COMPRESSED ||
                     (mapped.placed && mapped.kind != QCOW2_CLUSTER_UNALLOCATED),
        .compressed = mapped.kind == QCOW2_CLUSTER_COMPRESSED,
        .bytes = (int64_t)mapped.bytes,
        .host_offset = as_it_lies ? (int64_t)mapped.host_offset : -1,
        .file = as_it_lies ? qcow2_data_child(bs)->bs : NULL,
    };
    return 0;
}
