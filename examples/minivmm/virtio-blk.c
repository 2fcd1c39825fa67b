/* SPDX-License-Identifier: MIT */
#include "virtio-blk-int.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BATCH 64 /* requests that are taken from one ring before the others get a turn */

/* ---- one I/O thread ---- */

static void on_notify(void *opaque)
{
    Queue *queue = opaque;
    eventfd_t value;

    eventfd_read(queue->notify_fd, &value);
    queue->pending = true;
}

static void wake(Queue *queue)
{
    eventfd_write(queue->notify_fd, 1);
}

void blk_request_release(Request *request, uint32_t written)
{
    Queue *queue = request->queue;

    virtqueue_push(&queue->ring, request->chain.head, written);
    request->next_free = queue->free;
    queue->free = request;
    queue->in_flight--;
}

static void queue_broken(Queue *queue)
{
    char what[32];

    g_snprintf(what, sizeof(what), "queue %u", queue->index);
    virtio_mmio_break(&queue->device->mmio, what, queue->ring.reason);
}

/* Take what the driver has made available. Returns how many requests that was. */
static unsigned take_requests(Queue *queue)
{
    unsigned taken = 0;

    while (queue->pending && queue->free && taken < BATCH && !virtio_mmio_is_broken(&queue->device->mmio)) {
        Request *request = queue->free;
        int ret = virtqueue_pop(&queue->ring, &request->chain);

        if (ret == 0) {
            queue->pending = false;
            break;
        }
        if (ret > 0) {
            queue->free = request->next_free;
            queue->in_flight++;
            ret = blk_request_start(request);
            if (ret < 0) {
                request->next_free = queue->free;
                queue->free = request;
                queue->in_flight--;
            }
        }
        if (ret < 0) {
            queue_broken(queue);
            break;
        }
        taken++;
    }
    return taken;
}

/* Whether requests may be taken; tells who waits for the queue when it has stopped. */
static bool queue_runs(Queue *queue)
{
    IoThread *io = queue->io;
    bool runs;

    pthread_mutex_lock(&io->lock);
    if (queue->state == QUEUE_STOPPING && queue->in_flight == 0) {
        queue->state = QUEUE_STOPPED;
        pthread_cond_broadcast(&io->changed);
    }
    runs = queue->state == QUEUE_RUNNING;
    queue->active = queue->state != QUEUE_STOPPED;
    pthread_mutex_unlock(&io->lock);
    return runs;
}

/* One round over the queues of a thread. Returns whether anything was done. */
static bool serve(IoThread *io)
{
    VirtioBlk *device = io->device;
    BlkQueueCompletion completions[BATCH];
    unsigned done = 0, completed;

    for (unsigned i = io - device->threads; i < device->queue_count; i += device->thread_count) {
        if (queue_runs(&device->queues[i])) {
            done += take_requests(&device->queues[i]);
        }
    }
    blk_queue_ring(io->requests);
    completed = blk_queue_reap(io->requests, completions, BATCH);
    for (unsigned i = 0; i < completed; i++) {
        blk_request_continue((Request *)(uintptr_t)completions[i].user_data, completions[i].result);
    }
    done += completed + blk_queue_ring(io->requests);
    for (unsigned i = io - device->threads; done && i < device->queue_count; i += device->thread_count) {
        Queue *queue = &device->queues[i];

        if (queue->active && virtqueue_wants_interrupt(&queue->ring)) {
            virtio_mmio_interrupt(&device->mmio);
        }
    }
    return done > 0;
}

/* A notification may have come while requests were looked at. */
static bool may_sleep(IoThread *io)
{
    VirtioBlk *device = io->device;

    for (unsigned i = io - device->threads; i < device->queue_count; i += device->thread_count) {
        Queue *queue = &device->queues[i];

        if (queue_runs(queue) && queue->pending && queue->free && !virtio_mmio_is_broken(&device->mmio)) {
            return false;
        }
    }
    return true;
}

static bool must_quit(IoThread *io)
{
    bool quit;

    pthread_mutex_lock(&io->lock);
    quit = io->quit;
    pthread_mutex_unlock(&io->lock);
    return quit;
}

