/* SPDX-License-Identifier: MIT */
/*
 * The fixed part of the header (specification: "Header"). Version 2 ends after snapshots_offset; the
 * fields that version 3 added get the values that version 2 implies.
 */

#include "drivers/qcow2/format/format.h"

#include <errno.h>
#include <inttypes.h>

#include "block/util/bytes.h"

/* Byte offsets of the fields */
enum {
    H_MAGIC = 0,
    H_VERSION = 4,
    H_BACKING_FILE_OFFSET = 8,
    H_BACKING_FILE_SIZE = 16,
    H_CLUSTER_BITS = 20,
    H_SIZE = 24,
    H_CRYPT_METHOD = 32,
    H_L1_SIZE = 36,
    H_L1_TABLE_OFFSET = 40,
    H_REFCOUNT_TABLE_OFFSET = 48,
    H_REFCOUNT_TABLE_CLUSTERS = 56,
    H_NB_SNAPSHOTS = 60,
    H_SNAPSHOTS_OFFSET = 64,
    H_INCOMPATIBLE_FEATURES = 72,
    H_COMPATIBLE_FEATURES = 80,
    H_AUTOCLEAR_FEATURES = 88,
    H_REFCOUNT_ORDER = 96,
    H_HEADER_LENGTH = 100,
    H_COMPRESSION_TYPE = 104,
};

bool qcow2_header_probe(const uint8_t *buf, size_t size)
{
    if (size < QCOW2_HEADER_SIZE_V2 || load_be32(buf + H_MAGIC) != QCOW2_MAGIC) {
        return false;
    }
    uint32_t version = load_be32(buf + H_VERSION);
    return version == 2 || (version > 2 && size >= QCOW2_HEADER_SIZE_V3);
}

static bool check_header_length(const Qcow2Header *header, GError **errp)
{
    if (header->header_length < QCOW2_HEADER_SIZE_V3) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "header_length %" PRIu32 " is too short: version 3 has at least %u bytes",
                    header->header_length, QCOW2_HEADER_SIZE_V3);
        return false;
    }
    if (header->header_length % 8) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "header_length %" PRIu32 " is not a multiple of 8",
                    header->header_length);
        return false;
    }
    return true;
}

/* Fields of version 3, or what version 2 implies. */
static bool decode_v3(const uint8_t *buf, size_t size, Qcow2Header *header, GError **errp)
{
    if (header->version == 2) {
        header->refcount_order = 4;
        header->header_length = QCOW2_HEADER_SIZE_V2;
        return true;
    }
    if (size < QCOW2_HEADER_SIZE_V3) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the image ends after %zu bytes, inside its version 3 header of at least %u bytes", size,
                    QCOW2_HEADER_SIZE_V3);
        return false;
    }
    header->incompatible_features = load_be64(buf + H_INCOMPATIBLE_FEATURES);
    header->compatible_features = load_be64(buf + H_COMPATIBLE_FEATURES);
    header->autoclear_features = load_be64(buf + H_AUTOCLEAR_FEATURES);
    header->refcount_order = load_be32(buf + H_REFCOUNT_ORDER);
    header->header_length = load_be32(buf + H_HEADER_LENGTH);
    if (!check_header_length(header, errp)) {
        return false;
    }
    if (header->header_length > H_COMPRESSION_TYPE && size > H_COMPRESSION_TYPE) {
        header->compression_type = buf[H_COMPRESSION_TYPE];
    }
    return true;
}

bool qcow2_header_decode(const uint8_t *buf, size_t size, Qcow2Header *header, GError **errp)
{
    if (size < QCOW2_HEADER_SIZE_V2) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "%zu bytes are too short for a qcow2 header of at least %u bytes", size,
                    QCOW2_HEADER_SIZE_V2);
        return false;
    }
    if (load_be32(buf + H_MAGIC) != QCOW2_MAGIC) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the image is not in qcow2 format: it starts with 0x%08" PRIx32 ", not 0x%08x",
                    load_be32(buf + H_MAGIC), QCOW2_MAGIC);
        return false;
    }
    Qcow2Header h = {
        .version = load_be32(buf + H_VERSION),
        .backing_file_offset = load_be64(buf + H_BACKING_FILE_OFFSET),
        .backing_file_size = load_be32(buf + H_BACKING_FILE_SIZE),
        .cluster_bits = load_be32(buf + H_CLUSTER_BITS),
        .size = load_be64(buf + H_SIZE),
        .crypt_method = load_be32(buf + H_CRYPT_METHOD),
        .l1_size = load_be32(buf + H_L1_SIZE),
        .l1_table_offset = load_be64(buf + H_L1_TABLE_OFFSET),
        .refcount_table_offset = load_be64(buf + H_REFCOUNT_TABLE_OFFSET),
        .refcount_table_clusters = load_be32(buf + H_REFCOUNT_TABLE_CLUSTERS),
        .nb_snapshots = load_be32(buf + H_NB_SNAPSHOTS),
        .snapshots_offset = load_be64(buf + H_SNAPSHOTS_OFFSET),
    };
    if (h.version != 2 && h.version != 3) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "qcow2 version %" PRIu32 " is not supported; versions 2 and 3 are", h.version);
        return false;
    }
    if (!decode_v3(buf, size, &h, errp)) {
        return false;
    }
    *header = h;
    return true;
}

