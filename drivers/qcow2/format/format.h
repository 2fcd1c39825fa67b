/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_FORMAT_H
#define BDRV_QCOW2_FORMAT_H

/*
 * Bytes <-> structs of the qcow2 format: pure functions, no I/O, safe on any input.
 * Source: QEMU docs/interop/qcow2 ("the specification"); constants below name its sections.
 */

#include <bdrv/types.h>
#include <stdbool.h>
#include <stdint.h>

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_HEADER_SIZE_V2 72u
#define QCOW2_HEADER_SIZE_V3 104u
/* Header bytes this driver has fields for: up to and including compression_type */
#define QCOW2_HEADER_KNOWN_BYTES 105u
/* header_length of the images we make: the known fields, padded to 8 */
#define QCOW2_HEADER_SIZE_NEW 112u

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

/* Extended L2 entries: each cluster has 32 subclusters */
#define QCOW2_SUBCLUSTER_BITS 5u
#define QCOW2_SUBCLUSTERS (1u << QCOW2_SUBCLUSTER_BITS)
#define QCOW2_MIN_CLUSTER_BITS_EXTENDED 14u

/* Bounds on what a hostile image can make us allocate */
#define QCOW2_MAX_L1_BYTES (32u << 20)
#define QCOW2_MAX_REFTABLE_BYTES (8u << 20)
#define QCOW2_MAX_SNAPSHOTS 65536u
#define QCOW2_MAX_SNAPSHOT_EXTRA 1024u
#define QCOW2_MAX_BITMAPS 65535u
#define QCOW2_MAX_BACKING_NAME 1023u
#define QCOW2_FEATURE_NAMES_MIN_CLUSTER 8192u /* smaller header clusters have no feature name table, as qemu-img does */
#define QCOW2_MAX_EXTENSIONS_BYTES (1u << 20)
#define QCOW2_MAX_SNAPSHOT_TABLE_BYTES (16u << 20)
#define QCOW2_MIN_CLUSTER_BITS 9u
#define QCOW2_MAX_CLUSTER_BITS 21u
#define QCOW2_MAX_REFCOUNT_ORDER 6u

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

/* What follows from the header and never changes while the image is open (amend and repair reopen it). */
typedef struct Qcow2Geometry {
    unsigned version;         /* 2 or 3 */
    unsigned cluster_bits;    /* 9 .. 21 */
    unsigned l2_bits;         /* log2 of L2 entries a table */
    unsigned refcount_order;  /* 0 .. 6 */
    unsigned refcount_bits;   /* 1 << refcount_order */
    unsigned refblock_bits;   /* log2 of refcounts a block */
    uint32_t cluster_size;    /* bytes */
    uint32_t l2_entries;      /* a table */
    uint32_t l2_entry_bytes;  /* 8; 16 with extended L2 entries */
    unsigned subclusters;     /* a cluster: 1; 32 with extended L2 entries */
    unsigned subcluster_bits; /* log2 of their bytes */
    uint32_t subcluster_size; /* bytes */
    uint64_t refcount_max;    /* largest count */
    bool extended_l2;
    bool data_file;           /* guest data is in an external data file, each cluster at its guest offset */
    uint8_t compression_type; /* 0 deflate, 1 zstd */
} Qcow2Geometry;

/* Header extensions; unknown ones are kept byte for byte to be written back. */
typedef struct Qcow2UnknownExtension {
    uint32_t type, length;
    uint8_t *data;
} Qcow2UnknownExtension;

