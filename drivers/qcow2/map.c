/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/map.h"

#include <errno.h>
#include <inttypes.h>

#include "drivers/qcow2/meta/meta.h"

/* Entries looked up at a time; on the stack. */
#define CHUNK 32u

static int coroutine_fn bad_entry(BlockDriverState *bs, uint64_t guest_offset, uint64_t raw, const char *problem)
{
    g_autofree char *text = g_strdup_printf("L2 entry 0x%" PRIx64 " for guest offset 0x%" PRIx64 ": %s", raw,
                                            guest_offset, problem);
    qcow2_mark_corrupt(bs, text);
    return -EIO;
}

int coroutine_fn qcow2_decode_entry(BlockDriverState *bs, uint64_t guest_offset, uint64_t raw, Qcow2L2Entry *entry)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    *entry = qcow2_l2_entry_decode(raw, g->version, g->cluster_bits);
    return G_LIKELY(entry->kind != QCOW2_CLUSTER_INVALID) ? 0 : bad_entry(bs, guest_offset, raw, entry->problem);
}

uint64_t qcow2_backing_bytes(BlockDriverState *bs, uint64_t guest_offset, uint64_t bytes)
{
    if (!bs->backing) {
        return 0;
    }
    uint64_t length = (uint64_t)MAX(atomic_load_explicit(&bs->backing->bs->length, memory_order_relaxed), 0);
    return guest_offset >= length ? 0 : MIN(bytes, length - guest_offset);
}

static void start_extent(Qcow2Extent *extent, const Qcow2L2Entry *entry, uint64_t raw, uint64_t in_cluster)
{
    bool placed = entry->host_offset && entry->kind != QCOW2_CLUSTER_COMPRESSED;
    *extent = (Qcow2Extent){
        .kind = entry->kind,
        .copied = entry->copied,
        .host_offset = placed ? entry->host_offset + in_cluster : 0,
        .l2_entry = raw,
    };
}

/* Whether the next cluster belongs to an extent that ends where it begins. */
static bool continues(const Qcow2Extent *extent, const Qcow2L2Entry *entry, Qcow2MapHow how)
{
    if (entry->kind != extent->kind || extent->kind == QCOW2_CLUSTER_COMPRESSED ||
        (how == QCOW2_MAP_BY_COPIED && entry->copied != extent->copied)) {
        return false;
    }
    return extent->host_offset ? entry->host_offset == extent->host_offset + extent->bytes : !entry->host_offset;
}

int coroutine_fn qcow2_map(BlockDriverState *bs, uint64_t guest_offset, uint64_t bytes, Qcow2MapHow how,
                           Qcow2Extent *extent)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint64_t in_cluster = guest_offset & (g->cluster_size - 1);
    uint64_t entries[CHUNK];
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
            if (found.bytes == 0) {
                start_extent(&found, &entry, entries[i], in_cluster);
                found.bytes = g->cluster_size - in_cluster;
            } else if (continues(&found, &entry, how)) {
                found.bytes += g->cluster_size;
            } else {
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