static bool set_up(IoThread *io, GError **errp)
{
    VirtioBlk *device = io->device;

    io->requests = blk_queue_new(device->blk, VIRTQUEUE_MAX_SIZE * device->queue_count, errp);
    if (!io->requests) {
        return false;
    }
    for (unsigned i = io - device->threads; i < device->queue_count; i += device->thread_count) {
        Queue *queue = &device->queues[i];
        int ret = aio_set_fd_handler(io->ctx, queue->notify_fd, on_notify, NULL, queue);

        if (ret < 0) {
            g_set_error(errp, BDRV_ERROR, -ret, "an I/O thread cannot watch queue %u: %s", i, g_strerror(-ret));
            return false;
        }
    }
    /* All buffers of direct requests are there; where that is of no help they go as well. */
    aio_context_add_memory(io->ctx, device->memory->host, device->memory->bytes);
    return true;
}

static void tear_down(IoThread *io)
{
    VirtioBlk *device = io->device;

    for (unsigned i = io - device->threads; i < device->queue_count; i += device->thread_count) {
        aio_set_fd_handler(io->ctx, device->queues[i].notify_fd, NULL, NULL, NULL);
    }
    blk_queue_free(io->requests);
    aio_context_remove_memory(io->ctx, device->memory->host);
}

static void *io_thread(void *opaque)
{
    IoThread *io = opaque;
    GError *error = NULL;
    bool ready;

    aio_context_enter(io->ctx);
    ready = set_up(io, &error);
    pthread_mutex_lock(&io->lock);
    io->started = true;
    io->error = error;
    pthread_cond_broadcast(&io->changed);
    pthread_mutex_unlock(&io->lock);
    while (ready && !must_quit(io)) {
        if (!serve(io) && may_sleep(io)) {
            aio_context_run(io->ctx, true);
        }
    }
    tear_down(io);
    aio_context_leave(io->ctx);
    return NULL;
}

static bool start_thread(VirtioBlk *device, IoThread *io, GError **errp)
{
    int ret;

    io->device = device;
    pthread_mutex_init(&io->lock, NULL);
    pthread_cond_init(&io->changed, NULL);
    io->ctx = aio_context_new(errp);
    if (!io->ctx) {
        return false;
    }
    ret = pthread_create(&io->thread, NULL, io_thread, io);
    if (ret) {
        g_set_error(errp, BDRV_ERROR, ret, "no I/O thread can be started: %s", g_strerror(ret));
        return false;
    }
    io->has_thread = true;
    pthread_mutex_lock(&io->lock);
    while (!io->started) {
        pthread_cond_wait(&io->changed, &io->lock);
    }
    pthread_mutex_unlock(&io->lock);
    if (io->error) {
        g_propagate_error(errp, g_steal_pointer(&io->error));
        return false;
    }
    return true;
}

static void end_thread(VirtioBlk *device, IoThread *io)
{
    if (!io->device) {
        return;
    }
    if (io->has_thread) {
        pthread_mutex_lock(&io->lock);
        io->quit = true;
        pthread_mutex_unlock(&io->lock);
        wake(&device->queues[io - device->threads]);
        pthread_join(io->thread, NULL);
    }
    g_clear_pointer(&io->ctx, aio_context_unref);
    pthread_mutex_destroy(&io->lock);
    pthread_cond_destroy(&io->changed);
}

/* ---- what the transport asks for, in a vCPU thread ---- */

static bool start_queue(void *opaque, unsigned index, const VirtqueueSetup *setup, uint64_t features,
                        char reason[VIRTQUEUE_REASON_BYTES])
{
    VirtioBlk *device = opaque;
    Queue *queue = &device->queues[index];
    Virtqueue ring;

    if (!virtqueue_init(&ring, device->memory, setup)) {
        memcpy(reason, ring.reason, VIRTQUEUE_REASON_BYTES);
        return false;
    }
    pthread_mutex_lock(&queue->io->lock);
    queue->ring = ring;
    queue->features = features;
    queue->free = NULL;
    for (unsigned i = 0; i < setup->size; i++) {
        queue->requests[i].queue = queue;
        queue->requests[i].next_free = queue->free;
        queue->free = &queue->requests[i];
    }
    queue->state = QUEUE_RUNNING;
    pthread_mutex_unlock(&queue->io->lock);
    wake(queue); /* there may be requests already */
    return true;
}

