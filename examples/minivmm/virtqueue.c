/* SPDX-License-Identifier: MIT */
#include "virtqueue.h"

#include <glib.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

G_GNUC_PRINTF(2, 3) static int broken(Virtqueue *queue, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(queue->reason, sizeof(queue->reason), format, args);
    va_end(args);
    return -1;
}

/* A field of a ring, read or written once and in order with what it announces. */
static uint16_t load(const __virtio16 *field)
{
    return GUINT16_FROM_LE(__atomic_load_n(field, __ATOMIC_ACQUIRE));
}

static void store(__virtio16 *field, uint16_t value)
{
    __atomic_store_n(field, GUINT16_TO_LE(value), __ATOMIC_RELEASE);
}

static void *map_part(Virtqueue *queue, const char *what, uint64_t address, uint64_t bytes, unsigned align)
{
    void *host = guest_memory_range(queue->memory, address, bytes);

    if (address % align) {
        broken(queue, "%s at 0x%" PRIx64 " is not aligned to %u", what, address, align);
        return NULL;
    }
    if (!host) {
        broken(queue, "%s of %" PRIu64 " bytes at 0x%" PRIx64 " is not in RAM", what, bytes, address);
    }
    return host;
}

bool virtqueue_init(Virtqueue *queue, const GuestMemory *memory, const VirtqueueSetup *setup)
{
    uint32_t size = setup->size;

    *queue = (Virtqueue){ .memory = memory, .setup = *setup };
    if (size < 1 || size > VIRTQUEUE_MAX_SIZE || size & (size - 1)) {
        broken(queue, "size %u is not a power of two up to %d", size, VIRTQUEUE_MAX_SIZE);
        return false;
    }
    /* Two bytes more in either ring: used_event and avail_event. */
    queue->desc = map_part(queue, "descriptor table", setup->desc, 16ull * size, 16);
    queue->avail = queue->desc ? map_part(queue, "available ring", setup->avail, 6 + 2ull * size, 2) : NULL;
    queue->used = queue->avail ? map_part(queue, "used ring", setup->used, 6 + 8ull * size, 4) : NULL;
    return queue->used != NULL;
}

static __virtio16 *used_event(Virtqueue *queue)
{
    return &queue->avail->ring[queue->setup.size];
}

static __virtio16 *avail_event(Virtqueue *queue)
{
    return (__virtio16 *)&queue->used->ring[queue->setup.size];
}

/* A table that a chain goes through: the queue's own, or one in memory that a descriptor of it names. */
typedef struct Table {
    const struct vring_desc *entries;
    uint32_t count;
    bool indirect;
} Table;

static int enter_indirect(Virtqueue *queue, Table *table, const struct vring_desc *desc)
{
    if (!queue->setup.indirect) {
        return broken(queue, "indirect descriptor, which was not negotiated");
    }
    if (table->indirect) {
        return broken(queue, "indirect descriptor inside an indirect table");
    }
    if (desc->flags & VRING_DESC_F_NEXT) {
        return broken(queue, "indirect descriptor that has a next one");
    }
    if (desc->len == 0 || desc->len % sizeof(struct vring_desc)) {
        return broken(queue, "indirect table of %u bytes is not a whole number of descriptors", desc->len);
    }
    table->entries = map_part(queue, "indirect table", desc->addr, desc->len, 1);
    table->count = desc->len / sizeof(struct vring_desc);
    table->indirect = true;
    return table->entries ? 0 : -1;
}

static int add_segment(Virtqueue *queue, VirtqueueChain *chain, const struct vring_desc *desc)
{
    bool in = desc->flags & VRING_DESC_F_WRITE;
    void *host = guest_memory_range(queue->memory, desc->addr, desc->len);

    if (!host) {
        return broken(queue, "buffer of %u bytes at 0x%" PRIx64 " is not in RAM", desc->len, (uint64_t)desc->addr);
    }
    if (!in && chain->in_count) {
        return broken(queue, "buffer to be read after one to be written");
    }
    if (desc->len == 0) {
        return 0;
    }
    chain->vec[chain->out_count + chain->in_count] = (struct iovec){ .iov_base = host, .iov_len = desc->len };
    if (in) {
        chain->in_count++;
        chain->in_bytes += desc->len;
    } else {
        chain->out_count++;
        chain->out_bytes += desc->len;
    }
    return 0;
}

