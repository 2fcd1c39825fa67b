/* SPDX-License-Identifier: MIT */
/* A context as an event source of a GMainLoop: its fd says when, aio_context_run() does the work. */

#include "block/loop/loop.h"

typedef struct AioSource {
    GSource base;
    AioContext *ctx;
    gpointer tag;
} AioSource;

static gboolean source_check(GSource *base)
{
    AioSource *source = (AioSource *)base;

    return g_source_query_unix_fd(base, source->tag) != 0;
}

static gboolean blocking_fn source_dispatch(GSource *base, GSourceFunc func, gpointer opaque)
{
    AioSource *source = (AioSource *)base;

    aio_context_run(source->ctx, false);
    return func ? func(opaque) : G_SOURCE_CONTINUE;
}

static void source_finalize(GSource *base)
{
    aio_context_unref(((AioSource *)base)->ctx);
}

static GSourceFuncs source_funcs = {
    .check = source_check,
    .dispatch = source_dispatch,
    .finalize = source_finalize,
};

GSource *aio_context_source_new(AioContext *ctx)
{
    int fd = aio_context_fd(ctx);
    AioSource *source;

    if (fd < 0) {
        return NULL;
    }
    source = (AioSource *)g_source_new(&source_funcs, sizeof(*source));
    source->ctx = aio_context_ref(ctx);
    source->tag = g_source_add_unix_fd(&source->base, fd, G_IO_IN);
    g_source_set_name(&source->base, "bdrv");
    return &source->base;
}
