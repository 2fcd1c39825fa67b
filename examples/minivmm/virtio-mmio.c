/* SPDX-License-Identifier: MIT */
#include "virtio-mmio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <string.h>

#define MAGIC 0x74726976u /* "virt" */
#define VENDOR 0x56524442u /* "BDRV" */

void virtio_mmio_init(VirtioMmio *mmio, const VirtioDeviceOps *ops, void *opaque, uint64_t features,
                      unsigned queue_count)
{
    *mmio = (VirtioMmio){
        .ops = ops,
        .opaque = opaque,
        .offered = features | 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
                   1ull << VIRTIO_RING_F_EVENT_IDX,
        .queue_count = queue_count,
    };
    pthread_mutex_init(&mmio->lock, NULL);
    pthread_mutex_init(&mmio->interrupt_lock, NULL);
    pthread_mutex_init(&mmio->reason_lock, NULL);
}

void virtio_mmio_clear(VirtioMmio *mmio)
{
    pthread_mutex_destroy(&mmio->lock);
    pthread_mutex_destroy(&mmio->interrupt_lock);
    pthread_mutex_destroy(&mmio->reason_lock);
}

static uint32_t get_status(VirtioMmio *mmio)
{
    return __atomic_load_n(&mmio->status, __ATOMIC_ACQUIRE);
}

/* ---- interrupts and errors, from any thread ---- */

static void raise_line(VirtioMmio *mmio, uint32_t cause)
{
    __atomic_or_fetch(&mmio->interrupt_status, cause, __ATOMIC_ACQ_REL);
    pthread_mutex_lock(&mmio->interrupt_lock);
    if (mmio->interrupt_changed) {
        mmio->interrupt_changed(mmio->interrupt_opaque);
    }
    pthread_mutex_unlock(&mmio->interrupt_lock);
}

void virtio_mmio_on_interrupt(VirtioMmio *mmio, void (*changed)(void *opaque), void *opaque)
{
    pthread_mutex_lock(&mmio->interrupt_lock);
    mmio->interrupt_changed = changed;
    mmio->interrupt_opaque = opaque;
    pthread_mutex_unlock(&mmio->interrupt_lock);
}

void virtio_mmio_interrupt(VirtioMmio *mmio)
{
    raise_line(mmio, VIRTIO_MMIO_INT_VRING);
}

/* A driver that is not ready is told when it is, unless it has looked by then. */
void virtio_mmio_config_changed(VirtioMmio *mmio)
{
    __atomic_store_n(&mmio->config_changed, true, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&mmio->status, __ATOMIC_SEQ_CST) & VIRTIO_CONFIG_S_DRIVER_OK) {
        raise_line(mmio, VIRTIO_MMIO_INT_CONFIG);
    }
}

bool virtio_mmio_line(VirtioMmio *mmio)
{
    return __atomic_load_n(&mmio->interrupt_status, __ATOMIC_ACQUIRE) != 0;
}

