/* SPDX-License-Identifier: MIT */
#ifndef BDRV_UTIL_DIRTY_BITS_H
#define BDRV_UTIL_DIRTY_BITS_H

/*
 * The bits of a dirty bitmap in memory: one for each granule of a disk. Setting takes no lock and allocates nothing;
 * untouched parts of a large bitmap take no memory. What embedders may do with one is in <bdrv/bitmap.h>.
 */

#include <bdrv/bitmap.h>
#include <stdatomic.h>

struct BdrvDirtyBits {
    unsigned refs; /* changed while nobody else looks */
    unsigned granularity_bits;
    uint64_t length;      /* bytes of the disk */
    uint64_t count;       /* granules */
    _Atomic bool changed; /* what they were loaded from does not have these bits */
    uint64_t *words;      /* accessed atomically; bits past @count are 0 */
};

/** bdrv_dirty_bits_new() - none set; NULL without memory */
BdrvDirtyBits *bdrv_dirty_bits_new(unsigned granularity_bits, uint64_t length);
/** bdrv_dirty_bits_copy() - the same for a disk of perhaps another length; what is new is not set. NULL without memory */
BdrvDirtyBits *bdrv_dirty_bits_copy(const BdrvDirtyBits *bits, uint64_t length);
/** bdrv_dirty_bits_ref() - one bdrv_dirty_bits_free() more is due; NULL is allowed */
BdrvDirtyBits *bdrv_dirty_bits_ref(BdrvDirtyBits *bits);

/** bdrv_dirty_bits_bytes() - what they take at most */
uint64_t bdrv_dirty_bits_bytes(unsigned granularity_bits, uint64_t length);

/** bdrv_dirty_bits_set() - those of every granule that [offset, +bytes) touches, beside anybody */
void bdrv_dirty_bits_set(BdrvDirtyBits *bits, uint64_t offset, uint64_t bytes);

/* What a piece of a bitmap is. */
typedef enum BdrvBitsKind {
    BDRV_BITS_ZEROES,
    BDRV_BITS_ONES,
    BDRV_BITS_MIXED,
} BdrvBitsKind;

/**
 * bdrv_dirty_bits_export() - @bytes from byte @first on, both multiples of 8, as images have them
 * Bit n of the bitmap is bit n % 8 of byte n / 8. What lies past the end is 0, and so not BDRV_BITS_ONES.
 */
BdrvBitsKind bdrv_dirty_bits_export(const BdrvDirtyBits *bits, uint64_t first, uint64_t bytes, uint8_t *buf);
/** bdrv_dirty_bits_import() - the way back, while nobody else looks; @buf NULL: all are set */
void bdrv_dirty_bits_import(BdrvDirtyBits *bits, uint64_t first, uint64_t bytes, const uint8_t *buf);

#endif
