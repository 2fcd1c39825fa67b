/* SPDX-License-Identifier: MIT */
#ifndef BDRV_FILE_POSIX_PINNED_H
#define BDRV_FILE_POSIX_PINNED_H

/*
 * The memory that a context was told of (aio_context_add_memory()) as registered buffers of its io_uring.
 * Source: io_uring_register_buffers(3).
 */

#include "block/loop/context.h"
#include "config.h"

#include <liburing.h>

#define FILE_PINNED_SLOTS 256

typedef struct FilePinned {
    unsigned generation; /* of the context's memory that the slots follow */
    bool unavailable;    /* the kernel has no table of buffers, or not for us */
    unsigned end;        /* one more than the last slot in use */
    struct iovec slots[FILE_PINNED_SLOTS]; /* iov_base NULL: free */
} FilePinned;

/** file_pinned_follow() - pin what is new and let go of what is gone; what cannot be pinned is left out */
void file_pinned_follow(FilePinned *pinned, struct io_uring *uring, const AioContext *ctx);

/** file_pinned_find() - the slot whose memory has all of the buffer; -1: none */
static inline int file_pinned_find(const FilePinned *pinned, const void *base, size_t bytes)
{
    for (unsigned i = 0; i < pinned->end; i++) {
        size_t from = (uintptr_t)base - (uintptr_t)pinned->slots[i].iov_base;

        if (from < pinned->slots[i].iov_len && bytes <= pinned->slots[i].iov_len - from) {
            return (int)i;
        }
    }
    return -1;
}

#endif
