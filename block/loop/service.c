/* SPDX-License-Identifier: MIT */

/*
 * The service thread: a context that always runs, for work that a driver does on its own account.
 *
 * Started in the thread of some request such work would stop half-way when that thread stops running
 * its context, and others may wait for it. Here it always gets on. The thread starts with the first
 * use and stays.
 */

#include <pthread.h>
#include <signal.h>

#include "block/loop/context.h"

static AioContext *service;

static void *service_main(void *opaque)
{
    aio_context_enter(service);
    for (;;) {
        aio_context_run(service, true);
    }
    return NULL;
}

static void start_service(void)
{
    AioContext *ctx = aio_context_new(NULL);
    pthread_attr_t attributes;
    sigset_t all, old;
    pthread_t thread;

    if (!ctx) {
        return;
    }
    service = ctx;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    /* Signals are the embedder's, as in the workers. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&thread, &attributes, service_main, NULL) != 0) {
        aio_context_unref(ctx);
        service = NULL;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
}

AioContext *aio_service_context(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    AioContext *current = aio_context_current();

    if (current && aio_context_sim(current)) {
        return current; /* all contexts of a simulation run as long as one does */
    }
    pthread_once(&once, start_service);
    return service ? service : current;
}
