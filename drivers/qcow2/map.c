/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/map.h"

#include <errno.h>
#include <inttypes.h>

#include "drivers/qcow2/meta/meta.h"

/* Entries looked up at a time; on the stack. */
#define CHUNK 32u

static int coroutine_fn bad_entry(BlockDriverState *bs, uint64_t guest_offset, Qcow2RawEntry raw, const char *problem)
{
    g_autofree char *bitmap = raw.bitmap ? g_strdup_printf(" (subclusters 0x%" PRIx64 ")", raw.bitmap) : g_strdup("");
    g_autofree char *text = g_strdup_printf("L2 entry 0x%" PRIx64 "%s for guest offset 0x%" PRIx64 ": %s", raw.entry,
                                            bitmap, guest_offset, problem);
    qcow2_mark_corrupt(bs, text);
    return -EIO;
}

int coroutine_fn qcow2_decode_entry(BlockDriverState *bs, uint64_t guest_offset, Qcow2RawEntry raw,
                                    Qcow2L2Entry *entry)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;

    *entry = qcow2_l2_entry_decode(raw, g);
    if (G_UNLIKELY(entry->kind == QCOW2_CLUSTER_INVALID)) {
        return bad_entry(bs, guest_offset, raw, entry->problem);
    }
    if (G_UNLIKELY(g->data_file && entry->placed && entry->host_offset != (guest_offset & -(uint64_t)g->cluster_size))) {
        return bad_entry(bs, guest_offset, raw, "the offset in the data file is not the guest offset");
    }
    return 0;
}

uint64_t qcow2_backing_bytes(BlockDriverState *bs, uint64_t guest_offset, uint64_t bytes)
{
    if (!bs->backing) {
        return 0;
    }
    uint64_t length = (uint64_t)MAX(atomic_load_explicit(&bs->backing->bs->length, memory_order_relaxed), 0);
    return guest_offset >= length ? 0 : MIN(bytes, length - guest_offset);
}

/* Where a part of a cluster lies, or would; 0 if nowhere. */
static uint64_t place_of(const Qcow2L2Entry *entry, uint64_t in_cluster)
{
    return entry->placed ? entry->host_offset + in_cluster : 0;
}

/* Whether what lies at @place goes on with an extent that ends where it begins. */
static bool continues(const Qcow2Extent *extent, const Qcow2L2Entry *entry, Qcow2ClusterKind kind, uint64_t place,
                      Qcow2MapHow how)
{
    if (kind != extent->kind || kind == QCOW2_CLUSTER_COMPRESSED || entry->placed != extent->placed ||
        (how == QCOW2_MAP_BY_COPIED && entry->copied != extent->copied)) {
        return false;
    }
    return place == (extent->placed ? extent->host_offset + extent->bytes : 0);
}

/* Add the cluster to the extent, from @in_cluster on; false if something else begins in it. */
static bool add_cluster(const Qcow2Geometry *g, Qcow2Extent *found, const Qcow2L2Entry *entry, Qcow2RawEntry raw,
                        uint64_t in_cluster, Qcow2MapHow how)
{
    while (in_cluster < g->cluster_size) {
        unsigned index = (unsigned)(in_cluster >> g->subcluster_bits);
        unsigned end = index + qcow2_subcluster_run(entry, index, g->subclusters);
        Qcow2ClusterKind kind = qcow2_subcluster_kind(entry, index);
        uint64_t place = place_of(entry, in_cluster);
        if (found->bytes == 0) {
            *found = (Qcow2Extent){
                .kind = kind, .copied = entry->copied, .placed = entry->placed, .host_offset = place,
                .l2_entry = raw.entry,
            };
        } else if (!continues(found, entry, kind, place, how)) {
            return false;
        }
        found->bytes += ((uint64_t)end << g->subcluster_bits) - in_cluster;
        in_cluster = (uint64_t)end << g->subcluster_bits;
    }
    return true;
}

int coroutine_fn qcow2_map(BlockDriverState *bs, uint64_t guest_offset, uint64_t bytes, Qcow2MapHow how,
                           Qcow2Extent *extent)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint64_t in_cluster = guest_offset & (g->cluster_size - 1);
    Qcow2RawEntry entries[CHUNK];
    Qcow2L2Entry entry;
    Qcow2Extent found = { 0 };

    do {
        uint64_t at = guest_offset + found.bytes;
        uint64_t left = bytes - found.bytes + (found.bytes ? 0 : in_cluster);
        uint64_t clusters = (left + g->cluster_size - 1) >> g->cluster_bits;
        int n = qcow2_l2_read(bs, at, entries, (unsigned)MIN(clusters, CHUNK));
        if (G_UNLIKELY(n < 0)) {
            return n;
        }
        for (int i = 0; i < n; i++) {
            int ret = qcow2_decode_entry(bs, guest_offset + found.bytes, entries[i], &entry);
            if (G_UNLIKELY(ret < 0)) {
                return ret;
            }
            if (!add_cluster(g, &found, &entry, entries[i], found.bytes ? 0 : in_cluster, how)) {
                goto done;
            }
        }
        if (found.kind == QCOW2_CLUSTER_UNALLOCATED && found.bytes < bytes) {
            /* Whole tables at a time: a large disk may have none. */
            found.bytes = qcow2_l2_missing_end(bs, guest_offset + found.bytes, guest_offset + bytes) - guest_offset;
        }
    } while (found.bytes < bytes && found.kind != QCOW2_CLUSTER_COMPRESSED);
done:
    found.bytes = MIN(found.bytes, bytes);
    *extent = found;
    return 0;
}
