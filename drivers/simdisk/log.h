/* SPDX-License-Identifier: MIT */
#ifndef BDRV_SIMDISK_LOG_H
#define BDRV_SIMDISK_LOG_H

/* Log entries, and images made from them. */

#include "drivers/simdisk/disk.h"

/* What happened never changes once the entry is made; the flags do, under the disk's lock. */
struct SimEntry {
    _Atomic unsigned refs;
    BdrvSimRequest request; /* flags: disk's lock */
    uint8_t data[];         /* of a WRITE */
};

SimEntry *sim_entry_new(const BdrvSimRequest *request, const BdrvIov *iov, size_t iov_offset);
SimEntry *sim_entry_ref(SimEntry *entry);
void sim_entry_unref(SimEntry *entry);
/* With the flags as they are; the disk's lock is held. */
SimEntry *sim_entry_copy(const SimEntry *entry);

/* Let the entry, or the part of it that @choice leaves, take effect on an image. */
void sim_entry_apply(const SimEntry *entry, const BdrvSimChoice *choice, SimImage *image, int64_t *length);

/* What a cut is made of; the searcher of tests/crash reads it without making a disk. */
const SimImage *sim_cut_image(const BdrvSimCut *cut);
const SimEntry *sim_cut_entry(const BdrvSimCut *cut, unsigned n);
/* What the choice means for an entry with these flags. */
BdrvSimChoice sim_effective_choice(const BdrvSimRequest *request, BdrvSimChoice choice);

/* A new disk with this durable content (taken). */
BdrvSimDisk *sim_disk_from_image(const char *name, SimImage image, int64_t length);
/* The durable image, with a reference, and the log at this moment. */
void sim_disk_snapshot(BdrvSimDisk *disk, SimImage *image, int64_t *length, GPtrArray *entries,
                       GArray *requests);

static inline uint64_t sim_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u); /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif
