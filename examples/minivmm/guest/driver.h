/* SPDX-License-Identifier: MIT */
#ifndef GUEST_DRIVER_H
#define GUEST_DRIVER_H

/*
 * A small virtio-blk driver, for the guest and for tests that run it in their own process. What it runs on is a
 * Platform: bare 32-bit hardware (boot.c), or a device model in the same process.
 */

#include "virtio.h"

#include <stdbool.h>

#define DISK_MAX_QUEUES 8
#define DISK_QUEUE_SIZE 16
#define DISK_MAX_SEGMENTS 14 /* of data in a request */
#define SECTOR 512

typedef struct Platform Platform;
uint32_t platform_read(Platform *platform, uint32_t address, unsigned bytes); /* 1, 2 or 4 */
void platform_write(Platform *platform, uint32_t address, uint32_t value);
/* Zeroed memory that the device can reach; there is no free. */
void *platform_alloc(Platform *platform, uint32_t bytes, uint32_t align);
/* What the device calls it. */
uint64_t platform_address(Platform *platform, const void *memory);
/* Wait for an interrupt, which is acknowledged when this returns; one that came after @seen was read counts. */
void platform_wait(Platform *platform, uint32_t device);

/* A request; must live in memory that the device can reach. */
typedef struct DiskRequest {
    /* what the caller sets */
    uint32_t type;
    uint64_t sector;
    void *data;
    uint32_t bytes;
    uint32_t segments; /* into how many descriptors the data is cut; 0 is as 1 */
    bool indirect;
    /* the driver's */
    BlkHeader header;
    uint8_t status;
    bool done;
    uint32_t written; /* what the device said that it wrote */
    uint16_t descs;
    Desc table[DISK_MAX_SEGMENTS + 2] __attribute__((aligned(16)));
} DiskRequest;

typedef struct DiskQueue {
    Desc *desc;
    volatile Avail *avail;
    volatile Used *used;
    uint16_t free, free_count, avail_idx, notified_idx, last_used;
    DiskRequest *requests[DISK_QUEUE_SIZE]; /* by head */
} DiskQueue;

typedef struct Disk {
    Platform *platform;
    uint32_t base; /* address of its registers */
    uint64_t features, capacity;
    uint32_t queue_count;
    bool polling; /* ask for no interrupts */
    DiskQueue queues[DISK_MAX_QUEUES];
} Disk;

/** disk_negotiate() - reset the device and agree on what it offers of @wanted; NULL or what went wrong */
const char *disk_negotiate(Disk *disk, uint64_t wanted);
/** disk_start() - negotiate, set up all queues (at most @max_queues) and go */
const char *disk_start(Disk *disk, uint64_t wanted, uint32_t max_queues);
/** disk_read_capacity() - ask how long the disk is, as after an interrupt for the configuration */
void disk_read_capacity(Disk *disk);
void disk_set_up_queue(Disk *disk, uint32_t index);

/** disk_submit() - hand over a request; false if the ring has no room. disk_notify() tells the device */
bool disk_submit(Disk *disk, uint32_t queue, DiskRequest *request);
void disk_notify(Disk *disk, uint32_t queue);
/** disk_poll() - take a request that is complete, or NULL */
DiskRequest *disk_poll(Disk *disk, uint32_t queue);
/** disk_wait() - wait for a request, or until the device needs a reset (NULL) */
DiskRequest *disk_wait(Disk *disk, uint32_t queue);
/** disk_run() - submit a request and wait for it; its status, BLK_NO_STATUS if the device needs a reset */
uint8_t disk_run(Disk *disk, uint32_t queue, DiskRequest *request);

#endif
