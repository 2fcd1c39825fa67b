/* SPDX-License-Identifier: MIT */
#ifndef TEST_QCOW2_SURGERY_H
#define TEST_QCOW2_SURGERY_H

/*
 * Gives an image on a simdisk, which nobody has open, what the library does not make itself. The image is one of
 * its own: consistent, active L1 table of at most a cluster. All refcount widths.
 */

#include <bdrv/simdisk.h>

/** surgery_peek() / _poke() - a big-endian number of @width bytes */
uint64_t surgery_peek(BdrvSimDisk *disk, uint64_t offset, unsigned width);
void surgery_poke(BdrvSimDisk *disk, uint64_t offset, unsigned width, uint64_t value);

uint64_t surgery_refcount(BdrvSimDisk *disk, uint64_t host_offset);
/** surgery_set_refcount() - makes the refcount block, in its own range, if there is none */
void surgery_set_refcount(BdrvSimDisk *disk, uint64_t host_offset, uint64_t value);

/** surgery_share() - as after a snapshot: L2 tables and data have a second reference and no COPIED flag */
void surgery_share(BdrvSimDisk *disk);
/** surgery_add_snapshot() - and the snapshot that holds it; refcounts of 2 bits or more */
void surgery_add_snapshot(BdrvSimDisk *disk);
typedef struct SurgeryCompress {
    uint64_t first; /* guest cluster */
    unsigned count;
    uint64_t step;          /* bytes from where one begins to the next, of which they share host clusters; 0: 700 */
    const uint8_t *content; /* what the guest reads there; NULL: what the data clusters hold */
} SurgeryCompress;

/** surgery_compress() - some clusters that have data become compressed ones behind the end of the file
 * With 700 bytes to each, some reach into a second host cluster. */
void surgery_compress(BdrvSimDisk *disk, const SurgeryCompress *how);
/** surgery_use_up() - every host cluster before @host_end is counted: leaks, and tables that must grow */
void surgery_use_up(BdrvSimDisk *disk, uint64_t host_end);

#endif
