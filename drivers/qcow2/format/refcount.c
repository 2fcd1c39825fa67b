/* SPDX-License-Identifier: MIT */
/*
 * Entries of a refcount block. Widths below a byte are packed with bit 0 the least significant bit of
 * the byte; wider ones are big-endian.
 */

#include "drivers/qcow2/format/format.h"

#include "block/util/bytes.h"

uint64_t qcow2_refcount_limit(unsigned order)
{
    return order >= 6 ? UINT64_MAX : (UINT64_C(1) << (1u << order)) - 1;
}

uint64_t qcow2_refcount_get(const void *block, uint64_t index, unsigned order)
{
    const uint8_t *bytes = block;
    switch (order) {
    case 0:
    case 1:
    case 2: {
        unsigned width = 1u << order;
        unsigned per_byte_bits = 3 - order;
        unsigned shift = (index & ((1u << per_byte_bits) - 1)) * width;
        return (bytes[index >> per_byte_bits] >> shift) & ((1u << width) - 1);
    }
    case 3:
        return bytes[index];
    case 4:
        return load_be16(bytes + 2 * index);
    case 5:
        return load_be32(bytes + 4 * index);
    default:
        return load_be64(bytes + 8 * index);
    }
}

void qcow2_refcount_set(void *block, uint64_t index, unsigned order, uint64_t value)
{
    uint8_t *bytes = block;
    switch (order) {
    case 0:
    case 1:
    case 2: {
        unsigned width = 1u << order;
        unsigned per_byte_bits = 3 - order;
        unsigned shift = (index & ((1u << per_byte_bits) - 1)) * width;
        uint8_t mask = (uint8_t)(((1u << width) - 1) << shift);
        uint8_t *byte = &bytes[index >> per_byte_bits];
        *byte = (uint8_t)((*byte & ~mask) | ((value << shift) & mask));
        break;
    }
    case 3:
        bytes[index] = (uint8_t)value;
        break;
    case 4:
        store_be16(bytes + 2 * index, (uint16_t)value);
        break;
    case 5:
        store_be32(bytes + 4 * index, (uint32_t)value);
        break;
    default:
        store_be64(bytes + 8 * index, value);
    }
}
