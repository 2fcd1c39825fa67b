/* SPDX-License-Identifier: MIT */
/* The life of a context, its index, its binding to a thread, and the storage drivers keep in it. */

#include "block/loop/loop.h"
#include <sched.h>

_Thread_local AioThread aio_thread __attribute__((tls_model("initial-exec")));

/* Which indices live contexts hold, and the key that ends private contexts with their thread. */
static struct {
    pthread_mutex_t lock;
    bool used[AIO_CONTEXT_MAX]; /* lock */
    pthread_once_t once;
    pthread_key_t thread_end;
    int key_error;
} contexts = { .lock = PTHREAD_MUTEX_INITIALIZER, .once = PTHREAD_ONCE_INIT };

static int take_index(void)
{
    int index = -EMFILE;

    pthread_mutex_lock(&contexts.lock);
    for (int i = 0; i < AIO_CONTEXT_MAX && index < 0; i++) {
        if (!contexts.used[i]) {
            contexts.used[i] = true;
            index = i;
        }
    }
    pthread_mutex_unlock(&contexts.lock);
    return index;
}

static void give_index(unsigned index)
{
    pthread_mutex_lock(&contexts.lock);
    contexts.used[index] = false;
    pthread_mutex_unlock(&contexts.lock);
}

static AioContext *context_new(AioSim *sim, GError **errp)
{
    AioContext *ctx;
    int index = take_index();
    int ret;

    if (index < 0) {
        g_set_error(errp, BDRV_ERROR, EMFILE, "%d event loop contexts exist already, the most a process may have; "
                    "free some or use fewer threads", AIO_CONTEXT_MAX);
        return NULL;
    }
    /* The inbox has a cache line of its own, which malloc() does not promise. */
    ctx = aligned_alloc(64, (sizeof(*ctx) + 63) / 64 * 64);
    if (!ctx) {
        give_index(index);
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for an event loop context");
        return NULL;
    }
    memset(ctx, 0, sizeof(*ctx));
    ctx->index = index;
    ctx->refs = 1;
    ctx->sim = sim;
    ctx->schedule = sim ? &aio_schedule_sim : &aio_schedule_real;
    ctx->epoll_fd = ctx->event_fd = ctx->timer_fd = -1;
    co_ready_list_init(&ctx->ready);
    aio_call_list_init(&ctx->calls);
    aio_call_list_init(&ctx->user_calls);
    if (sim) {
        aio_sim_attach(sim, ctx);
        return ctx;
    }
    ret = aio_fds_open(ctx);
    if (ret < 0) {
        free(ctx);
        give_index(index);
        g_set_error(errp, BDRV_ERROR, -ret, "cannot create the file descriptors of an event loop context: %s",
                    g_strerror(-ret));
        return NULL;
    }
    return ctx;
}

AioContext *aio_context_new(GError **errp)
{
    return context_new(aio_thread.current ? aio_thread.current->sim : NULL, errp);
}

AioContext *aio_sim_context_new(AioSim *sim)
{
    return context_new(sim, NULL);
}

AioContext *aio_context_ref(AioContext *ctx)
{
    atomic_fetch_add_explicit(&ctx->refs, 1, memory_order_relaxed);
    return ctx;
}

static void context_free(AioContext *ctx)
{
    /* Who pushed the last item may not have left yet: it is a few instructions away from it. */
    while (atomic_load_explicit(&ctx->pushers, memory_order_acquire)) {
        sched_yield();
    }
    for (AioData *next, *data = ctx->data; data; data = next) {
        next = data->next;
        if (data->data && data->destroy) {
            data->destroy(data->data);
        }
        g_free(data);
    }
    ctx->data = NULL;
    if (ctx->sim) {
        aio_sim_detach(ctx->sim, ctx);
    }
    aio_fds_close(ctx);
    g_free(ctx->timers);
    g_free(ctx->memory);
    give_index(ctx->index);
    free(ctx);
}

void aio_context_unref(AioContext *ctx)
{
    if (ctx && atomic_fetch_sub_explicit(&ctx->refs, 1, memory_order_acq_rel) == 1) {
        context_free(ctx);
    }
}

void aio_context_enter(AioContext *ctx)
{
    g_return_if_fail(!aio_thread.current || aio_thread.current == aio_thread.own);
    aio_thread.current = ctx;
}

void aio_context_leave(AioContext *ctx)
{
    g_return_if_fail(aio_thread.current == ctx);
    aio_thread.current = aio_thread.own;
}

/*
 * What is under way in a private context ends before its thread does: workers and other threads are going to
 * wake coroutines in it, handles wait for their requests, and callbacks are due. Whoever holds a reference
 * sees to that by itself; a thread that ends inside of a callback cannot.
 */
static void blocking_fn finish_private(AioContext *ctx)
{
    aio_thread.current = ctx;
    while (atomic_load_explicit(&ctx->refs, memory_order_acquire) == 1 && !aio_thread.in_callback &&
           !co_in_coroutine() && (ctx->head.coroutines > 0 || aio_work_left(ctx))) {
        aio_context_run(ctx, ctx->head.coroutines > 0);
    }
}

static void end_thread(void *own)
{
    finish_private(own);
    aio_thread.current = NULL;
    aio_thread.own = NULL;
    aio_context_unref(own);
}

static void make_key(void)
{
    contexts.key_error = pthread_key_create(&contexts.thread_end, end_thread);
}

AioContext *aio_context_current(void)
{
    AioContext *ctx = aio_thread.current;

    if (G_LIKELY(ctx)) {
        return ctx;
    }
    pthread_once(&contexts.once, make_key);
    if (contexts.key_error) {
        return NULL;
    }
    ctx = context_new(NULL, NULL);
    if (!ctx) {
        return NULL;
    }
    if (pthread_setspecific(contexts.thread_end, ctx) != 0) {
        aio_context_unref(ctx);
        return NULL;
    }
    aio_thread.own = ctx;
    aio_thread.current = ctx;
    return ctx;
}

unsigned aio_context_index(const AioContext *ctx)
{
    return ctx->index;
}

bool aio_in_callback(void)
{
    return aio_thread.in_callback;
}

AioSim *aio_context_sim(AioContext *ctx)
{
    return ctx->sim;
}

void *aio_context_data(AioContext *ctx, const void *key, void *(*make)(AioContext *ctx), void (*destroy)(void *data))
{
    AioData *data;

    for (data = ctx->data; data; data = data->next) {
        if (data->key == key) {
            return data->data;
        }
    }
    data = g_new(AioData, 1);
    *data = (AioData){ .key = key, .data = make(ctx), .destroy = destroy };
    data->next = ctx->data; /* after make(): it may have asked for data of its own */
    ctx->data = data;
    return data->data;
}

void aio_context_data_retry(AioContext *ctx, const void *key)
{
    for (AioData **link = &ctx->data; *link; link = &(*link)->next) {
        AioData *data = *link;

        if (data->key == key && !data->data) {
            *link = data->next;
            g_free(data);
            return;
        }
    }
}
