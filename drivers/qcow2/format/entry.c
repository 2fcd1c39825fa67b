/* SPDX-License-Identifier: MIT */
/* L1 and L2 table entries (specification: "Cluster mapping"). */

#include "drivers/qcow2/format/format.h"

#include "block/util/bytes.h"

#define ALL_SUBCLUSTERS UINT32_MAX

/* Bits of a compressed descriptor that hold the host offset; the sector count is above, up to bit 61. */
static unsigned compressed_offset_bits(unsigned cluster_bits)
{
    return 62 - (cluster_bits - 8);
}

/* No cluster lies past this: offsets have 56 bits. */
#define HOST_OFFSET_BITS 56

static Qcow2L2Entry decode_compressed(Qcow2RawEntry raw, const Qcow2Geometry *g)
{
    unsigned x = compressed_offset_bits(g->cluster_bits);
    uint64_t sectors = ((raw.entry & ~(QCOW2_COPIED | QCOW2_COMPRESSED)) >> x) + 1;
    Qcow2L2Entry out = {
        .kind = QCOW2_CLUSTER_COMPRESSED,
        .copied = raw.entry & QCOW2_COPIED,
        .host_offset = raw.entry & ((UINT64_C(1) << x) - 1),
        .allocated = ALL_SUBCLUSTERS,
    };
    out.compressed_bytes = (uint32_t)(sectors * 512 - (out.host_offset & 511));
    if (out.host_offset >> HOST_OFFSET_BITS) {
        out.kind = QCOW2_CLUSTER_INVALID;
        out.problem = "the offset of the compressed data has bits above bit 55";
    } else if (raw.bitmap) {
        out.kind = QCOW2_CLUSTER_INVALID;
        out.problem = "a compressed cluster has a subcluster bitmap";
    } else if (g->data_file) {
        out.kind = QCOW2_CLUSTER_INVALID;
        out.problem = "a compressed cluster, which an image with a data file cannot have";
    }
    return out;
}

/* A flag alone is a place at offset 0 in a data file; but zeroes there have none, says QEMU. */
bool qcow2_raw_is_placed(Qcow2RawEntry raw, const Qcow2Geometry *g)
{
    bool zero = !g->extended_l2 && (raw.entry & QCOW2_L2_ZERO);
    return (raw.entry & QCOW2_OFFSET_MASK) || (g->data_file && (raw.entry & QCOW2_COPIED) && !zero);
}

/* What the entry says of the whole cluster without extended L2 entries. */
static void judge_standard(Qcow2L2Entry *out, Qcow2RawEntry raw, unsigned version)
{
    if (raw.entry & QCOW2_L2_ZERO) {
        out->kind = QCOW2_CLUSTER_ZERO;
        out->zero = ALL_SUBCLUSTERS;
        if (version < 3) {
            out->problem = "the zero flag is set, which version 2 does not have";
        }
    } else if (out->placed) {
        out->kind = QCOW2_CLUSTER_NORMAL;
        out->allocated = ALL_SUBCLUSTERS;
    }
}

static void judge_extended(Qcow2L2Entry *out, Qcow2RawEntry raw)
{
    out->reserved |= raw.entry & QCOW2_L2_ZERO;
    out->allocated = (uint32_t)raw.bitmap;
    out->zero = (uint32_t)(raw.bitmap >> 32);
    if (out->allocated & out->zero) {
        out->problem = "a subcluster is both allocated and zero";
    } else if (out->allocated && !out->placed) {
        out->problem = "a subcluster is allocated, but the cluster is not";
    } else if (out->zero == ALL_SUBCLUSTERS) {
        out->kind = QCOW2_CLUSTER_ZERO;
    } else if (out->allocated == ALL_SUBCLUSTERS) {
        out->kind = QCOW2_CLUSTER_NORMAL;
    } else if (raw.bitmap) {
        out->kind = QCOW2_CLUSTER_MIXED;
    }
}

Qcow2L2Entry qcow2_l2_entry_decode(Qcow2RawEntry raw, const Qcow2Geometry *g)
{
    if (raw.entry & QCOW2_COMPRESSED) {
        return decode_compressed(raw, g);
    }
    Qcow2L2Entry out = {
        .kind = QCOW2_CLUSTER_UNALLOCATED,
        .copied = (raw.entry & QCOW2_COPIED) || (g->data_file && qcow2_raw_is_placed(raw, g)),
        .reserved = raw.entry & QCOW2_L2_RESERVED,
        .placed = qcow2_raw_is_placed(raw, g),
        .host_offset = raw.entry & QCOW2_OFFSET_MASK,
    };
    if (g->extended_l2) {
        judge_extended(&out, raw);
    } else {
        judge_standard(&out, raw, g->version);
    }
    if (out.host_offset & (g->cluster_size - 1)) {
        out.problem = "the host offset is not a multiple of the cluster size";
    }
    if (out.problem) {
        out.kind = QCOW2_CLUSTER_INVALID;
    }
    return out;
}

