/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_FORMAT_H
#define BDRV_QCOW2_FORMAT_H

/*
 * Bytes <-> structs of the qcow2 format: pure functions, no I/O, safe on any input.
 * Source: QEMU docs/interop/qcow2 ("the specification"); constants below name its sections.
 */

#include <bdrv/error.h>
#include <stdbool.h>
#include <stdint.h>

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_HEADER_SIZE_V2 72u
#define QCOW2_HEADER_SIZE_V3 104u

/* Incompatible features (header bytes 72..79) */
#define QCOW2_INCOMPAT_DIRTY (UINT64_C(1) << 0)
#define QCOW2_INCOMPAT_CORRUPT (UINT64_C(1) << 1)
#define QCOW2_INCOMPAT_DATA_FILE (UINT64_C(1) << 2)
#define QCOW2_INCOMPAT_COMPRESSION (UINT64_C(1) << 3)
#define QCOW2_INCOMPAT_EXTENDED_L2 (UINT64_C(1) << 4)
/* Compatible, autoclear */
#define QCOW2_COMPAT_LAZY_REFCOUNTS (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_BITMAPS (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_DATA_FILE_RAW (UINT64_C(1) << 1)

/* L1 and L2 table entries */
#define QCOW2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define QCOW2_COPIED (UINT64_C(1) << 63)
#define QCOW2_COMPRESSED (UINT64_C(1) << 62)
#define QCOW2_L2_ZERO UINT64_C(1)
#define QCOW2_L1_RESERVED UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED UINT64_C(0x3f000000000001fe)
#define QCOW2_REFTABLE_OFFSET_MASK UINT64_C(0xfffffffffffffe00)

/* Bounds on what a hostile image can make us allocate */
#define QCOW2_MAX_L1_BYTES (32u << 20)
#define QCOW2_MAX_REFTABLE_BYTES (8u << 20)
#define QCOW2_MAX_SNAPSHOTS 65536u
#define QCOW2_MAX_SNAPSHOT_EXTRA 1024u
#define QCOW2_MAX_BITMAPS 65535u
#define QCOW2_MAX_BACKING_NAME 1023u
#define QCOW2_MAX_EXTENSIONS_BYTES (1u << 20)

/* The header in host byte order; version 2 images have the defaults of version 3 filled in. */
typedef struct Qcow2Header {
    uint32_t version;
    uint64_t backing_file_offset;
    uint32_t backing_file_size;
    uint32_t cluster_bits;
    uint64_t size; /* bytes of the virtual disk */
    uint32_t crypt_method;
    uint32_t l1_size; /* entries */
    uint64_t l1_table_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible_features;
    uint64_t compatible_features;
    uint64_t autoclear_features;
    uint32_t refcount_order;
    uint32_t header_length;
    uint8_t compression_type; /* 0 deflate, 1 zstd */
} Qcow2Header;

/* Header extensions; unknown ones are kept byte for byte to be written back. */
typedef struct Qcow2UnknownExtension {
    uint32_t type, length;
    uint8_t *data;
} Qcow2UnknownExtension;

typedef struct Qcow2HeaderExtensions {
    char *backing_format;  /* 0xe2792aca; NULL: absent */
    char *data_file;       /* 0x44415441 */
    uint8_t *feature_names; /* 0x6803f857, raw table */
    uint32_t feature_names_bytes;
    uint8_t *bitmaps; /* 0x23852875, raw */
    uint32_t bitmaps_bytes;
    uint8_t *crypto; /* 0x0537be77, raw */
    uint32_t crypto_bytes;
    Qcow2UnknownExtension *unknown;
    unsigned unknown_count;
    uint8_t *unknown_header; /* header bytes after those known, up to header_length */
    uint32_t unknown_header_bytes;
} Qcow2HeaderExtensions;

/* One internal snapshot, as in the snapshot table */
typedef struct Qcow2Snapshot {
    uint64_t l1_table_offset;
    uint32_t l1_size;
    char *id, *name;
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock_ns;
    uint32_t vm_state_size_32;
    uint64_t vm_state_size;
    uint64_t disk_size;
    uint64_t icount;
    uint8_t *extra_data; /* whole extra data, known fields included */
    uint32_t extra_data_bytes;
} Qcow2Snapshot;

typedef struct Qcow2SnapshotTable {
    Qcow2Snapshot *snapshots;
    unsigned count;
    uint64_t offset, bytes; /* in the image */
} Qcow2SnapshotTable;

#endif
