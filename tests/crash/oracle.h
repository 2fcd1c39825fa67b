/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_ORACLE_H
#define TEST_CRASH_ORACLE_H

/*
 * What a qcow2 image must be at every moment, judged from its bytes alone: a walker of its own, written from
 * the specification and sharing no code with drivers/qcow2, so that a mistake of the driver's check is not
 * made twice. Also tells where each guest sector is.
 */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/crash/keys.h"

typedef struct OracleCluster {
    uint32_t references; /* from what the header leads to */
    uint8_t role;
    int64_t place; /* of a data cluster or L2 table: index in the guest */
    int tree;      /* the table tree that referred to it last */
} OracleCluster;

/* Of a VDI image, from its header. See vdi.h. */
typedef struct VdiPlaces {
    uint32_t map, data, block_size; /* bytes */
    uint32_t blocks, counted;       /* entries of the map; places that the header says are taken */
    bool fixed;
} VdiPlaces;

typedef struct Oracle {
    const uint8_t *bytes; /* of the image; the caller's */
    int64_t length;
    const uint8_t *data; /* of the data file, set by the caller, zeroes to the end of its last sector; NULL: none */
    int64_t data_length;
    OracleCluster *clusters;
    int64_t cluster_capacity;

    /* from the header */
    unsigned version, cluster_bits, refcount_order;
    uint64_t size, l1_offset, refcount_table_offset, snapshots_offset;
    uint32_t l1_size, refcount_table_clusters, snapshot_count;
    uint64_t incompatible;

    VdiPlaces vdi;

    /* of the bitmap named "b" */
    bool has_bitmap, bitmap_in_use;
    uint64_t bitmap_table;
    unsigned bitmap_granularity_bits;

    /* results */
    bool is_image;    /* the magic is there */
    char fault[200];  /* unsafe, "": none */
    char untidy[200]; /* safe, but not as a closed image should be: "": none */
    int64_t leaks;    /* clusters counted more often than referred to */
    bool dirty;       /* the dirty bit is set: counts, and so COPIED flags held against them, may be behind */
    int64_t behind;   /* clusters counted less often than referred to; only with @dirty */

    int64_t inflated; /* guest cluster in @plain, -1: none */
    uint8_t *plain;

    GHashTable *known_keys; /* see keys.h; NULL: none was seen */
    Keys *keys;             /* of LUKS; NULL: none */
    void *aes; /* EVP_CIPHER_CTX of encrypted images, NULL: none was seen */
    uint8_t decrypted[512];
} Oracle;

void oracle_clear(Oracle *oracle);

/** fault() - for walkers: note what is unsafe; the first counts */
void fault(Oracle *o, const char *format, ...) G_GNUC_PRINTF(2, 3);

/** oracle_prepare() - forget what was found out, these bytes are judged now */
void oracle_prepare(Oracle *oracle, const uint8_t *bytes, int64_t length);

/**
 * oracle_judge() - walk everything
 * @bytes: stay the caller's, also for the calls below; zeroes from @length to the end of its sector
 *
 * Faults: a structure or cluster outside of the file or not aligned; fewer counted than real references; two
 * owners of one cluster; COPIED set with more than one reference. Untidy: COPIED clear, or set with a count
 * that is too high, where the check of a closed image would complain. While the dirty bit is set, and only
 * then, clusters may be counted too low, and COPIED is held against the references alone. A data file holds each
 * cluster, which is always COPIED and never counted, at its place in the guest, and is no shorter than the disk.
 * Bitmaps that are not in use have tables of the size that goes with the disk.
 */
void oracle_judge(Oracle *oracle, const uint8_t *bytes, int64_t length);

/** oracle_bit() - whether the bitmap "b" says that guest sector @n was written */
bool oracle_bit(const Oracle *oracle, int64_t n);

typedef enum OracleKind {
    ORACLE_ZERO,
    ORACLE_BACKING, /* what the backing file has there, zeroes past its end */
    ORACLE_DATA,
    ORACLE_BROKEN, /* compressed data that cannot be decoded */
} OracleKind;

/** oracle_sector() - guest sector @n of an image without fault; @data: the 512 bytes of DATA, valid until the
 * next call */
OracleKind oracle_sector(Oracle *oracle, int64_t n, const uint8_t **data);

#endif