typedef struct Qcow2HeaderExtensions {
    char *backing_format;   /* 0xe2792aca; NULL: absent */
    char *data_file;        /* 0x44415441 */
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

/* ---- header.c ---- */

/** qcow2_header_probe() - whether @buf starts with a whole qcow2 header of version 2 or later */
bool qcow2_header_probe(const uint8_t *buf, size_t size);

/**
 * qcow2_header_decode() - read the fixed fields
 * @buf: start of the image; @size: bytes there (QCOW2_HEADER_SIZE_NEW or more unless the file is shorter)
 *
 * Checks what can be judged without the rest of the image: magic, version, header_length. All
 * other values are as in the file.
 * Fails with EINVAL (not qcow2, truncated, bad header_length) or ENOTSUP (version).
 */
bool qcow2_header_decode(const uint8_t *buf, size_t size, Qcow2Header *header, GError **errp);

/**
 * qcow2_header_encode() - write the fixed fields into @buf
 * Bytes after the fields that header->version and header_length have are left as they are.
 * Returns: bytes written, at most QCOW2_HEADER_KNOWN_BYTES; 0 if @size is too small.
 */
size_t qcow2_header_encode(const Qcow2Header *header, uint8_t *buf, size_t size);

/** qcow2_geometry_init() - derive from a header whose cluster_bits and refcount_order are in range */
void qcow2_geometry_init(Qcow2Geometry *geometry, const Qcow2Header *header);

/** qcow2_clusters_of() - clusters that @bytes take, the last one perhaps in part; any @bytes */
static inline uint64_t qcow2_clusters_of(const Qcow2Geometry *geometry, uint64_t bytes)
{
    return (bytes >> geometry->cluster_bits) + ((bytes & (geometry->cluster_size - 1)) != 0);
}

/** qcow2_l1_entries_of() - L1 entries that a disk of @bytes needs; any @bytes */
static inline uint64_t qcow2_l1_entries_of(const Qcow2Geometry *geometry, uint64_t bytes)
{
    unsigned shift = geometry->cluster_bits + geometry->l2_bits;
    return (bytes >> shift) + ((bytes & ((UINT64_C(1) << shift) - 1)) != 0);
}

/* ---- extensions.c ---- */

/**
 * qcow2_extensions_decode() - parse the header extension area
 * @buf: area from header_length to where extensions must end; @size: its length
 * @first_offset: where the area lies in the image, for messages
 *
 * The area ends at the end marker, or where fewer than 8 bytes remain. @ext must be zeroed or
 * cleared; unknown_header is not touched. Fails with EINVAL (length, duplicate) or ENOMEM.
 */
bool qcow2_extensions_decode(const uint8_t *buf, size_t size, uint64_t first_offset,
                             Qcow2HeaderExtensions *ext, GError **errp);

/** qcow2_extensions_size() - bytes qcow2_extensions_encode() needs, end marker included */
size_t qcow2_extensions_size(const Qcow2HeaderExtensions *ext);

/** qcow2_extensions_encode() - the area as bytes; returns how many, or 0 if @size is too small */
size_t qcow2_extensions_encode(const Qcow2HeaderExtensions *ext, uint8_t *buf, size_t size);

/** qcow2_extensions_clear() - free what the struct holds (unknown_header too) and zero it */
void qcow2_extensions_clear(Qcow2HeaderExtensions *ext);

/* The bitmaps extension (specification: "Bitmaps extension") */
typedef struct Qcow2BitmapsExtension {
    uint32_t nb_bitmaps;
    uint64_t directory_size, directory_offset; /* bytes */
} Qcow2BitmapsExtension;
bool qcow2_bitmaps_extension_decode(const uint8_t *buf, size_t size, Qcow2BitmapsExtension *out,
                                    GError **errp);

/* The full disk encryption header pointer */
typedef struct Qcow2CryptoExtension {
    uint64_t offset, length; /* bytes */
} Qcow2CryptoExtension;
#define QCOW2_CRYPTO_EXTENSION_BYTES 16u
void qcow2_crypto_extension_encode(const Qcow2CryptoExtension *ext, uint8_t *buf);
bool qcow2_crypto_extension_decode(const uint8_t *buf, size_t size, Qcow2CryptoExtension *out, GError **errp);

/* ---- features.c ---- */

typedef enum Qcow2FeatureKind {
    QCOW2_FEATURE_INCOMPATIBLE = 0,
    QCOW2_FEATURE_COMPATIBLE = 1,
    QCOW2_FEATURE_AUTOCLEAR = 2,
} Qcow2FeatureKind;

#define QCOW2_FEATURE_ENTRY_BYTES 48u

/** qcow2_feature_name() - the name an image's table gives a bit, printable; NULL if none. Caller frees. */
char *qcow2_feature_name(const uint8_t *table, size_t table_bytes, Qcow2FeatureKind kind, unsigned bit);

/** qcow2_feature_list() - "name, name, bit 17" for the bits of @mask. Caller frees. */
char *qcow2_feature_list(const uint8_t *table, size_t table_bytes, Qcow2FeatureKind kind, uint64_t mask);

/** qcow2_feature_table_new() - the table we write into new images; caller frees */
uint8_t *qcow2_feature_table_new(uint32_t *bytes);

/* ---- refcount.c: entries of a refcount block, @order 0 .. 6 (width 1 << order bits) ---- */

/** qcow2_refcount_get() - entry @index of @block; the caller keeps @index inside the block */
uint64_t qcow2_refcount_get(const void *block, uint64_t index, unsigned order);
/** qcow2_refcount_set() - @value must fit the width */
void qcow2_refcount_set(void *block, uint64_t index, unsigned order, uint64_t value);
/** qcow2_refcount_limit() - the largest count of a width */
uint64_t qcow2_refcount_limit(unsigned order);

/* ---- entry.c: L1 and L2 table entries ---- */

/* An L2 entry as the table has it, in host byte order. */
typedef struct Qcow2RawEntry {
    uint64_t entry;
    uint64_t bitmap; /* of subclusters: low half allocated, high half zero; 0 without extended L2 entries */
} Qcow2RawEntry;

typedef enum Qcow2ClusterKind {
    QCOW2_CLUSTER_UNALLOCATED, /* the backing file shows; with subclusters there may be a host cluster all the same */
    QCOW2_CLUSTER_ZERO,        /* reads as zeroes; host_offset is 0 or a preallocated cluster */
    QCOW2_CLUSTER_NORMAL,
    QCOW2_CLUSTER_COMPRESSED,
    QCOW2_CLUSTER_MIXED,   /* its subclusters differ */
    QCOW2_CLUSTER_INVALID, /* breaks the specification in a way that makes it unusable */
} Qcow2ClusterKind;

typedef struct Qcow2L2Entry {
    Qcow2ClusterKind kind;
    bool copied;               /* COPIED flag; always true in a data file, which nobody shares */
    bool reserved;             /* reserved bits are set: tolerated for reading, reported by check */
    bool placed;               /* it has a host cluster, maybe for zeroes only; not of compressed data */
    uint64_t host_offset;      /* 0: none, or the first one of a data file; compressed: of the data, unaligned */
    uint32_t compressed_bytes; /* from host_offset to the end of the last sector */
    uint32_t allocated, zero;  /* a bit for each subcluster; all or none for a cluster that has none */
    const char *problem;       /* INVALID: what is wrong, a constant; else NULL */
} Qcow2L2Entry;

/** qcow2_l2_entry_decode() - judge an entry */
Qcow2L2Entry qcow2_l2_entry_decode(Qcow2RawEntry raw, const Qcow2Geometry *geometry);

/** qcow2_l2_entry_load() / _store() - entry @index of a table as it is in the file */
Qcow2RawEntry qcow2_l2_entry_load(const uint8_t *table, uint32_t index, const Qcow2Geometry *geometry);
void qcow2_l2_entry_store(uint8_t *table, uint32_t index, Qcow2RawEntry raw, const Qcow2Geometry *geometry);

/** qcow2_raw_equal() - whether two entries are the same */
static inline bool qcow2_raw_equal(Qcow2RawEntry a, Qcow2RawEntry b)
{
    return a.entry == b.entry && a.bitmap == b.bitmap;
}

/** qcow2_raw_is_placed() - whether an entry, not of compressed data, has a place on the host, maybe for zeroes only */
bool qcow2_raw_is_placed(Qcow2RawEntry raw, const Qcow2Geometry *geometry);

/** qcow2_raw_data() - an entry for a cluster of data: all subclusters are allocated */
Qcow2RawEntry qcow2_raw_data(uint64_t host_offset, bool copied, const Qcow2Geometry *geometry);

/** qcow2_raw_zero() - an entry for a cluster of zeroes, version 3
 * @host_offset: space kept for it, 0: none */
Qcow2RawEntry qcow2_raw_zero(uint64_t host_offset, bool copied, const Qcow2Geometry *geometry);

/** qcow2_raw_written() - what @old becomes when subclusters have been written at @host_offset
 * @written: bits of them. Whatever else was allocated lies at the same place now. */
Qcow2RawEntry qcow2_raw_written(Qcow2RawEntry old, uint64_t host_offset, uint32_t written,
                                const Qcow2Geometry *geometry);

/** qcow2_subcluster_kind() - of one subcluster; that of the cluster if all are alike. Never MIXED. */
Qcow2ClusterKind qcow2_subcluster_kind(const Qcow2L2Entry *entry, unsigned index);

/** qcow2_bit_run() - how many bits from @index on are alike, up to @end */
unsigned qcow2_bit_run(uint32_t bits, unsigned index, unsigned end);

/** qcow2_subcluster_run() - how many subclusters from @index on are of one kind, up to @end */
unsigned qcow2_subcluster_run(const Qcow2L2Entry *entry, unsigned index, unsigned end);

/** qcow2_subcluster_mask() - bits of the subclusters [first, end) */
static inline uint32_t qcow2_subcluster_mask(unsigned first, unsigned end)
{
    return (uint32_t)((UINT64_C(1) << end) - (UINT64_C(1) << first));
}

/**
 * qcow2_compressed_descriptor() - an L2 entry for @bytes of compressed data at @host_offset
 * Returns: 0 if it cannot be described (offset or length too large for cluster_bits).
 */
uint64_t qcow2_compressed_descriptor(uint64_t host_offset, uint64_t bytes, unsigned cluster_bits);

/** qcow2_l1_entry_problem() - NULL if @entry (host byte order) is usable, else what is wrong, a constant */
const char *qcow2_l1_entry_problem(uint64_t entry, unsigned cluster_bits);

/* ---- snapshot.c ---- */

#define QCOW2_SNAPSHOT_FIXED_BYTES 40u
/* Extra data of the snapshots we make: size of the VM state, disk size, icount */
#define QCOW2_SNAPSHOT_EXTRA_NEW 24u
/* What it must have for the disk size to be recorded */
#define QCOW2_SNAPSHOT_EXTRA_SIZE 16u

/** qcow2_snapshot_entry_bytes() - length of a table entry, padding included, from its fixed part
 * At most QCOW2_SNAPSHOT_FIXED_BYTES + UINT32_MAX + 2 * 65535 + 7. */
uint64_t qcow2_snapshot_entry_bytes(const uint8_t fixed[QCOW2_SNAPSHOT_FIXED_BYTES]);

/**
 * qcow2_snapshot_decode() - parse one whole table entry
 * @size: qcow2_snapshot_entry_bytes() or more
 * @guest_size: for entries that do not record the disk size
 *
 * Fails with EINVAL (truncated, extra data too long or, version 3, too short) or ENOMEM; @snapshot is then
 * untouched.
 */
bool qcow2_snapshot_decode(const uint8_t *buf, size_t size, unsigned version, uint64_t guest_size,
                           Qcow2Snapshot *snapshot, GError **errp);
/** qcow2_snapshot_encoded_bytes() / _encode() - entry with extra data as kept; returns bytes, 0 if @size is
 * too small */
size_t qcow2_snapshot_encoded_bytes(const Qcow2Snapshot *snapshot);
size_t qcow2_snapshot_encode(const Qcow2Snapshot *snapshot, uint8_t *buf, size_t size);
void qcow2_snapshot_clear(Qcow2Snapshot *snapshot);
void qcow2_snapshot_table_clear(Qcow2SnapshotTable *table);

/* ---- bitmap.c: entries of the bitmap directory ---- */

#define QCOW2_BITMAP_FIXED_BYTES 24u
#define QCOW2_BITMAPS_EXTENSION_BYTES 24u
#define QCOW2_MAX_BITMAP_DIRECTORY_BYTES (64u << 20)
#define QCOW2_MAX_BITMAP_NAME 1023u
/* Bits of one bitmap; a disk may be too large for a granularity. */
#define QCOW2_MAX_BITMAP_BYTES (UINT64_C(512) << 20)
/* Granularities of dirty bitmaps that are supported; the field goes to 63 */
#define QCOW2_MIN_GRANULARITY_BITS 9u
#define QCOW2_MAX_GRANULARITY_BITS 31u
#define QCOW2_BITMAP_IN_USE 1u           /* not stored after its last change: the bits mean nothing */
#define QCOW2_BITMAP_AUTO 2u             /* whoever writes to the disk sets bits */
#define QCOW2_BITMAP_EXTRA_COMPATIBLE 4u /* may be used by who does not know the extra data */
#define QCOW2_BITMAP_FLAGS 7u
#define QCOW2_BITMAP_TYPE_DIRTY 1u
#define QCOW2_BITMAP_TABLE_RESERVED UINT64_C(0xff000000000001fe)
/* A table entry without offset: all bits of that cluster are set */
#define QCOW2_BITMAP_ALL_ONES UINT64_C(1)

typedef struct Qcow2Bitmap {
    uint64_t table_offset;
    uint32_t table_size; /* entries */
    uint32_t flags;
    uint8_t type, granularity_bits;
    char *name;
    uint8_t *extra; /* data that we do not know, kept */
    uint32_t extra_bytes;
    BdrvDirtyBits *bits; /* what is set now; NULL: not loaded. Not of the format, but of the open image. */
} Qcow2Bitmap;

typedef struct Qcow2BitmapTable {
    Qcow2Bitmap *bitmaps;
    unsigned count;
} Qcow2BitmapTable;

/**
 * qcow2_bitmap_directory_decode() - parse a whole directory
 * Fails with EINVAL or ENOMEM; @table is then untouched.
 */
bool qcow2_bitmap_directory_decode(const uint8_t *buf, size_t size, unsigned count, Qcow2BitmapTable *table,
                                   GError **errp);
/** qcow2_bitmap_directory_bytes() / _encode() - the whole directory; @buf has that many bytes, all written */
uint64_t qcow2_bitmap_directory_bytes(const Qcow2BitmapTable *table);
void qcow2_bitmap_directory_encode(const Qcow2BitmapTable *table, uint8_t *buf);

/** qcow2_bitmap_decode() - parse a directory entry; *@consumed is its length with padding. @out is the caller's to
 * clear */
bool qcow2_bitmap_decode(const uint8_t *buf, size_t size, Qcow2Bitmap *out, size_t *consumed, GError **errp);

/** qcow2_bitmap_problem() - what the format says against an entry, whatever the file has elsewhere; NULL: nothing
 * @disk_size: that its table must describe. Caller frees. */
char *qcow2_bitmap_problem(const Qcow2Bitmap *bitmap, const Qcow2Geometry *geometry, uint64_t disk_size);

/** qcow2_bitmap_is_usable() - whether its bits are those of a dirty bitmap, and right */
bool qcow2_bitmap_is_usable(const Qcow2Bitmap *bitmap);
/** qcow2_bitmap_is_tracked() - whether writes set its bits: it is enabled, and usable */
bool qcow2_bitmap_is_tracked(const Qcow2Bitmap *bitmap);

/** qcow2_bitmap_table_size() - entries that a bitmap of a disk needs, any granularity of 0 to 63 */
uint64_t qcow2_bitmap_table_size(unsigned granularity_bits, const Qcow2Geometry *geometry, uint64_t disk_size);

/** qcow2_bitmaps_extension_encode() - 24 bytes; caller frees */
uint8_t *qcow2_bitmaps_extension_encode(const Qcow2BitmapsExtension *extension);

#endif
