/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/data_file.h"
#include "drivers/qcow2/map.h"
#include "drivers/qcow2/meta/meta.h"

/* Of what may be holes, one question looks at no more: the file may cut the answer short. */
#define SPARSE_STEP (INT64_C(1) << 30)

/* Whether the file stores less than nine tenths of what the clusters in use would take: the line of qemu-img. */
static bool coroutine_fn stores_less(BlockDriverState *bs)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint64_t clusters = qcow2_clusters_of(g, (uint64_t)atomic_load(&bs->file->bs->length));
    int64_t bytes = bdrv_co_get_allocated_file_size(bs->file);
    if (bytes < 0) {
        return false;
    }
    uint64_t stored = (uint64_t)bytes >> g->cluster_bits, enough = MAX(stored * 10 / 9, stored + 2);
    /* Where all is stored nothing needs counting. */
    int64_t used = enough <= clusters ? qcow2_meta_count_used(bs, clusters, enough) : 0;
    return used >= 0 && (uint64_t)used >= enough;
}

/*
 * Whether the image looks preallocated: clusters were reserved and never written. Found out once, since the
 * refcounts have to be read. Who cannot read the data where it lies (encryption) has no use for holes.
 */
static bool coroutine_fn is_sparse(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    int known = atomic_load(&s->sparse);
    if (known == QCOW2_SPARSE_UNKNOWN) {
        known = !s->crypto && stores_less(bs) ? QCOW2_SPARSE : QCOW2_NOT_SPARSE;
        atomic_store(&s->sparse, known);
    }
    return known == QCOW2_SPARSE;
}

static int coroutine_fn map_extent(BlockDriverState *bs, int64_t offset, int64_t bytes, bool sparse,
                                   Qcow2Extent *mapped)
{
    int64_t step = sparse ? MIN(bytes, SPARSE_STEP) : bytes;
    int ret = qcow2_map(bs, (uint64_t)offset, (uint64_t)step, QCOW2_MAP_PLAIN, mapped);

    if (ret >= 0 && step < bytes && (int64_t)mapped->bytes == step && mapped->kind != QCOW2_CLUSTER_NORMAL) {
        ret = qcow2_map(bs, (uint64_t)offset, (uint64_t)bytes, QCOW2_MAP_PLAIN, mapped);
    }
    return ret;
}

int coroutine_fn qcow2_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    Qcow2Meta *meta = qcow2_state(bs)->meta;
    Qcow2Extent mapped;

    if (!meta) {
        return -EIO;
    }
    bool sparse = is_sparse(bs);
    unsigned epoch = qcow2_epoch_enter(meta);
    int ret = map_extent(bs, offset, bytes, sparse, &mapped);
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
