/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/plan.h"

#include "drivers/qcow2/map.h"
#include "drivers/qcow2/meta/meta.h"

static bool in_place(const Qcow2L2Entry *entry)
{
    return entry->kind == QCOW2_CLUSTER_NORMAL && entry->copied;
}

/* A zero cluster with space nobody shares: it can be filled where it is. */
static uint64_t own_space(const Qcow2L2Entry *entry)
{
    return entry->kind == QCOW2_CLUSTER_ZERO && entry->copied ? entry->host_offset : 0;
}

int coroutine_fn qcow2_plan_alloc(BlockDriverState *bs, Qcow2AllocRun *run)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    Qcow2L2Entry entry;
    int n = qcow2_l2_read(bs, run->first_offset, run->entries, run->count);
    if (n < 0) {
        return n;
    }
    run->count = 0;
    run->reuse_host = 0;
    for (int i = 0; i < n; i++) {
        int ret = qcow2_decode_entry(bs, run->first_offset + ((uint64_t)i << g->cluster_bits), run->entries[i], &entry);
        if (ret < 0) {
            return ret;
        }
        uint64_t own = own_space(&entry);
        if (in_place(&entry) || (i > 0 && (own ? own - ((uint64_t)i << g->cluster_bits) : 0) != run->reuse_host)) {
            break;
        }
        if (i == 0) {
            run->reuse_host = own;
        }
        run->count++;
    }
    return 0;
}

void qcow2_drop_entries(BlockDriverState *bs, const uint64_t *entries, unsigned count, bool punch)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    for (unsigned i = 0; i < count; i++) {
        Qcow2L2Entry entry = qcow2_l2_entry_decode(entries[i], g->version, g->cluster_bits);
        if (entry.kind == QCOW2_CLUSTER_COMPRESSED) {
            uint64_t first = entry.host_offset >> g->cluster_bits;
            uint64_t last = (entry.host_offset + entry.compressed_bytes - 1) >> g->cluster_bits;
            qcow2_drop_clusters(bs, first << g->cluster_bits, last - first + 1, punch);
        } else if (entry.host_offset && entry.kind != QCOW2_CLUSTER_INVALID) {
            qcow2_drop_clusters(bs, entry.host_offset, 1, punch);
        }
    }
}
