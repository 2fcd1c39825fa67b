/* SPDX-License-Identifier: MIT */
#ifndef MINIVMM_GUEST_MEMORY_H
#define MINIVMM_GUEST_MEMORY_H

/* RAM of the guest: one piece, from guest address 0. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct GuestMemory {
    uint8_t *host;
    uint64_t bytes;
} GuestMemory;

/** guest_memory_init() - map @bytes of zeroes; false with errno set */
bool guest_memory_init(GuestMemory *memory, uint64_t bytes);
void guest_memory_clear(GuestMemory *memory);

/** guest_memory_range() - where [@address, @address + @bytes) is; NULL if any of it is not RAM */
static inline void *guest_memory_range(const GuestMemory *memory, uint64_t address, uint64_t bytes)
{
    if (address > memory->bytes || bytes > memory->bytes - address) {
        return NULL;
    }
    return memory->host + address;
}

#endif