static void stop_queue(void *opaque, unsigned index)
{
    VirtioBlk *device = opaque;
    Queue *queue = &device->queues[index];

    pthread_mutex_lock(&queue->io->lock);
    if (queue->state == QUEUE_RUNNING) {
        queue->state = QUEUE_STOPPING;
        wake(queue);
    }
    while (queue->state != QUEUE_STOPPED) {
        pthread_cond_wait(&queue->io->changed, &queue->io->lock);
    }
    pthread_mutex_unlock(&queue->io->lock);
}

static void notify(void *opaque, unsigned index)
{
    VirtioBlk *device = opaque;

    wake(&device->queues[index]);
}

static const void *get_config(void *opaque, size_t *bytes)
{
    VirtioBlk *device = opaque;

    *bytes = sizeof(device->config);
    return &device->config;
}

static void set_capacity(void *opaque)
{
    VirtioBlk *device = opaque;

    device->config.capacity = GUINT64_TO_LE(blk_length(device->blk) / BLK_SECTOR_BYTES);
}

static const VirtioDeviceOps virtio_blk_ops = {
    .device_id = VIRTIO_ID_BLOCK,
    .start_queue = start_queue,
    .stop_queue = stop_queue,
    .notify = notify,
    .config = get_config,
    .update_config = set_capacity,
};

/* In the thread that resizes, with requests held up: an access of the guest may be waiting for them. */
static void on_resize(void *opaque, int64_t length)
{
    VirtioBlk *device = opaque;

    virtio_mmio_config_changed(&device->mmio);
}

/* ---- making one ---- */

/* A maximum of the disk's in sectors, and of ours: the library splits what is larger, but the guest need not ask. */
static uint32_t max_sectors(int64_t max_bytes)
{
    return max_bytes ? CLAMP(max_bytes / BLK_SECTOR_BYTES, 1, BLK_MAX_RANGE_SECTORS) : BLK_MAX_RANGE_SECTORS;
}

/* Sizes that the driver should keep to, in sectors. */
static void fill_config(VirtioBlk *device)
{
    BdrvInfo info = { 0 };
    BdrvLimits limits = { .request_alignment = 1 };
    uint32_t align, granularity;

    blk_get_info(device->blk, &info);
    blk_get_limits(device->blk, &limits);
    align = limits.request_alignment;
    granularity = MAX(MAX(align, BLK_SECTOR_BYTES), info.cluster_size) / BLK_SECTOR_BYTES;
    device->config = (struct virtio_blk_config){
        .seg_max = GUINT32_TO_LE(VIRTQUEUE_MAX_SEGMENTS - 2),
        .blk_size = GUINT32_TO_LE(BLK_SECTOR_BYTES),
        .physical_block_exp = align > BLK_SECTOR_BYTES ? __builtin_ctz(align / BLK_SECTOR_BYTES) : 0,
        .min_io_size = GUINT16_TO_LE(1),
        .opt_io_size = GUINT32_TO_LE(granularity),
        .num_queues = GUINT16_TO_LE(device->queue_count),
        .max_discard_sectors = GUINT32_TO_LE(max_sectors(limits.max_pdiscard)),
        .max_discard_seg = GUINT32_TO_LE(BLK_MAX_RANGES),
        .discard_sector_alignment =
            GUINT32_TO_LE(MAX(MAX(limits.pdiscard_alignment, align), BLK_SECTOR_BYTES) / BLK_SECTOR_BYTES),
        .max_write_zeroes_sectors = GUINT32_TO_LE(max_sectors(limits.max_pwrite_zeroes)),
        .max_write_zeroes_seg = GUINT32_TO_LE(BLK_MAX_RANGES),
        .write_zeroes_may_unmap = 1,
    };
    set_capacity(device);
}

