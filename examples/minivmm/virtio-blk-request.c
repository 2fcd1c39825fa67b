/* SPDX-License-Identifier: MIT */
/*
 * One request (virtio 1.2, section 5.2.6): a header of 16 bytes, data, and a status byte, cut into descriptors as the
 * driver likes. All checks come before the first byte is moved.
 */
#include "virtio-blk-int.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <string.h>

static void count(uint64_t *counter)
{
    __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

/* @written: bytes of data that went into guest memory */
static void complete(Request *request, uint8_t status, size_t written)
{
    if (status != VIRTIO_BLK_S_OK) {
        count(&request->queue->device->stats.errors);
        written = 0;
    }
    *request->status = status;
    /* The length counts from the first byte: where there is less data than room, the status byte is beyond it. */
    blk_request_release(request, written == request->chain.in_bytes ? written + 1 : written);
}

static void submit(Request *request, BlkOp op, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    BlkSubmission submission = {
        .op = op,
        .flags = flags,
        .offset = offset,
        .bytes = bytes,
        .iov = &request->data,
        .user_data = (uintptr_t)request,
    };

    if (!blk_queue_submit(request->queue->io->requests, &submission)) {
        g_error("the queue is as deep as all rings together"); /* our own mistake, nothing a guest can do */
    }
}

/* ---- the parts of a chain ---- */

/* Take @bytes, which are there, from the front of what the device reads. */
static void trim_front(VirtqueueChain *chain, size_t bytes)
{
    unsigned dropped = 0;

    chain->out_bytes -= bytes;
    while (bytes > 0 && bytes >= chain->vec[dropped].iov_len) {
        bytes -= chain->vec[dropped++].iov_len;
    }
    chain->out_count -= dropped;
    memmove(chain->vec, chain->vec + dropped, (chain->out_count + chain->in_count) * sizeof(chain->vec[0]));
    if (bytes > 0) {
        chain->vec[0].iov_base = (uint8_t *)chain->vec[0].iov_base + bytes;
        chain->vec[0].iov_len -= bytes;
    }
}

/* Take the last byte of what the device writes. */
static uint8_t *take_status(VirtqueueChain *chain)
{
    struct iovec *last = &chain->vec[chain->out_count + chain->in_count - 1];

    chain->in_bytes--;
    if (--last->iov_len == 0) {
        chain->in_count--;
    }
    return (uint8_t *)last->iov_base + last->iov_len;
}

static BdrvIov out_data(const VirtqueueChain *chain)
{
    return (BdrvIov){ .vec = chain->vec, .count = chain->out_count, .bytes = chain->out_bytes };
}

static BdrvIov in_data(const VirtqueueChain *chain)
{
    return (BdrvIov){ .vec = chain->vec + chain->out_count, .count = chain->in_count, .bytes = chain->in_bytes };
}

/* ---- the kinds of requests ---- */

static bool range_is_on_disk(const VirtioBlk *device, uint64_t sector, uint64_t sectors)
{
    uint64_t there = blk_length(device->blk) / BLK_SECTOR_BYTES;

    return sector <= there && sectors <= there - sector;
}

/* Without VIRTIO_BLK_F_FLUSH the driver takes every write to be durable when it completes. */
static BdrvRequestFlags durability(const Request *request)
{
    return request->queue->features >> VIRTIO_BLK_F_FLUSH & 1 ? 0 : BDRV_REQ_FUA;
}

static void start_transfer(Request *request, uint64_t sector, bool write)
{
    VirtioBlk *device = request->queue->device;
    size_t bytes;

    count(write ? &device->stats.writes : &device->stats.reads);
    request->data = write ? out_data(&request->chain) : in_data(&request->chain);
    bytes = request->data.bytes;
    if (bytes % BLK_SECTOR_BYTES || bytes > BLK_MAX_REQUEST_BYTES || (write && device->read_only) ||
        !range_is_on_disk(device, sector, bytes / BLK_SECTOR_BYTES)) {
        complete(request, VIRTIO_BLK_S_IOERR, 0);
    } else if (bytes == 0) {
        complete(request, VIRTIO_BLK_S_OK, 0);
    } else if (write) {
        submit(request, BLK_OP_WRITE, sector * BLK_SECTOR_BYTES, 0, durability(request));
    } else {
        submit(request, BLK_OP_READ, sector * BLK_SECTOR_BYTES, 0, 0);
    }
}

static void submit_range(Request *request)
{
    const struct virtio_blk_discard_write_zeroes *range = &request->ranges[request->range];
    int64_t offset = (int64_t)range->sector * BLK_SECTOR_BYTES, bytes = (int64_t)range->num_sectors * BLK_SECTOR_BYTES;
    bool unmap = range->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

    if (request->type == VIRTIO_BLK_T_DISCARD) {
        submit(request, BLK_OP_DISCARD, offset, bytes, 0);
    } else {
        submit(request, BLK_OP_WRITE_ZEROES, offset, bytes, durability(request) | (unmap ? BDRV_REQ_MAY_UNMAP : 0));
    }
}

/* VIRTIO_BLK_S_OK if the ranges may be carried out. */
static uint8_t read_ranges(Request *request)
{
    const uint32_t known = request->type == VIRTIO_BLK_T_DISCARD ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    BdrvIov data = out_data(&request->chain);

    if (data.bytes == 0 || data.bytes % sizeof(request->ranges[0]) || data.bytes > sizeof(request->ranges)) {
        return VIRTIO_BLK_S_IOERR;
    }
    request->range_count = data.bytes / sizeof(request->ranges[0]);
    bdrv_iov_to_buf(&data, 0, request->ranges, data.bytes);
    for (unsigned i = 0; i < request->range_count; i++) {
        struct virtio_blk_discard_write_zeroes *range = &request->ranges[i];

        range->sector = GUINT64_FROM_LE(range->sector);
        range->num_sectors = GUINT32_FROM_LE(range->num_sectors);
        range->flags = GUINT32_FROM_LE(range->flags);
        if (range->flags & ~known) {
            return VIRTIO_BLK_S_UNSUPP;
        }
        if (range->num_sectors > BLK_MAX_RANGE_SECTORS ||
            !range_is_on_disk(request->queue->device, range->sector, range->num_sectors)) {
            return VIRTIO_BLK_S_IOERR;
        }
    }
    return VIRTIO_BLK_S_OK;
}

static void start_ranges(Request *request)
{
    VirtioBlk *device = request->queue->device;
    bool discard = request->type == VIRTIO_BLK_T_DISCARD;
    unsigned feature = discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES;
    uint8_t status;

    count(discard ? &device->stats.discards : &device->stats.write_zeroes);
    if (!(request->queue->features >> feature & 1)) {
        status = VIRTIO_BLK_S_UNSUPP;
    } else {
        status = device->read_only ? VIRTIO_BLK_S_IOERR : read_ranges(request);
    }
    if (status != VIRTIO_BLK_S_OK) {
        complete(request, status, 0);
        return;
    }
    request->range = 0;
    submit_range(request);
}

static void get_id(Request *request)
{
    VirtioBlk *device = request->queue->device;
    BdrvIov data = in_data(&request->chain);
    size_t bytes = MIN(data.bytes, sizeof(device->serial));

    count(&device->stats.others);
    bdrv_iov_from_buf(&data, 0, device->serial, bytes);
    complete(request, VIRTIO_BLK_S_OK, bytes);
}

int blk_request_start(Request *request)
{
    VirtqueueChain *chain = &request->chain;
    BdrvIov out = out_data(chain);
    struct virtio_blk_outhdr header;

    if (chain->out_bytes < sizeof(header) || chain->in_bytes < 1) {
        g_snprintf(request->queue->ring.reason, VIRTQUEUE_REASON_BYTES,
                   "request of %zu bytes to read and %zu to write has no room for header and status",
                   chain->out_bytes, chain->in_bytes);
        return -1;
    }
    bdrv_iov_to_buf(&out, 0, &header, sizeof(header));
    trim_front(chain, sizeof(header));
    request->status = take_status(chain);
    request->type = GUINT32_FROM_LE(header.type);
    switch (request->type) {
    case VIRTIO_BLK_T_IN:
    case VIRTIO_BLK_T_OUT:
        start_transfer(request, GUINT64_FROM_LE(header.sector), request->type == VIRTIO_BLK_T_OUT);
        break;
    case VIRTIO_BLK_T_FLUSH:
        count(&request->queue->device->stats.flushes);
        submit(request, BLK_OP_FLUSH, 0, 0, 0);
        break;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        start_ranges(request);
        break;
    case VIRTIO_BLK_T_GET_ID:
        get_id(request);
        break;
    default:
        count(&request->queue->device->stats.others);
        complete(request, VIRTIO_BLK_S_UNSUPP, 0);
        break;
    }
    return 0;
}

void blk_request_continue(Request *request, int ret)
{
    bool ranges = request->type == VIRTIO_BLK_T_DISCARD || request->type == VIRTIO_BLK_T_WRITE_ZEROES;

    if (ret == 0 && ranges && ++request->range < request->range_count) {
        submit_range(request);
    } else if (ret == -ENOTSUP) {
        complete(request, VIRTIO_BLK_S_UNSUPP, 0);
    } else if (ret < 0) {
        complete(request, VIRTIO_BLK_S_IOERR, 0);
    } else {
        complete(request, VIRTIO_BLK_S_OK, request->type == VIRTIO_BLK_T_IN ? request->data.bytes : 0);
    }
}