/* One copy of a descriptor, in the host's byte order. An indirect table need not be aligned. */
static struct vring_desc read_desc(const struct vring_desc *from)
{
    struct vring_desc desc;

    memcpy(&desc, from, sizeof(desc));
    __asm__ volatile("" : : "r"(&desc) : "memory"); /* not read again */
    return (struct vring_desc){
        .addr = GUINT64_FROM_LE(desc.addr),
        .len = GUINT32_FROM_LE(desc.len),
        .flags = GUINT16_FROM_LE(desc.flags),
        .next = GUINT16_FROM_LE(desc.next),
    };
}

static int walk_chain(Virtqueue *queue, VirtqueueChain *chain)
{
    Table table = { .entries = queue->desc, .count = queue->setup.size };
    uint32_t index = chain->head;

    /* A loop, too, ends here. */
    for (unsigned steps = 0; steps <= VIRTQUEUE_MAX_SEGMENTS; steps++) {
        struct vring_desc desc;

        if (index >= table.count) {
            return broken(queue, "descriptor %u of a table of %u", index, table.count);
        }
        desc = read_desc(&table.entries[index]);
        if (desc.flags & VRING_DESC_F_INDIRECT) {
            if (enter_indirect(queue, &table, &desc) < 0) {
                return -1;
            }
            index = 0;
            continue;
        }
        if (chain->out_count + chain->in_count == VIRTQUEUE_MAX_SEGMENTS) {
            break;
        }
        if (add_segment(queue, chain, &desc) < 0) {
            return -1;
        }
        if (!(desc.flags & VRING_DESC_F_NEXT)) {
            return 1;
        }
        index = desc.next;
    }
    return broken(queue, "chain of more than %d descriptors", VIRTQUEUE_MAX_SEGMENTS);
}

/* Ask for a notification of the next request, then look whether one came before that was seen. */
static uint16_t last_look(Virtqueue *queue)
{
    if (!queue->setup.event_idx) {
        return load(&queue->avail->idx); /* notifications are never switched off */
    }
    store(avail_event(queue), queue->last_avail);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return load(&queue->avail->idx);
}

int virtqueue_pop(Virtqueue *queue, VirtqueueChain *chain)
{
    uint16_t idx = load(&queue->avail->idx), waiting;

    if (idx == queue->last_avail) {
        idx = last_look(queue);
    }
    waiting = idx - queue->last_avail;
    if (waiting == 0) {
        return 0;
    }
    if (waiting > queue->setup.size) {
        return broken(queue, "available index %u is %u ahead in a queue of %u", idx, waiting, queue->setup.size);
    }
    *chain = (VirtqueueChain){ .head = load(&queue->avail->ring[queue->last_avail & (queue->setup.size - 1)]) };
    queue->last_avail++;
    return walk_chain(queue, chain);
}

void virtqueue_push(Virtqueue *queue, uint16_t head, uint32_t written)
{
    struct vring_used_elem *elem = &queue->used->ring[queue->used_idx & (queue->setup.size - 1)];

    __atomic_store_n(&elem->id, GUINT32_TO_LE(head), __ATOMIC_RELAXED);
    __atomic_store_n(&elem->len, GUINT32_TO_LE(written), __ATOMIC_RELAXED);
    queue->used_idx++;
    store(&queue->used->idx, queue->used_idx);
}

bool virtqueue_wants_interrupt(Virtqueue *queue)
{
    uint16_t before = queue->signalled, now = queue->used_idx;

    queue->signalled = now;
    if (before == now) {
        return false;
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the used index is seen before what the driver wants is read */
    if (queue->setup.event_idx) {
        return (uint16_t)(now - load(used_event(queue)) - 1) < (uint16_t)(now - before);
    }
    return !(load(&queue->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
}
