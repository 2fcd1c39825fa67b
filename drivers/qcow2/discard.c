/* SPDX-License-Identifier: MIT */
/*
 * Discard: whole clusters only. On version 3 the range reads as zeroes afterwards, also if there is a
 * backing file. Version 2 cannot say that, so with a backing file the hint is not taken.
 */

#include <errno.h>

#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/data_file.h"
#include "drivers/qcow2/map.h"
#include "drivers/qcow2/remap.h"

static int discard_cluster(BlockDriverState *bs, const Qcow2RemapCluster *c, Qcow2RawEntry *raw)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;

    if (!c->whole) {
        return 0;
    }
    if (g->version < 3) {
        *raw = (Qcow2RawEntry){ 0 };
    } else if (qcow2_state(bs)->discard.no_unref && qcow2_has_own_space(&c->old)) {
        *raw = qcow2_raw_zero(c->old.host_offset, true, g);
    } else if (c->old.kind != QCOW2_CLUSTER_UNALLOCATED || c->old.placed || bs->backing) {
        *raw = qcow2_raw_zero(0, false, g);
    }
    return 0;
}

int coroutine_fn qcow2_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    if (qcow2_state(bs)->geometry.version < 3 && bs->backing) {
        return -ENOTSUP;
    }
    int ret = qcow2_note_change(bs, offset, bytes);
    if (ret < 0) {
        return ret;
    }
    if (qcow2_data_is_raw(qcow2_state(bs))) {
        return qcow2_data_zero(bs, offset, bytes, BDRV_REQ_MAY_UNMAP);
    }
    Qcow2Remap how = { .cluster = discard_cluster, .flags = BDRV_REQ_MAY_UNMAP, .is_discard = true };
    return qcow2_remap(bs, offset, bytes, &how);
}