Qcow2RawEntry qcow2_l2_entry_load(const uint8_t *table, uint32_t index, const Qcow2Geometry *g)
{
    const uint8_t *at = table + (size_t)index * g->l2_entry_bytes;
    return (Qcow2RawEntry){ load_be64(at), g->extended_l2 ? load_be64(at + 8) : 0 };
}

void qcow2_l2_entry_store(uint8_t *table, uint32_t index, Qcow2RawEntry raw, const Qcow2Geometry *g)
{
    uint8_t *at = table + (size_t)index * g->l2_entry_bytes;
    store_be64(at, raw.entry);
    if (g->extended_l2) {
        store_be64(at + 8, raw.bitmap);
    }
}

Qcow2RawEntry qcow2_raw_data(uint64_t host_offset, bool copied, const Qcow2Geometry *g)
{
    return (Qcow2RawEntry){ host_offset | (copied ? QCOW2_COPIED : 0), g->extended_l2 ? ALL_SUBCLUSTERS : 0 };
}

Qcow2RawEntry qcow2_raw_zero(uint64_t host_offset, bool copied, const Qcow2Geometry *g)
{
    uint64_t entry = host_offset | (copied ? QCOW2_COPIED : 0);
    return g->extended_l2 ? (Qcow2RawEntry){ entry, (uint64_t)ALL_SUBCLUSTERS << 32 }
                          : (Qcow2RawEntry){ entry | QCOW2_L2_ZERO, 0 };
}

Qcow2RawEntry qcow2_raw_written(Qcow2RawEntry old, uint64_t host_offset, uint32_t written, const Qcow2Geometry *g)
{
    Qcow2RawEntry new = { host_offset | QCOW2_COPIED, 0 };
    if (g->extended_l2) {
        uint32_t allocated = old.entry & QCOW2_COMPRESSED ? ALL_SUBCLUSTERS : (uint32_t)old.bitmap | written;
        uint32_t zero = (uint32_t)(old.bitmap >> 32) & ~allocated;
        new.bitmap = (uint64_t)zero << 32 | allocated;
    }
    return new;
}

Qcow2ClusterKind qcow2_subcluster_kind(const Qcow2L2Entry *entry, unsigned index)
{
    if (entry->kind != QCOW2_CLUSTER_MIXED) {
        return entry->kind;
    }
    return entry->zero >> index & 1        ? QCOW2_CLUSTER_ZERO
           : entry->allocated >> index & 1 ? QCOW2_CLUSTER_NORMAL
                                           : QCOW2_CLUSTER_UNALLOCATED;
}

unsigned qcow2_bit_run(uint32_t bits, unsigned index, unsigned end)
{
    uint32_t rest = bits >> index, differs = rest & 1 ? ~rest : rest;
    unsigned same = differs ? (unsigned)__builtin_ctz(differs) : QCOW2_SUBCLUSTERS;
    return same < end - index ? same : end - index;
}

unsigned qcow2_subcluster_run(const Qcow2L2Entry *entry, unsigned index, unsigned end)
{
    if (entry->kind != QCOW2_CLUSTER_MIXED) {
        return end - index;
    }
    unsigned allocated = qcow2_bit_run(entry->allocated, index, end), zero = qcow2_bit_run(entry->zero, index, end);
    return allocated < zero ? allocated : zero;
}

uint64_t qcow2_compressed_descriptor(uint64_t host_offset, uint64_t bytes, unsigned cluster_bits)
{
    unsigned x = compressed_offset_bits(cluster_bits);
    if (bytes == 0 || host_offset >> HOST_OFFSET_BITS || host_offset >> x) {
        return 0;
    }
    uint64_t last = host_offset + (bytes - 1);
    if (last < host_offset) {
        return 0;
    }
    uint64_t additional = last / 512 - host_offset / 512;
    if (additional >> (62 - x)) {
        return 0;
    }
    return QCOW2_COMPRESSED | additional << x | host_offset;
}

const char *qcow2_l1_entry_problem(uint64_t entry, unsigned cluster_bits)
{
    if ((entry & QCOW2_OFFSET_MASK) & ((UINT64_C(1) << cluster_bits) - 1)) {
        return "the L2 table offset is not a multiple of the cluster size";
    }
    return NULL;
}
