/* SPDX-License-Identifier: MIT */
#include "guest-memory.h"

#include <sys/mman.h>

bool guest_memory_init(GuestMemory *memory, uint64_t bytes)
{
    void *host = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (host == MAP_FAILED) {
        return false;
    }
    *memory = (GuestMemory){ .host = host, .bytes = bytes };
    return true;
}

void guest_memory_clear(GuestMemory *memory)
{
    if (memory->host) {
        munmap(memory->host, memory->bytes);
    }
    *memory = (GuestMemory){ 0 };
}
