/* SPDX-License-Identifier: MIT */
#ifndef MINIVMM_VIRTIO_MMIO_H
#define MINIVMM_VIRTIO_MMIO_H

/*
 * The registers of a virtio device on MMIO, version 2 (virtio 1.2, section 4.2), for any kind of device.
 *
 * Accesses come from vCPU threads, one at a time (lock). The device works in threads of its own; they call
 * virtio_mmio_interrupt(), virtio_mmio_config_changed() and virtio_mmio_break(), which do not wait for these.
 */

#include "virtqueue.h"

#include <glib.h>
#include <pthread.h>

#define VIRTIO_MMIO_BYTES 0x200u /* registers and configuration space */
#define VIRTIO_MMIO_MAX_QUEUES 8

/* What a kind of device does. Called in the vCPU thread that accesses a register. */
typedef struct VirtioDeviceOps {
    uint32_t device_id;
    /* The driver is ready and so is this queue: take requests. False with @reason if the setup is not valid. */
    bool (*start_queue)(void *opaque, unsigned index, const VirtqueueSetup *setup, uint64_t features,
                        char reason[VIRTQUEUE_REASON_BYTES]);
    /* Take no more requests; returns when none is in flight. Also called for queues that were not started. */
    void (*stop_queue)(void *opaque, unsigned index);
    void (*notify)(void *opaque, unsigned index);
    /* Configuration space as bytes; what lies beyond it reads as 0. */
    const void *(*config)(void *opaque, size_t *bytes);
    /* Make it what it is now: virtio_mmio_config_changed() was called. */
    void (*update_config)(void *opaque);
} VirtioDeviceOps;

typedef struct VirtioQueueRegisters {
    bool ready;
    VirtqueueSetup setup;
} VirtioQueueRegisters;

typedef struct VirtioMmio {
    const VirtioDeviceOps *ops;
    void *opaque;
    uint64_t offered; /* features */
    unsigned queue_count;
    pthread_mutex_t interrupt_lock; /* protects who is told; held meanwhile */
    void (*interrupt_changed)(void *opaque);
    void *interrupt_opaque;
    /* Told why the device needs a reset, the first time, in any thread; NULL: nobody is. */
    void (*on_break)(void *opaque, const char *reason);
    void *break_opaque;

    pthread_mutex_t lock; /* protects what follows, but for atomics */
    uint64_t accepted;
    uint32_t features_sel, driver_features_sel, queue_sel;
    VirtioQueueRegisters queues[VIRTIO_MMIO_MAX_QUEUES];

    uint32_t generation; /* of the configuration */

    bool config_changed;       /* atomic: and nobody has looked since */
    uint32_t status;           /* atomic */
    uint32_t interrupt_status; /* atomic */
    pthread_mutex_t reason_lock;
    char reason[VIRTQUEUE_REASON_BYTES]; /* why the device needs a reset (reason_lock); stays until the next one */
} VirtioMmio;

void virtio_mmio_init(VirtioMmio *mmio, const VirtioDeviceOps *ops, void *opaque, uint64_t features,
                      unsigned queue_count);
void virtio_mmio_clear(VirtioMmio *mmio);
/** virtio_mmio_on_interrupt() - whom to tell, in any thread, that the interrupt line may have changed; NULL: nobody
 * Whoever was told before is not any more when this returns. */
void virtio_mmio_on_interrupt(VirtioMmio *mmio, void (*changed)(void *opaque), void *opaque);

/** virtio_mmio_read() / _write() - an access of @bytes (1, 2, 4, 8) at @offset from the first register */
void virtio_mmio_read(VirtioMmio *mmio, uint64_t offset, void *data, unsigned bytes);
void virtio_mmio_write(VirtioMmio *mmio, uint64_t offset, const void *data, unsigned bytes);

/** virtio_mmio_interrupt() - requests were completed. Any thread. */
void virtio_mmio_interrupt(VirtioMmio *mmio);
/** virtio_mmio_config_changed() - the driver should look at the configuration. Any thread, inside a request as well:
 * an access that waits for requests has the lock meanwhile, which this does without. */
void virtio_mmio_config_changed(VirtioMmio *mmio);
/** virtio_mmio_line() - whether the device wants an interrupt. Any thread. */
bool virtio_mmio_line(VirtioMmio *mmio);

/** virtio_mmio_break() - the driver broke the rules: DEVICE_NEEDS_RESET. The first reason is kept. Any thread. */
void virtio_mmio_break(VirtioMmio *mmio, const char *what, const char *reason);
/** virtio_mmio_is_broken() - whether only a reset helps. Any thread. */
bool virtio_mmio_is_broken(VirtioMmio *mmio);
/** virtio_mmio_reason() - why, or NULL; g_free() it */
char *virtio_mmio_reason(VirtioMmio *mmio);

#endif