static uint64_t offered_features(const VirtioBlk *device)
{
    uint64_t features = 1u << VIRTIO_BLK_F_SEG_MAX | 1u << VIRTIO_BLK_F_BLK_SIZE | 1u << VIRTIO_BLK_F_TOPOLOGY |
                        1u << VIRTIO_BLK_F_FLUSH | 1u << VIRTIO_BLK_F_MQ;

    return features | (device->read_only ? 1u << VIRTIO_BLK_F_RO
                                         : 1u << VIRTIO_BLK_F_DISCARD | 1u << VIRTIO_BLK_F_WRITE_ZEROES);
}

static bool make_queues(VirtioBlk *device, GError **errp)
{
    for (unsigned i = 0; i < device->queue_count; i++) {
        Queue *queue = &device->queues[i];

        queue->device = device;
        queue->index = i;
        queue->io = &device->threads[i % device->thread_count];
        queue->requests = g_new0(Request, VIRTQUEUE_MAX_SIZE);
        queue->notify_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (queue->notify_fd < 0) {
            g_set_error(errp, BDRV_ERROR, errno, "eventfd: %s", g_strerror(errno));
            return false;
        }
    }
    return true;
}

VirtioBlk *virtio_blk_new(BlockBackend *blk, const GuestMemory *memory, const VirtioBlkConfig *config, GError **errp)
{
    VirtioBlk *device;
    bool ok;

    if (config->queues < 1 || config->queues > VIRTIO_MMIO_MAX_QUEUES || config->io_threads < 1 ||
        config->io_threads > config->queues) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "%u queues and %u I/O threads: there can be 1 to %d queues, and no more threads than queues",
                    config->queues, config->io_threads, VIRTIO_MMIO_MAX_QUEUES);
        return NULL;
    }
    device = g_new0(VirtioBlk, 1);
    device->blk = blk;
    device->memory = memory;
    device->read_only = blk_is_read_only(blk);
    device->queue_count = config->queues;
    device->thread_count = config->io_threads;
    memcpy(device->serial, config->serial, MIN(strlen(config->serial), sizeof(device->serial)));
    virtio_mmio_init(&device->mmio, &virtio_blk_ops, device, offered_features(device), device->queue_count);
    blk_set_resize_notice(blk, on_resize, device); /* before the length is asked: no change is missed */
    fill_config(device);
    ok = make_queues(device, errp);
    for (unsigned i = 0; ok && i < device->thread_count; i++) {
        ok = start_thread(device, &device->threads[i], errp);
    }
    if (!ok) {
        virtio_blk_free(device);
        return NULL;
    }
    return device;
}

void virtio_blk_free(VirtioBlk *device)
{
    if (!device) {
        return;
    }
    blk_set_resize_notice(device->blk, NULL, NULL);
    for (unsigned i = 0; i < device->queue_count; i++) {
        if (device->queues[i].state != QUEUE_STOPPED) { /* then its thread runs */
            stop_queue(device, i);
        }
    }
    for (unsigned i = 0; i < device->thread_count; i++) {
        end_thread(device, &device->threads[i]);
    }
    for (unsigned i = 0; i < device->queue_count; i++) {
        if (device->queues[i].requests && device->queues[i].notify_fd >= 0) {
            close(device->queues[i].notify_fd);
        }
        g_free(device->queues[i].requests);
    }
    virtio_mmio_clear(&device->mmio);
    g_free(device);
}

VirtioMmio *virtio_blk_mmio(VirtioBlk *device)
{
    return &device->mmio;
}

int virtio_blk_notify_fd(VirtioBlk *device, unsigned index)
{
    return device->queues[index].notify_fd;
}

VirtioBlkStats virtio_blk_stats(VirtioBlk *device)
{
    VirtioBlkStats now;

    __atomic_load(&device->stats.reads, &now.reads, __ATOMIC_RELAXED);
    __atomic_load(&device->stats.writes, &now.writes, __ATOMIC_RELAXED);
    __atomic_load(&device->stats.flushes, &now.flushes, __ATOMIC_RELAXED);
    __atomic_load(&device->stats.discards, &now.discards, __ATOMIC_RELAXED);
    __atomic_load(&device->stats.write_zeroes, &now.write_zeroes, __ATOMIC_RELAXED);
    __atomic_load(&device->stats.others, &now.others, __ATOMIC_RELAXED);
    __atomic_load(&device->stats.errors, &now.errors, __ATOMIC_RELAXED);
    return now;
}
