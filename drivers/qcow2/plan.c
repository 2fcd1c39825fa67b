/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/plan.h"

#include "drivers/qcow2/map.h"
#include "drivers/qcow2/meta/meta.h"

/* Whether all subclusters of the cluster at @cluster that [begin, end) touches may be overwritten where they are. */
static bool in_place(const Qcow2Geometry *g, const Qcow2L2Entry *entry, uint64_t cluster, uint64_t begin, uint64_t end)
{
    uint32_t touched = qcow2_touched(g, cluster, begin, end);
    return entry->copied && entry->kind != QCOW2_CLUSTER_COMPRESSED && (entry->allocated & touched) == touched;
}

/* Space that nobody shares, for subclusters that are to be filled where they are. A data file always has it. */
static bool own_space(const Qcow2Geometry *g, const Qcow2L2Entry *entry, uint64_t cluster, uint64_t *host)
{
    bool own = g->data_file || qcow2_has_own_space(entry);
    *host = g->data_file ? cluster : own ? entry->host_offset : 0;
    return own;
}

bool qcow2_has_own_space(const Qcow2L2Entry *entry)
{
    return entry->copied && entry->placed;
}

uint32_t qcow2_touched(const Qcow2Geometry *g, uint64_t cluster, uint64_t begin, uint64_t end)
{
    uint64_t first = begin > cluster ? (begin - cluster) >> g->subcluster_bits : 0;
    uint64_t last = end - cluster < g->cluster_size ? (end - cluster + g->subcluster_size - 1) >> g->subcluster_bits
                                                    : g->subclusters;
    return qcow2_subcluster_mask((unsigned)first, (unsigned)last);
}

int coroutine_fn qcow2_plan_alloc(BlockDriverState *bs, Qcow2AllocRun *run, uint64_t begin, uint64_t end)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    Qcow2L2Entry entry;
    int n = qcow2_l2_read(bs, run->first_offset, run->entries, run->count);
    if (n < 0) {
        return n;
    }
    run->count = 0;
    run->reuse = false;
    run->reuse_host = 0;
    for (int i = 0; i < n; i++) {
        uint64_t cluster = run->first_offset + ((uint64_t)i << g->cluster_bits);
        int ret = qcow2_decode_entry(bs, cluster, run->entries[i], &entry);
        if (ret < 0) {
            return ret;
        }
        uint64_t host;
        bool own = own_space(g, &entry, cluster, &host);
        host -= own ? (uint64_t)i << g->cluster_bits : 0;
        if (in_place(g, &entry, cluster, begin, end) || (i > 0 && (own != run->reuse || host != run->reuse_host))) {
            break;
        }
        if (i == 0) {
            run->reuse = own;
            run->reuse_host = host;
        }
        run->count++;
    }
    return 0;
}

void qcow2_drop_entries(BlockDriverState *bs, const Qcow2RawEntry *entries, unsigned count, Qcow2DiscardType why)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    for (unsigned i = 0; i < count && !g->data_file; i++) {
        Qcow2L2Entry entry = qcow2_l2_entry_decode(entries[i], g);
        if (entry.kind == QCOW2_CLUSTER_COMPRESSED) {
            uint64_t first = entry.host_offset >> g->cluster_bits;
            uint64_t last = (entry.host_offset + entry.compressed_bytes - 1) >> g->cluster_bits;
            qcow2_drop_clusters(bs, first << g->cluster_bits, last - first + 1, why);
        } else if (entry.placed && entry.kind != QCOW2_CLUSTER_INVALID) {
            qcow2_drop_clusters(bs, entry.host_offset, 1, why);
        }
    }
}
