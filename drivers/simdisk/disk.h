/* SPDX-License-Identifier: MIT */
#ifndef BDRV_SIMDISK_DISK_H
#define BDRV_SIMDISK_DISK_H

/* The disk behind the driver: what the callbacks call. One lock a disk; nothing here yields. */

#include <bdrv/simdisk.h>

#include "drivers/simdisk/image.h"

typedef struct SimEntry SimEntry;

const char *sim_disk_name(const BdrvSimDisk *disk);
/* A disk that the table owns, for bdrv_create; an existing one is returned instead. */
BdrvSimDisk *sim_disk_find_or_make(const char *name);

/** sim_disk_admit() - count a call and answer what a rule lets it fail with: 0, or -errno and in *@part how
 * many of its @bytes take effect before */
int sim_disk_admit(BdrvSimDisk *disk, BdrvSimKind kind, int64_t bytes, int64_t *part);
/** sim_disk_find_bad() - of a read: 0, or -errno and in *@part the bytes before the first bad sector */
int sim_disk_find_bad(BdrvSimDisk *disk, int64_t offset, int64_t bytes, int64_t *part);
/** sim_disk_draw_delay() - nanoseconds before and after the effect */
void sim_disk_draw_delay(BdrvSimDisk *disk, int64_t *before_ns, int64_t *after_ns);
/** sim_disk_call_hook() - tell the test what took effect; nothing of the disk's is locked */
void sim_disk_call_hook(BdrvSimDisk *disk, const BdrvSimRequest *request);
uint64_t sim_disk_next_number(BdrvSimDisk *disk);

void sim_disk_read(BdrvSimDisk *disk, int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset);
/*
 * sim_disk_change() - let a write, zero, discard or truncate take effect
 * @iov: of a WRITE; @entry: set to its log entry (a reference) or NULL if nothing is logged
 * @request: described for the hook
 * Returns: 0, -ENOSPC, -EFBIG.
 */
int sim_disk_change(BdrvSimDisk *disk, BdrvSimKind kind, int64_t offset, int64_t bytes, const BdrvIov *iov,
                    size_t iov_offset, SimEntry **entry, BdrvSimRequest *request);
/* The caller is about to be told. Drops the reference; NULL is allowed. */
void sim_disk_complete(BdrvSimDisk *disk, SimEntry *entry, bool durable);

/* A flush makes durable what was complete when it began. */
GPtrArray *sim_disk_flush_begin(BdrvSimDisk *disk);
void sim_disk_flush_end(BdrvSimDisk *disk, GPtrArray *entries, bool ok);

int64_t sim_disk_run(BdrvSimDisk *disk, int64_t offset, int64_t bytes, bool *allocated);
BdrvLimits sim_disk_limits(BdrvSimDisk *disk);
bool sim_disk_fua(BdrvSimDisk *disk);
unsigned sim_disk_unsupported(BdrvSimDisk *disk);

#endif
