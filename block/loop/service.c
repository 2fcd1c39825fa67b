/* SPDX-License-Identifier: MIT */

/*
 * The service thread: a context that always runs, for work that a driver does on its own account.
 *
 * Started in the thread of some request such work would stop half-way when that thread stops running
 * its context, and others may wait for it. Here it always gets on. The thread starts with the first
 * use and stays. Where it cannot be started the next use tries again.
 */

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "block/loop/context.h"

static pthread_mutex_t service_lock = PTHREAD_MUTEX_INITIALIZER; /* of starting it */
static _Atomic(AioContext *) service;

static void *service_main(void *opaque)
{
    AioContext *ctx = opaque;

    aio_context_enter(ctx);
    for (;;) {
        aio_context_run(ctx, true);
    }
    return NULL;
}

/* service_lock held; NULL if there is no making it. */
static AioContext *start_service(void)
{
    AioContext *ctx = aio_context_new(NULL);
    pthread_attr_t attributes;
    sigset_t all, old;
    pthread_t thread;

    if (!ctx) {
        return NULL;
    }
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    /* Signals are the embedder's, as in the workers. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&thread, &attributes, service_main, ctx) != 0) {
        aio_context_unref(ctx);
        ctx = NULL;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    return ctx;
}

AioContext *aio_service_context(void)
{
    AioContext *current = aio_context_current(), *ctx;

    if (current && aio_context_sim(current)) {
        return current; /* all contexts of a simulation run as long as one does */
    }
    ctx = atomic_load_explicit(&service, memory_order_acquire);
    if (!ctx) {
        pthread_mutex_lock(&service_lock);
        ctx = atomic_load_explicit(&service, memory_order_relaxed);
        if (!ctx) {
            ctx = start_service();
            atomic_store_explicit(&service, ctx, memory_order_release);
        }
        pthread_mutex_unlock(&service_lock);
    }
    return ctx ? ctx : current;
}
