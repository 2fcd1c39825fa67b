/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_CREATE_H
#define BDRV_QCOW2_CREATE_H

/* Parts of creating an image that have files of their own. */

#include "drivers/qcow2/crypto.h"

/* What the user asked for, checked. Strings belong to the options. */
typedef struct Qcow2CreateParams {
    uint64_t size; /* bytes, a multiple of 512 */
    unsigned version, cluster_bits, refcount_order;
    BdrvPrealloc prealloc;
    bool lazy_refcounts;
    uint8_t compression_type;
    bool extended_l2;
    const char *backing_file, *backing_format;
    const char *data_file; /* NULL: the data is in the image file */
    bool data_file_raw;
    uint32_t crypt_method;  /* QCOW2_CRYPT_…; what follows is for those but none */
    const char *key_secret;
    BdrvLuksCreate luks;    /* of LUKS */
} Qcow2CreateParams;

/*
 * Where everything goes in a new image, in this order. Preallocated images have all L2 tables and data
 * clusters; others have none. Those of a data file are there, from its start.
 */
typedef struct Qcow2Layout {
    uint32_t cluster_size;
    uint64_t refcount_table_offset, refcount_table_clusters;
    uint64_t refblocks_offset, refblocks; /* clusters */
    uint64_t crypto_offset, crypto_bytes; /* the encryption header */
    uint64_t l1_offset, l1_entries;
    uint64_t l2_offset, l2_tables; /* clusters */
    uint64_t data_offset, data_clusters;
    uint64_t end;          /* first byte after the last cluster */
    uint64_t metadata_end; /* first byte that needs no writing */
} Qcow2Layout;

extern const BdrvOptionSpec qcow2_create_options[];

/** qcow2_parse_compat() - the version that "0.10", "v2", "1.1" or "v3" is; EINVAL */
bool qcow2_parse_compat(const char *compat, unsigned *version, GError **errp);
/** qcow2_parse_refcount_bits() - the refcount_order of a width; EINVAL unless it is 1, 2, 4 ... 64 */
bool qcow2_parse_refcount_bits(int64_t bits, unsigned *order, GError **errp);

/** qcow2_create_params() - judge create options; @params is set on success. EINVAL, EFBIG, or ENOTSUP for
 * what is not built */
bool qcow2_create_params(const BdrvOptions *options, Qcow2CreateParams *params, GError **errp);

/** qcow2_layout() - place the structures; EFBIG if a table would pass its bound */
bool qcow2_layout(const Qcow2CreateParams *params, Qcow2Layout *layout, GError **errp);

#endif
