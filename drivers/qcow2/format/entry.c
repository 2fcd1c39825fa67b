/* SPDX-License-Identifier: MIT */
/* L1 and L2 table entries (specification: "Cluster mapping"). */

#include "drivers/qcow2/format/format.h"

/* Bits of a compressed descriptor that hold the host offset; the sector count is above, up to bit 61. */
static unsigned compressed_offset_bits(unsigned cluster_bits)
{
    return 62 - (cluster_bits - 8);
}

/* No cluster lies past this: offsets have 56 bits. */
#define HOST_OFFSET_BITS 56

static Qcow2L2Entry decode_compressed(uint64_t entry, unsigned cluster_bits)
{
    unsigned x = compressed_offset_bits(cluster_bits);
    uint64_t sectors = ((entry & ~(QCOW2_COPIED | QCOW2_COMPRESSED)) >> x) + 1;
    Qcow2L2Entry out = {
        .kind = QCOW2_CLUSTER_COMPRESSED,
        .copied = entry & QCOW2_COPIED,
        .host_offset = entry & ((UINT64_C(1) << x) - 1),
    };
    out.compressed_bytes = (uint32_t)(sectors * 512 - (out.host_offset & 511));
    if (out.host_offset >> HOST_OFFSET_BITS) {
        out.kind = QCOW2_CLUSTER_INVALID;
        out.problem = "the offset of the compressed data has bits above bit 55";
    }
    return out;
}

Qcow2L2Entry qcow2_l2_entry_decode(uint64_t entry, unsigned version, unsigned cluster_bits)
{
    if (entry & QCOW2_COMPRESSED) {
        return decode_compressed(entry, cluster_bits);
    }
    Qcow2L2Entry out = {
        .kind = QCOW2_CLUSTER_UNALLOCATED,
        .copied = entry & QCOW2_COPIED,
        .reserved = entry & QCOW2_L2_RESERVED,
        .host_offset = entry & QCOW2_OFFSET_MASK,
    };
    if (entry & QCOW2_L2_ZERO) {
        out.kind = QCOW2_CLUSTER_ZERO;
    } else if (out.host_offset) {
        out.kind = QCOW2_CLUSTER_NORMAL;
    }
    if (out.host_offset & ((UINT64_C(1) << cluster_bits) - 1)) {
        out.kind = QCOW2_CLUSTER_INVALID;
        out.problem = "the host offset is not a multiple of the cluster size";
    } else if (out.kind == QCOW2_CLUSTER_ZERO && version < 3) {
        out.kind = QCOW2_CLUSTER_INVALID;
        out.problem = "the zero flag is set, which version 2 does not have";
    }
    return out;
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
