/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_MAP_H
#define BDRV_QCOW2_MAP_H

/* Guest ranges to extents: where bytes are, before anybody moves them. */

#include "drivers/qcow2/qcow2.h"

/* A guest range of one kind, in one run on the host. */
typedef struct Qcow2Extent {
    Qcow2ClusterKind kind; /* never MIXED or INVALID */
    bool copied;           /* of the first cluster; of all with QCOW2_MAP_BY_COPIED */
    uint64_t bytes;        /* from the offset asked */
    bool placed;           /* it has space on the host: NORMAL, and others all the same */
    uint64_t host_offset;  /* of the first byte if placed, else 0 */
    uint64_t l2_entry;     /* COMPRESSED: one cluster */
} Qcow2Extent;

typedef enum Qcow2MapHow {
    QCOW2_MAP_PLAIN,
    QCOW2_MAP_BY_COPIED, /* a change of the COPIED flag ends the extent */
} Qcow2MapHow;

/**
 * qcow2_map() - the extent that starts at @guest_offset
 * @bytes: at most so many, >= 1
 * Inside an epoch: the host clusters stay what they are until it is left.
 * Returns: 0 or -errno (-EIO with the corrupt bit set for an entry that breaks the format).
 */
int coroutine_fn qcow2_map(BlockDriverState *bs, uint64_t guest_offset, uint64_t bytes, Qcow2MapHow how,
                           Qcow2Extent *extent);

/** qcow2_decode_entry() - as qcow2_l2_entry_decode(); -EIO with the corrupt bit set if invalid */
int coroutine_fn qcow2_decode_entry(BlockDriverState *bs, uint64_t guest_offset, Qcow2RawEntry raw,
                                    Qcow2L2Entry *entry);

/** qcow2_backing_bytes() - how many of @bytes at @guest_offset the backing file has */
uint64_t qcow2_backing_bytes(BlockDriverState *bs, uint64_t guest_offset, uint64_t bytes);

#endif