void virtio_mmio_break(VirtioMmio *mmio, const char *what, const char *reason)
{
    uint32_t before;

    pthread_mutex_lock(&mmio->reason_lock);
    if (!mmio->reason[0]) {
        g_snprintf(mmio->reason, sizeof(mmio->reason), "%s: %s", what, reason);
        if (mmio->on_break) {
            mmio->on_break(mmio->break_opaque, mmio->reason);
        }
    }
    pthread_mutex_unlock(&mmio->reason_lock);
    before = __atomic_fetch_or(&mmio->status, VIRTIO_CONFIG_S_NEEDS_RESET, __ATOMIC_ACQ_REL);
    if (before & VIRTIO_CONFIG_S_DRIVER_OK && !(before & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        raise_line(mmio, VIRTIO_MMIO_INT_CONFIG);
    }
}

bool virtio_mmio_is_broken(VirtioMmio *mmio)
{
    return get_status(mmio) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

char *virtio_mmio_reason(VirtioMmio *mmio)
{
    char *reason;

    pthread_mutex_lock(&mmio->reason_lock);
    reason = mmio->reason[0] ? g_strdup(mmio->reason) : NULL;
    pthread_mutex_unlock(&mmio->reason_lock);
    return reason;
}

/* ---- the state machine; the lock is held ---- */

static VirtioQueueRegisters *selected(VirtioMmio *mmio)
{
    return mmio->queue_sel < mmio->queue_count ? &mmio->queues[mmio->queue_sel] : NULL;
}

static void start_queue(VirtioMmio *mmio, unsigned index)
{
    VirtioQueueRegisters *queue = &mmio->queues[index];
    char reason[VIRTQUEUE_REASON_BYTES], what[32];

    queue->setup.indirect = mmio->accepted >> VIRTIO_RING_F_INDIRECT_DESC & 1;
    queue->setup.event_idx = mmio->accepted >> VIRTIO_RING_F_EVENT_IDX & 1;
    if (!mmio->ops->start_queue(mmio->opaque, index, &queue->setup, mmio->accepted, reason)) {
        g_snprintf(what, sizeof(what), "queue %u", index);
        virtio_mmio_break(mmio, what, reason);
    }
}

static void set_ready(VirtioMmio *mmio, VirtioQueueRegisters *queue, bool ready)
{
    unsigned index = queue - mmio->queues;

    if (queue->ready == ready) {
        return;
    }
    queue->ready = ready;
    if (!ready) {
        mmio->ops->stop_queue(mmio->opaque, index);
    } else if (get_status(mmio) & VIRTIO_CONFIG_S_DRIVER_OK) {
        start_queue(mmio, index);
    }
}

/* When this returns the device no longer touches memory of the guest. */
static void reset(VirtioMmio *mmio)
{
    for (unsigned i = 0; i < mmio->queue_count; i++) {
        mmio->ops->stop_queue(mmio->opaque, i);
    }
    memset(mmio->queues, 0, sizeof(mmio->queues));
    mmio->accepted = 0;
    mmio->features_sel = mmio->driver_features_sel = mmio->queue_sel = 0;
    pthread_mutex_lock(&mmio->reason_lock);
    mmio->reason[0] = '\0';
    pthread_mutex_unlock(&mmio->reason_lock);
    __atomic_store_n(&mmio->interrupt_status, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&mmio->status, 0, __ATOMIC_RELEASE);
}

static bool features_are_acceptable(const VirtioMmio *mmio)
{
    return !(mmio->accepted & ~mmio->offered) && mmio->accepted >> VIRTIO_F_VERSION_1 & 1;
}

/* A driver only adds bits; it sees from FEATURES_OK reading as 0 that its choice of features is refused. */
static void set_status(VirtioMmio *mmio, uint32_t value)
{
    uint32_t before = get_status(mmio), added = value & ~before & 0xff & ~VIRTIO_CONFIG_S_NEEDS_RESET;

    if (value == 0) {
        reset(mmio);
        return;
    }
    if (added & VIRTIO_CONFIG_S_FEATURES_OK && !features_are_acceptable(mmio)) {
        added &= ~VIRTIO_CONFIG_S_FEATURES_OK;
    }
    if (added & VIRTIO_CONFIG_S_DRIVER_OK && !((before | added) & VIRTIO_CONFIG_S_FEATURES_OK)) {
        added &= ~VIRTIO_CONFIG_S_DRIVER_OK;
        virtio_mmio_break(mmio, "status", "DRIVER_OK without FEATURES_OK");
    }
    __atomic_or_fetch(&mmio->status, added, __ATOMIC_SEQ_CST);
    if (!(added & VIRTIO_CONFIG_S_DRIVER_OK)) {
        return;
    }
    if (__atomic_load_n(&mmio->config_changed, __ATOMIC_SEQ_CST)) {
        raise_line(mmio, VIRTIO_MMIO_INT_CONFIG);
    }
    for (unsigned i = 0; i < mmio->queue_count; i++) {
        if (mmio->queues[i].ready) {
            start_queue(mmio, i);
        }
    }
}

static void set_driver_features(VirtioMmio *mmio, uint32_t value)
{
    unsigned shift = mmio->driver_features_sel * 32;

    if (get_status(mmio) & VIRTIO_CONFIG_S_FEATURES_OK || mmio->driver_features_sel > 1) {
        return;
    }
    mmio->accepted = (mmio->accepted & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

static void set_half(uint64_t *address, bool high, uint32_t value)
{
    *address = high ? (*address & 0xffffffffull) | (uint64_t)value << 32 : (*address & ~0xffffffffull) | value;
}

/* Registers of the selected queue. They are fixed while it is ready. */
static void write_queue(VirtioMmio *mmio, uint64_t offset, uint32_t value)
{
    VirtioQueueRegisters *queue = selected(mmio);

    if (!queue) {
        return;
    }
    if (offset == VIRTIO_MMIO_QUEUE_READY) {
        set_ready(mmio, queue, value & 1);
        return;
    }
    if (queue->ready) {
        return;
    }
    switch (offset) {
    case VIRTIO_MMIO_QUEUE_NUM:
        queue->setup.size = value;
        break;
    case VIRTIO_MMIO_QUEUE_DESC_LOW:
    case VIRTIO_MMIO_QUEUE_DESC_HIGH:
        set_half(&queue->setup.desc, offset == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
        break;
    case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
    case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
        set_half(&queue->setup.avail, offset == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, value);
        break;
    case VIRTIO_MMIO_QUEUE_USED_LOW:
    case VIRTIO_MMIO_QUEUE_USED_HIGH:
        set_half(&queue->setup.used, offset == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
        break;
    }
}

static void write_register(VirtioMmio *mmio, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        mmio->features_sel = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        mmio->driver_features_sel = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES:
        set_driver_features(mmio, value);
        break;
    case VIRTIO_MMIO_QUEUE_SEL:
        mmio->queue_sel = value;
        break;
    case VIRTIO_MMIO_QUEUE_NOTIFY:
        if (value < mmio->queue_count) {
            mmio->ops->notify(mmio->opaque, value);
        }
        break;
    case VIRTIO_MMIO_INTERRUPT_ACK:
        __atomic_and_fetch(&mmio->interrupt_status, ~value, __ATOMIC_ACQ_REL);
        break;
    case VIRTIO_MMIO_STATUS:
        set_status(mmio, value);
        break;
    default:
        write_queue(mmio, offset, value);
        break;
    }
}

/* Between two changes of the generation, which happen here alone, the configuration is the same. */
static void update_config(VirtioMmio *mmio)
{
    if (__atomic_exchange_n(&mmio->config_changed, false, __ATOMIC_SEQ_CST)) {
        mmio->generation++;
        mmio->ops->update_config(mmio->opaque);
    }
}

static uint32_t read_register(VirtioMmio *mmio, uint64_t offset)
{
    VirtioQueueRegisters *queue = selected(mmio);

    switch (offset) {
    case VIRTIO_MMIO_MAGIC_VALUE:
        return MAGIC;
    case VIRTIO_MMIO_VERSION:
        return 2;
    case VIRTIO_MMIO_DEVICE_ID:
        return mmio->ops->device_id;
    case VIRTIO_MMIO_VENDOR_ID:
        return VENDOR;
    case VIRTIO_MMIO_DEVICE_FEATURES:
        return mmio->features_sel > 1 ? 0 : mmio->offered >> (mmio->features_sel * 32);
    case VIRTIO_MMIO_QUEUE_NUM_MAX:
        return queue ? VIRTQUEUE_MAX_SIZE : 0;
    case VIRTIO_MMIO_QUEUE_READY:
        return queue && queue->ready;
    case VIRTIO_MMIO_INTERRUPT_STATUS:
        return __atomic_load_n(&mmio->interrupt_status, __ATOMIC_ACQUIRE);
    case VIRTIO_MMIO_STATUS:
        return get_status(mmio);
    case VIRTIO_MMIO_SHM_LEN_LOW:
    case VIRTIO_MMIO_SHM_LEN_HIGH:
    case VIRTIO_MMIO_SHM_BASE_LOW:
    case VIRTIO_MMIO_SHM_BASE_HIGH:
        return 0xffffffffu; /* there is no shared memory */
    case VIRTIO_MMIO_CONFIG_GENERATION:
        update_config(mmio);
        return mmio->generation;
    default:
        return 0;
    }
}

static void read_config(VirtioMmio *mmio, uint64_t offset, void *data, unsigned bytes)
{
    size_t there;
    const uint8_t *config;

    update_config(mmio);
    config = mmio->ops->config(mmio->opaque, &there);
    if (offset < there) {
        memcpy(data, config + offset, MIN(bytes, there - offset));
    }
}

void virtio_mmio_read(VirtioMmio *mmio, uint64_t offset, void *data, unsigned bytes)
{
    memset(data, 0, bytes);
    pthread_mutex_lock(&mmio->lock);
    if (offset >= VIRTIO_MMIO_CONFIG) {
        read_config(mmio, offset - VIRTIO_MMIO_CONFIG, data, bytes);
    } else if (bytes == 4 && offset % 4 == 0) {
        uint32_t value = GUINT32_TO_LE(read_register(mmio, offset));

        memcpy(data, &value, 4);
    }
    pthread_mutex_unlock(&mmio->lock);
}

void virtio_mmio_write(VirtioMmio *mmio, uint64_t offset, const void *data, unsigned bytes)
{
    uint32_t value;

    /* Registers are 32 bits wide; no field of the configuration can be written. */
    if (bytes != 4 || offset % 4 || offset >= VIRTIO_MMIO_CONFIG) {
        return;
    }
    memcpy(&value, data, 4);
    pthread_mutex_lock(&mmio->lock);
    write_register(mmio, offset, GUINT32_FROM_LE(value));
    pthread_mutex_unlock(&mmio->lock);
}
