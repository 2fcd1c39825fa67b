/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/data_file.h"
#include "drivers/qcow2/map.h"
#include "drivers/qcow2/meta/meta.h"

/* What one question that the file may cut short looks at, at most. */
#define SPARSE_STEP (INT64_C(1) << 30)

/* Whether a good part of the file is holes: clusters were reserved and never written. Found out once. */
static bool coroutine_fn is_sparse(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    int known = atomic_load(&s->sparse);
    if (known == QCOW2_SPARSE_UNKNOWN) {
        int64_t length = atomic_load(&bs->file->bs->length), allocated = bdrv_co_get_allocated_file_size(bs->file);
        bool sparse = !s->geometry.data_file && allocated >= 0 && allocated < length / 10 * 9;
        known = sparse ? QCOW2_SPARSE : QCOW2_NOT_SPARSE;
        atomic_store(&s->sparse, known);
    }
    return known == QCOW2_SPARSE;
}

int coroutine_fn qcow2_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    Qcow2Meta *meta = qcow2_state(bs)->meta;
    Qcow2Extent mapped;

    if (!meta) {
        return -EIO;
    }
    bool sparse = is_sparse(bs);
    uint64_t most = (uint64_t)(sparse ? MIN(bytes, SPARSE_STEP) : bytes);
    unsigned epoch = qcow2_epoch_enter(meta);
    int ret = qcow2_map(bs, (uint64_t)offset, most, QCOW2_MAP_PLAIN, &mapped);
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
        .ask_file = sparse,
        .bytes = (int64_t)mapped.bytes,
        .host_offset = as_it_lies ? (int64_t)mapped.host_offset : -1,
        .file = as_it_lies ? qcow2_data_child(bs)->bs : NULL,
    };
    return 0;
}
