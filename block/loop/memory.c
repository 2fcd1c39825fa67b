/* SPDX-License-Identifier: MIT */
/* Memory that requests of a context use again and again. What that is good for is the rings' affair. */

#include "block/loop/loop.h"

#include <errno.h>

static int find(const AioContext *ctx, const void *base)
{
    for (unsigned i = 0; i < ctx->memory_count; i++) {
        if (ctx->memory[i].iov_base == base) {
            return (int)i;
        }
    }
    return -1;
}

static bool overlaps(const struct iovec *piece, const void *base, size_t bytes)
{
    uintptr_t start = (uintptr_t)base, other = (uintptr_t)piece->iov_base;

    return start < other + piece->iov_len && other < start + bytes;
}

int aio_context_add_memory(AioContext *ctx, void *base, size_t bytes)
{
    if (!base || bytes == 0 || (uintptr_t)base > UINTPTR_MAX - bytes) {
        return -EINVAL;
    }
    for (unsigned i = 0; i < ctx->memory_count; i++) {
        if (overlaps(&ctx->memory[i], base, bytes)) {
            return -EEXIST;
        }
    }
    if (ctx->memory_count == AIO_MEMORY_MAX) {
        return -ENOSPC;
    }
    if (!ctx->memory) {
        ctx->memory = g_new(struct iovec, AIO_MEMORY_MAX);
    }
    ctx->memory[ctx->memory_count++] = (struct iovec){ base, bytes };
    ctx->head.memory_generation++;
    return 0;
}

int aio_context_remove_memory(AioContext *ctx, void *base)
{
    int i = find(ctx, base);

    if (i < 0) {
        return -ENOENT;
    }
    ctx->memory[i] = ctx->memory[--ctx->memory_count];
    ctx->head.memory_generation++;
    aio_context_submit(ctx); /* rings look at the generation there */
    return 0;
}

const struct iovec *aio_context_memory(const AioContext *ctx, unsigned *count)
{
    *count = ctx->memory_count;
    return ctx->memory;
}
