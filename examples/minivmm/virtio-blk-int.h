/* SPDX-License-Identifier: MIT */
#ifndef MINIVMM_VIRTIO_BLK_INT_H
#define MINIVMM_VIRTIO_BLK_INT_H

/* The two halves of the device: virtio-blk.c has threads and queues, virtio-blk-request.c what a request means. */

#include "virtio-blk.h"

#include <linux/virtio_blk.h>

#define BLK_SECTOR_BYTES 512
#define BLK_MAX_REQUEST_BYTES (64u << 20)   /* of data; more is an I/O error */
#define BLK_MAX_RANGES 16                   /* of a discard or write-zeroes */
#define BLK_MAX_RANGE_SECTORS (1u << 22)

typedef struct Queue Queue;

/* Lives in the array of its queue; one for each place in the ring, so that the guest cannot have more in flight. */
typedef struct Request {
    Queue *queue;
    struct Request *next_free;
    VirtqueueChain chain; /* trimmed to the data when the header has been read */
    uint8_t *status;      /* in guest memory, the last byte to be written */
    uint32_t type;
    BdrvIov data;
    unsigned range_count, range;
    struct virtio_blk_discard_write_zeroes ranges[BLK_MAX_RANGES]; /* in the host's byte order, checked */
} Request;

typedef enum QueueState {
    QUEUE_STOPPED,  /* the I/O thread does not look at it */
    QUEUE_RUNNING,
    QUEUE_STOPPING, /* no more requests are taken */
} QueueState;

typedef struct IoThread {
    VirtioBlk *device;
    pthread_t thread;
    bool has_thread;
    AioContext *ctx;
    BlkQueue *requests;
    pthread_mutex_t lock; /* protects what follows, and the state of queues */
    pthread_cond_t changed;
    bool quit, started;
    GError *error; /* why it could not start */
} IoThread;

struct Queue {
    VirtioBlk *device;
    IoThread *io;
    unsigned index;
    int notify_fd;
    QueueState state;

    /* Of the I/O thread, unless stopped. */
    Virtqueue ring;
    uint64_t features;
    bool active;  /* was not stopped when the state was looked at last */
    bool pending; /* the ring may have requests */
    unsigned in_flight;
    Request *requests, *free;
};

struct VirtioBlk {
    VirtioMmio mmio;
    BlockBackend *blk;
    const GuestMemory *memory;
    bool read_only;
    char serial[VIRTIO_BLK_ID_BYTES]; /* not ended if it is full */
    struct virtio_blk_config config;
    unsigned queue_count, thread_count;
    Queue queues[VIRTIO_MMIO_MAX_QUEUES];
    IoThread threads[VIRTIO_MMIO_MAX_QUEUES];
    VirtioBlkStats stats; /* atomic */
};

/** blk_request_start() - do what the chain says
 * Returns: 0 if it is complete or has been submitted; -1 if it is no request at all, with queue->ring.reason */
int blk_request_start(Request *request);
/** blk_request_continue() - the library has done its part with @ret; gives the request back, or goes on with it */
void blk_request_continue(Request *request, int ret);

/** blk_request_release() - give the chain back to the driver; @request is free then */
void blk_request_release(Request *request, uint32_t written);

#endif