size_t qcow2_header_encode(const Qcow2Header *header, uint8_t *buf, size_t size)
{
    size_t need = QCOW2_HEADER_SIZE_V2;
    if (header->version >= 3) {
        need = header->header_length > H_COMPRESSION_TYPE ? QCOW2_HEADER_KNOWN_BYTES : QCOW2_HEADER_SIZE_V3;
    }
    if (size < need) {
        return 0;
    }
    store_be32(buf + H_MAGIC, QCOW2_MAGIC);
    store_be32(buf + H_VERSION, header->version);
    store_be64(buf + H_BACKING_FILE_OFFSET, header->backing_file_offset);
    store_be32(buf + H_BACKING_FILE_SIZE, header->backing_file_size);
    store_be32(buf + H_CLUSTER_BITS, header->cluster_bits);
    store_be64(buf + H_SIZE, header->size);
    store_be32(buf + H_CRYPT_METHOD, header->crypt_method);
    store_be32(buf + H_L1_SIZE, header->l1_size);
    store_be64(buf + H_L1_TABLE_OFFSET, header->l1_table_offset);
    store_be64(buf + H_REFCOUNT_TABLE_OFFSET, header->refcount_table_offset);
    store_be32(buf + H_REFCOUNT_TABLE_CLUSTERS, header->refcount_table_clusters);
    store_be32(buf + H_NB_SNAPSHOTS, header->nb_snapshots);
    store_be64(buf + H_SNAPSHOTS_OFFSET, header->snapshots_offset);
    if (need == QCOW2_HEADER_SIZE_V2) {
        return need;
    }
    store_be64(buf + H_INCOMPATIBLE_FEATURES, header->incompatible_features);
    store_be64(buf + H_COMPATIBLE_FEATURES, header->compatible_features);
    store_be64(buf + H_AUTOCLEAR_FEATURES, header->autoclear_features);
    store_be32(buf + H_REFCOUNT_ORDER, header->refcount_order);
    store_be32(buf + H_HEADER_LENGTH, header->header_length);
    if (need > H_COMPRESSION_TYPE) {
        buf[H_COMPRESSION_TYPE] = header->compression_type;
    }
    return need;
}

void qcow2_geometry_init(Qcow2Geometry *geometry, const Qcow2Header *header)
{
    bool extended = header->incompatible_features & QCOW2_INCOMPAT_EXTENDED_L2;
    Qcow2Geometry g = {
        .version = header->version,
        .cluster_bits = header->cluster_bits,
        .cluster_size = UINT32_C(1) << header->cluster_bits,
        .l2_bits = header->cluster_bits - (extended ? 4 : 3),
        .l2_entry_bytes = extended ? 16 : 8,
        .subclusters = extended ? QCOW2_SUBCLUSTERS : 1,
        .subcluster_bits = header->cluster_bits - (extended ? QCOW2_SUBCLUSTER_BITS : 0),
        .refcount_order = header->refcount_order,
        .refcount_bits = 1u << header->refcount_order,
        .refblock_bits = header->cluster_bits + 3 - header->refcount_order,
        .refcount_max = qcow2_refcount_limit(header->refcount_order),
        .extended_l2 = extended,
        .data_file = header->incompatible_features & QCOW2_INCOMPAT_DATA_FILE,
        .compression_type = header->compression_type,
    };
    g.l2_entries = UINT32_C(1) << g.l2_bits;
    g.subcluster_size = UINT32_C(1) << g.subcluster_bits;
    *geometry = g;
}
