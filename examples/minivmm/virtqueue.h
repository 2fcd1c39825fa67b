/* SPDX-License-Identifier: MIT */
#ifndef MINIVMM_VIRTQUEUE_H
#define MINIVMM_VIRTQUEUE_H

/*
 * A split virtqueue, from the device's side (virtio 1.2, section 2.7).
 *
 * All that is read here was written by the guest, which may change it at any moment: each field is read once,
 * checked, and only the copy is used. A chain costs at most VIRTQUEUE_MAX_SEGMENTS steps, whatever it says. What the
 * specification forbids is an error in words; the device then stops and asks for a reset.
 *
 * One thread at a time uses a Virtqueue.
 */

#include "guest-memory.h"

#include <linux/virtio_ring.h>
#include <sys/uio.h>

#define VIRTQUEUE_MAX_SIZE 128     /* entries; what QueueNumMax says */
#define VIRTQUEUE_MAX_SEGMENTS 128 /* descriptors in a chain: the specification allows the queue size */
#define VIRTQUEUE_REASON_BYTES 120

/* What the driver told of a queue. */
typedef struct VirtqueueSetup {
    uint32_t size;                /* entries */
    uint64_t desc, avail, used;   /* guest addresses */
    bool indirect, event_idx;     /* features that were negotiated */
} VirtqueueSetup;

typedef struct Virtqueue {
    const GuestMemory *memory;
    VirtqueueSetup setup;
    const struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;
    uint16_t last_avail; /* next entry of the available ring to look at */
    uint16_t used_idx;   /* next entry of the used ring to fill */
    uint16_t signalled;  /* used_idx when virtqueue_wants_interrupt() was asked last */
    char reason[VIRTQUEUE_REASON_BYTES]; /* set when a function says that the queue is broken */
} Virtqueue;

/* A request: first what the device reads, then what it writes. */
typedef struct VirtqueueChain {
    uint16_t head; /* descriptor that virtqueue_push() gives back */
    unsigned out_count, in_count;
    size_t out_bytes, in_bytes;
    struct iovec vec[VIRTQUEUE_MAX_SEGMENTS];
} VirtqueueChain;

/** virtqueue_init() - start at the beginning of the rings; false with queue->reason if @setup is not valid */
bool virtqueue_init(Virtqueue *queue, const GuestMemory *memory, const VirtqueueSetup *setup);

/** virtqueue_pop() - take the next request
 * Returns: 1 with *@chain; 0 if there is none, and then the driver notifies of the next one; -1 if the queue is broken,
 * with queue->reason. */
int virtqueue_pop(Virtqueue *queue, VirtqueueChain *chain);

/** virtqueue_push() - give a request back, @written bytes of which the device wrote */
void virtqueue_push(Virtqueue *queue, uint16_t head, uint32_t written);

/** virtqueue_wants_interrupt() - whether the driver wants to be told of what was pushed since the last time */
bool virtqueue_wants_interrupt(Virtqueue *queue);

#endif
