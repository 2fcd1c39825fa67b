/* SPDX-License-Identifier: MIT */
#include "driver.h"

#include <stddef.h>

static uint32_t get(Disk *disk, uint32_t reg)
{
    return platform_read(disk->platform, disk->base + reg, 4);
}

static void set(Disk *disk, uint32_t reg, uint32_t value)
{
    platform_write(disk->platform, disk->base + reg, value);
}

static void set_address(Disk *disk, uint32_t reg, const volatile void *memory)
{
    uint64_t address = platform_address(disk->platform, (const void *)memory);

    set(disk, reg, (uint32_t)address);
    set(disk, reg + 4, address >> 32);
}

/* Two reads: of one length if the generation was the same before and after. */
void disk_read_capacity(Disk *disk)
{
    uint32_t generation;

    do {
        generation = get(disk, MMIO_CONFIG_GENERATION);
        disk->capacity = get(disk, MMIO_CONFIG + CONFIG_CAPACITY);
        disk->capacity |= (uint64_t)get(disk, MMIO_CONFIG + CONFIG_CAPACITY + 4) << 32;
    } while (get(disk, MMIO_CONFIG_GENERATION) != generation);
}

const char *disk_negotiate(Disk *disk, uint64_t wanted)
{
    uint64_t offered;

    if (get(disk, MMIO_MAGIC) != 0x74726976 || get(disk, MMIO_VERSION) != 2 || get(disk, MMIO_DEVICE_ID) != 2) {
        return "no virtio block device";
    }
    set(disk, MMIO_STATUS, 0);
    set(disk, MMIO_STATUS, STATUS_ACKNOWLEDGE);
    set(disk, MMIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    set(disk, MMIO_DEVICE_FEATURES_SEL, 0);
    offered = get(disk, MMIO_DEVICE_FEATURES);
    set(disk, MMIO_DEVICE_FEATURES_SEL, 1);
    offered |= (uint64_t)get(disk, MMIO_DEVICE_FEATURES) << 32;
    disk->features = offered & wanted;
    set(disk, MMIO_DRIVER_FEATURES_SEL, 0);
    set(disk, MMIO_DRIVER_FEATURES, (uint32_t)disk->features);
    set(disk, MMIO_DRIVER_FEATURES_SEL, 1);
    set(disk, MMIO_DRIVER_FEATURES, disk->features >> 32);
    set(disk, MMIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    if (!(get(disk, MMIO_STATUS) & STATUS_FEATURES_OK)) {
        return "features refused";
    }
    disk_read_capacity(disk);
    disk->queue_count = 1;
    if (disk->features & FEATURE(BLK_F_MQ)) {
        disk->queue_count = platform_read(disk->platform, disk->base + MMIO_CONFIG + CONFIG_NUM_QUEUES, 2);
    }
    return NULL;
}

void disk_set_up_queue(Disk *disk, uint32_t index)
{
    DiskQueue *queue = &disk->queues[index];

    if (!queue->desc) {
        queue->desc = platform_alloc(disk->platform, sizeof(Desc) * DISK_QUEUE_SIZE, 16);
        queue->avail = platform_alloc(disk->platform, 6 + 2 * DISK_QUEUE_SIZE, 2);
        queue->used = platform_alloc(disk->platform, 6 + 8 * DISK_QUEUE_SIZE, 4);
    }
    queue->avail->flags = disk->polling ? AVAIL_NO_INTERRUPT : 0;
    queue->avail->idx = queue->avail->ring[DISK_QUEUE_SIZE] = queue->used->idx = 0;
    queue->avail_idx = queue->notified_idx = queue->last_used = 0;
    queue->free = 0;
    queue->free_count = DISK_QUEUE_SIZE;
    for (uint16_t i = 0; i < DISK_QUEUE_SIZE; i++) {
        queue->desc[i] = (Desc){ .next = i + 1 };
    }
    set(disk, MMIO_QUEUE_SEL, index);
    set(disk, MMIO_QUEUE_NUM, DISK_QUEUE_SIZE);
    set_address(disk, MMIO_QUEUE_DESC, queue->desc);
    set_address(disk, MMIO_QUEUE_DRIVER, queue->avail);
    set_address(disk, MMIO_QUEUE_DEVICE, queue->used);
    set(disk, MMIO_QUEUE_READY, 1);
}

const char *disk_start(Disk *disk, uint64_t wanted, uint32_t max_queues)
{
    const char *problem = disk_negotiate(disk, wanted);

    if (problem) {
        return problem;
    }
    if (disk->queue_count > max_queues) {
        disk->queue_count = max_queues;
    }
    for (uint32_t i = 0; i < disk->queue_count; i++) {
        disk_set_up_queue(disk, i);
    }
    set(disk, MMIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    return get(disk, MMIO_STATUS) & STATUS_NEEDS_RESET ? "device needs reset at the start" : NULL;
}

/* The request as descriptors, chained by index + 1; returns how many. */
static uint16_t describe(Disk *disk, DiskRequest *request, Desc *out)
{
    bool in = request->type == BLK_IN || request->type == BLK_GET_ID;
    uint32_t segments = request->segments ? request->segments : 1, done = 0;
    uint16_t n = 0;

    out[n++] = (Desc){ platform_address(disk->platform, &request->header), sizeof(request->header), DESC_NEXT, 0 };
    for (uint32_t i = 0; i < segments && request->bytes; i++) {
        uint32_t len = i + 1 == segments ? request->bytes - done : request->bytes / segments;

        out[n++] = (Desc){ platform_address(disk->platform, (char *)request->data + done), len,
                           DESC_NEXT | (in ? DESC_WRITE : 0), 0 };
        done += len;
    }
    out[n++] = (Desc){ platform_address(disk->platform, &request->status), 1, DESC_WRITE, 0 };
    for (uint16_t i = 0; i + 1 < n; i++) {
        out[i].next = i + 1;
    }
    return n;
}

/* Take a free descriptor of the ring's own table. */
static uint16_t take(DiskQueue *queue)
{
    uint16_t index = queue->free;

    queue->free = queue->desc[index].next;
    queue->free_count--;
    return index;
}

static uint16_t put_direct(DiskQueue *queue, const DiskRequest *request, uint16_t n)
{
    uint16_t head = take(queue), index = head;

    for (uint16_t i = 0; i < n; i++) {
        queue->desc[index] = request->table[i];
        if (i + 1 < n) {
            uint16_t next = take(queue);

            queue->desc[index].next = next;
            index = next;
        }
    }
    return head;
}

bool disk_submit(Disk *disk, uint32_t index, DiskRequest *request)
{
    DiskQueue *queue = &disk->queues[index];
    uint16_t n, head;

    request->header = (BlkHeader){ .type = request->type, .sector = request->sector };
    request->status = BLK_NO_STATUS;
    request->done = false;
    n = describe(disk, request, request->table);
    request->descs = request->indirect ? 1 : n;
    if (request->descs > queue->free_count) {
        return false;
    }
    if (request->indirect) {
        head = take(queue);
        queue->desc[head] =
            (Desc){ platform_address(disk->platform, request->table), n * sizeof(Desc), DESC_INDIRECT, 0 };
    } else {
        head = put_direct(queue, request, n);
    }
    queue->requests[head] = request;
    queue->avail->ring[queue->avail_idx++ % DISK_QUEUE_SIZE] = head;
    __atomic_store_n(&queue->avail->idx, queue->avail_idx, __ATOMIC_RELEASE);
    return true;
}

void disk_notify(Disk *disk, uint32_t index)
{
    DiskQueue *queue = &disk->queues[index];
    uint16_t before = queue->notified_idx, now = queue->avail_idx;

    queue->notified_idx = now;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (disk->features & FEATURE(F_EVENT_IDX)) {
        volatile uint16_t *event = (volatile uint16_t *)&queue->used->ring[DISK_QUEUE_SIZE];

        if ((uint16_t)(now - __atomic_load_n(event, __ATOMIC_RELAXED) - 1) >= (uint16_t)(now - before)) {
            return;
        }
    }
    set(disk, MMIO_QUEUE_NOTIFY, index);
}

static void give_back(DiskQueue *queue, uint16_t head, uint16_t n)
{
    uint16_t last = head;

    for (uint16_t i = 1; i < n; i++) {
        last = queue->desc[last].next;
    }
    queue->desc[last].next = queue->free;
    queue->free = head;
    queue->free_count += n;
}

DiskRequest *disk_poll(Disk *disk, uint32_t index)
{
    DiskQueue *queue = &disk->queues[index];
    DiskRequest *request;
    uint16_t head;

    if (__atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE) == queue->last_used) {
        return NULL;
    }
    head = queue->used->ring[queue->last_used % DISK_QUEUE_SIZE].id;
    request = queue->requests[head];
    request->written = queue->used->ring[queue->last_used % DISK_QUEUE_SIZE].len;
    request->done = true;
    queue->last_used++;
    give_back(queue, head, request->descs);
    return request;
}

/* Ask for an interrupt at the next completion; whoever then looks once more and sees none may sleep. */
static void want_interrupt(Disk *disk, DiskQueue *queue)
{
    if (disk->features & FEATURE(F_EVENT_IDX)) {
        __atomic_store_n(&queue->avail->ring[DISK_QUEUE_SIZE], queue->last_used, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
}

DiskRequest *disk_wait(Disk *disk, uint32_t index)
{
    DiskRequest *request;

    while (!(request = disk_poll(disk, index))) {
        want_interrupt(disk, &disk->queues[index]);
        if ((request = disk_poll(disk, index)) || get(disk, MMIO_STATUS) & STATUS_NEEDS_RESET) {
            break;
        }
        platform_wait(disk->platform, disk->polling ? 0 : disk->base);
    }
    return request;
}

uint8_t disk_run(Disk *disk, uint32_t index, DiskRequest *request)
{
    if (!disk_submit(disk, index, request)) {
        return BLK_NO_STATUS;
    }
    disk_notify(disk, index);
    while (!request->done && disk_wait(disk, index)) {
    }
    return request->done ? request->status : BLK_NO_STATUS;
}
