/* SPDX-License-Identifier: MIT */
#ifndef GUEST_VIRTIO_H
#define GUEST_VIRTIO_H

/*
 * What a driver must know of virtio, from the specification (virtio 1.2: 2.7 split virtqueues, 4.2 MMIO, 5.2 block).
 * The device uses the kernel's headers; that both understand each other checks either. x86 is little-endian, as is
 * virtio.
 */

#include <stdint.h>

#include <stdint.h>

enum { /* registers */
    MMIO_MAGIC = 0x00,
    MMIO_VERSION = 0x04,
    MMIO_DEVICE_ID = 0x08,
    MMIO_DEVICE_FEATURES = 0x10,
    MMIO_DEVICE_FEATURES_SEL = 0x14,
    MMIO_DRIVER_FEATURES = 0x20,
    MMIO_DRIVER_FEATURES_SEL = 0x24,
    MMIO_QUEUE_SEL = 0x30,
    MMIO_QUEUE_NUM_MAX = 0x34,
    MMIO_QUEUE_NUM = 0x38,
    MMIO_QUEUE_READY = 0x44,
    MMIO_QUEUE_NOTIFY = 0x50,
    MMIO_INTERRUPT_STATUS = 0x60,
    MMIO_INTERRUPT_ACK = 0x64,
    MMIO_STATUS = 0x70,
    MMIO_QUEUE_DESC = 0x80,
    MMIO_QUEUE_DRIVER = 0x90,
    MMIO_QUEUE_DEVICE = 0xa0,
    MMIO_CONFIG_GENERATION = 0xfc,
    MMIO_CONFIG = 0x100,
};

enum { /* why there is an interrupt */
    INTERRUPT_VRING = 1,
    INTERRUPT_CONFIG = 2,
};

enum { /* device status */
    STATUS_ACKNOWLEDGE = 1,
    STATUS_DRIVER = 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
    STATUS_NEEDS_RESET = 64,
    STATUS_FAILED = 128,
};

enum { /* feature bits */
    BLK_F_SEG_MAX = 2,
    BLK_F_RO = 5,
    BLK_F_BLK_SIZE = 6,
    BLK_F_FLUSH = 9,
    BLK_F_TOPOLOGY = 10,
    BLK_F_MQ = 12,
    BLK_F_DISCARD = 13,
    BLK_F_WRITE_ZEROES = 14,
    F_INDIRECT_DESC = 28,
    F_EVENT_IDX = 29,
    F_VERSION_1 = 32,
};
#define FEATURE(bit) (1ull << (bit))

enum { /* configuration space of a block device */
    CONFIG_CAPACITY = 0x00,
    CONFIG_SEG_MAX = 0x0c,
    CONFIG_BLK_SIZE = 0x14,
    CONFIG_NUM_QUEUES = 0x22,
    CONFIG_MAX_DISCARD_SECTORS = 0x24,
    CONFIG_MAX_DISCARD_SEG = 0x28,
    CONFIG_DISCARD_SECTOR_ALIGNMENT = 0x2c,
    CONFIG_MAX_WRITE_ZEROES_SECTORS = 0x30,
    CONFIG_MAX_WRITE_ZEROES_SEG = 0x34,
};

enum { /* types of request */
    BLK_IN = 0,
    BLK_OUT = 1,
    BLK_FLUSH = 4,
    BLK_GET_ID = 8,
    BLK_DISCARD = 11,
    BLK_WRITE_ZEROES = 13,
};

enum { /* how it ended */
    BLK_OK = 0,
    BLK_IOERR = 1,
    BLK_UNSUPP = 2,
    BLK_NO_STATUS = 0xff, /* ours: what the byte is before */
};

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { AVAIL_NO_INTERRUPT = 1 };

typedef struct Desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
} Desc;

typedef struct Avail {
    uint16_t flags, idx, ring[];
} Avail;

typedef struct UsedElem {
    uint32_t id, len;
} UsedElem;

typedef struct Used {
    uint16_t flags, idx;
    UsedElem ring[];
} Used;

typedef struct BlkHeader {
    uint32_t type, reserved;
    uint64_t sector;
} BlkHeader;

typedef struct BlkRange { /* of a discard or write-zeroes */
    uint64_t sector;
    uint32_t sectors, flags;
} BlkRange;

#endif
