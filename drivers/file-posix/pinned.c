/* SPDX-License-Identifier: MIT */

#include "config.h"

#ifdef CONFIG_LIBURING
#include "drivers/file-posix/pinned.h"

#include <string.h>

#define PIECE_MAX ((size_t)1 << 30) /* the kernel takes no larger buffer */

#ifdef CONFIG_URING_BUFFERS

static bool is_piece_of(const struct iovec *slot, const struct iovec *memory)
{
    size_t from = (uintptr_t)slot->iov_base - (uintptr_t)memory->iov_base;

    return from < memory->iov_len && from % PIECE_MAX == 0 && slot->iov_len == MIN(memory->iov_len - from, PIECE_MAX);
}

static bool is_known(const struct iovec *slot, const AioContext *ctx)
{
    unsigned count;
    const struct iovec *memory = aio_context_memory(ctx, &count);

    for (unsigned i = 0; i < count; i++) {
        if (is_piece_of(slot, &memory[i])) {
            return true;
        }
    }
    return false;
}

static bool fill_slot(FilePinned *pinned, struct io_uring *uring, unsigned slot, struct iovec piece)
{
    __u64 tag = 0;

    if (io_uring_register_buffers_update_tag(uring, slot, &piece, &tag, 1) != 1) {
        return false;
    }
    pinned->slots[slot] = piece;
    return true;
}

/* Requests under way keep what they use. */
static void let_go(FilePinned *pinned, struct io_uring *uring, const AioContext *ctx)
{
    for (unsigned i = 0; i < pinned->end; i++) {
        if (pinned->slots[i].iov_base && !is_known(&pinned->slots[i], ctx)) {
            fill_slot(pinned, uring, i, (struct iovec){ NULL, 0 });
            pinned->slots[i] = (struct iovec){ NULL, 0 }; /* not used, whatever the kernel said */
        }
    }
    while (pinned->end > 0 && !pinned->slots[pinned->end - 1].iov_base) {
        pinned->end--;
    }
}

static void pin_piece(FilePinned *pinned, struct io_uring *uring, struct iovec piece)
{
    if (file_pinned_find(pinned, piece.iov_base, piece.iov_len) >= 0) {
        return;
    }
    for (unsigned i = 0; i < FILE_PINNED_SLOTS; i++) {
        if (!pinned->slots[i].iov_base) {
            if (fill_slot(pinned, uring, i, piece)) {
                pinned->end = MAX(pinned->end, i + 1);
            }
            return;
        }
    }
}

void file_pinned_follow(FilePinned *pinned, struct io_uring *uring, const AioContext *ctx)
{
    unsigned count;
    const struct iovec *memory = aio_context_memory(ctx, &count);

    if (pinned->generation == 0) {
        pinned->unavailable = io_uring_register_buffers_sparse(uring, FILE_PINNED_SLOTS) != 0;
    }
    pinned->generation = aio_context_memory_generation(ctx);
    if (pinned->unavailable) {
        return;
    }
    let_go(pinned, uring, ctx);
    for (unsigned i = 0; i < count; i++) {
        for (size_t at = 0; at < memory[i].iov_len; at += PIECE_MAX) {
            pin_piece(pinned, uring, (struct iovec){ (char *)memory[i].iov_base + at,
                                                     MIN(memory[i].iov_len - at, PIECE_MAX) });
        }
    }
}

#else

void file_pinned_follow(FilePinned *pinned, struct io_uring *uring, const AioContext *ctx)
{
    pinned->generation = aio_context_memory_generation(ctx);
    pinned->unavailable = true;
}

#endif
#endif
