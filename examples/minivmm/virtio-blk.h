/* SPDX-License-Identifier: MIT */
#ifndef MINIVMM_VIRTIO_BLK_H
#define MINIVMM_VIRTIO_BLK_H

/*
 * A virtio block device over a BlockBackend.
 *
 * The device has one or more I/O threads. A thread has one AioContext, one BlkQueue and every n-th virtqueue. The
 * driver's notification is an eventfd in that context, which KVM writes by itself where ioeventfd works. A request goes
 * from the ring to the library and back without a copy and without changing threads: the library reads and writes the
 * memory of the guest.
 */

#include "virtio-mmio.h"

#include <bdrv/bdrv.h>

typedef struct VirtioBlk VirtioBlk;

typedef struct VirtioBlkConfig {
    const char *serial;           /* for get-id, at most 20 bytes are shown */
    unsigned queues, io_threads;  /* 1 .. VIRTIO_MMIO_MAX_QUEUES; no more threads than queues */
} VirtioBlkConfig;

/* How many requests of a kind came; for a VMM's statistics. */
typedef struct VirtioBlkStats {
    uint64_t reads, writes, flushes, discards, write_zeroes, others, errors;
} VirtioBlkStats;

/** virtio_blk_new() - a device for @blk, which stays the caller's and must be closed after virtio_blk_free()
 * It shows what length the disk has, also after a resize; the notice of that is the device's. */
VirtioBlk *virtio_blk_new(BlockBackend *blk, const GuestMemory *memory, const VirtioBlkConfig *config,
                          GError **errp);
/** virtio_blk_free() - wait for the requests in flight and end the threads; NULL is allowed */
void virtio_blk_free(VirtioBlk *device);

VirtioMmio *virtio_blk_mmio(VirtioBlk *device);
/** virtio_blk_notify_fd() - eventfd to write when the driver notifies queue @index */
int virtio_blk_notify_fd(VirtioBlk *device, unsigned index);
VirtioBlkStats virtio_blk_stats(VirtioBlk *device);

#endif
