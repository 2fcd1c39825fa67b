/* SPDX-License-Identifier: MIT */
#ifndef BDRV_LOOP_LOOP_H
#define BDRV_LOOP_LOOP_H

/* Inside of the loop layer: the context's fields, and what its files offer each other. */

#include "block/loop/schedule.h"
#include <stdatomic.h>
#include <sys/epoll.h>

/* A round does at most so much of each kind, so that no kind starves another. */
#define AIO_BATCH 64
/* Rounds that found work before fds are looked at all the same. */
#define AIO_ROUNDS_PER_FD_POLL 16

typedef struct AioFd {
    int fd;
    uint32_t events; /* what epoll watches */
    AioFdHandler *on_readable;
    AioFdHandler *on_writable;
    void *opaque;
    struct AioFd *next_removed;
} AioFd;

typedef struct AioData {
    const void *key;
    void *data;
    void (*destroy)(void *data);
    struct AioData *next;
} AioData;

typedef struct CoReadyList {
    CoReady *first, **last;
} CoReadyList;

typedef struct AioCallList {
    AioCall *first, **last;
} AioCallList;

struct AioContext {
    AioContextHead head; /* first: aio_context_count_coroutine() knows no more of a context */

    /*
     * The inbox: what other threads write. Pushed to without a lock, emptied as a whole by the owner,
     * which turns the order round. All accesses that take part in deciding who wakes whom are
     * sequentially consistent: a pusher stores its item and then loads @sleeping, the owner stores
     * @sleeping and then loads the lists, so one of them sees the other.
     */
    _Atomic(CoReady *) inbox_ready __attribute__((aligned(64)));
    _Atomic(AioCall *) inbox_calls;
    atomic_bool sleeping; /* the owner sleeps, is about to, or is outside of the library and polls the fd */
    atomic_bool notified; /* the eventfd was written to, or is about to be, and epoll has not reported it yet */
    atomic_uint pushers;  /* threads inside a push: the context must not go before they have left */
    atomic_uint refs;

    /* From here on: the owner's thread only. */
    CoReadyList ready __attribute__((aligned(64)));
    AioCallList calls;
    AioCallList user_calls;
    const AioSchedule *schedule;
    AioRing *rings;
    bool running;  /* inside a round or a blocking call */
    bool external; /* the embedder polls the fd: what becomes due outside of a round must show there */
    bool sleep_in_ms; /* the kernel has no epoll_pwait2() */
    unsigned busy_rounds;

    AioTimer **timers; /* binary heap */
    unsigned timers_armed;
    unsigned timers_known; /* initialised, not destroyed */
    unsigned timers_room;
    uint64_t timer_order;

    int epoll_fd; /* -1: a simulated context that has not needed one yet */
    int event_fd;
    int timer_fd;           /* -1: nobody polls from outside */
    int64_t timer_fd_armed; /* deadline in ns; INT64_MAX: none */
    GHashTable *fds;        /* fd -> AioFd */
    AioFd *removed_fds;     /* freed when no batch of events can name them */
    bool in_fd_batch;

    struct iovec *memory; /* AIO_MEMORY_MAX; NULL: never any */
    unsigned memory_count;

    AioData *data; /* newest first */
    unsigned index;
    AioSim *sim;
    AioContext *next_in_sim;
};

/* inbox.c */
void co_ready_list_init(CoReadyList *list);
void aio_call_list_init(AioCallList *list);
/* Move what other threads sent to the end of the own lists. */
void aio_inbox_collect(AioContext *ctx);
bool aio_inbox_empty(AioContext *ctx);
/* Make the eventfd readable. Any thread. */
void aio_notify(AioContext *ctx);
/* Something became due in @ctx's own thread: show it if nobody is going to look otherwise. */
static inline void aio_became_due(AioContext *ctx)
{
    if (G_UNLIKELY(ctx->external && !ctx->running)) {
        aio_notify(ctx);
    }
}
static inline CoReady *co_ready_list_pop(CoReadyList *list)
{
    CoReady *ready = list->first;
    list->first = ready->next;
    if (!list->first) {
        list->last = &list->first;
    }
    return ready;
}
static inline AioCall *aio_call_list_pop(AioCallList *list)
{
    AioCall *call = list->first;
    list->first = call->next;
    if (!list->first) {
        list->last = &list->first;
    }
    return call;
}

/* Whether the next round will find something to do. */
bool aio_work_left(AioContext *ctx);

/* fd.c */
int aio_fds_open(AioContext *ctx); /* the epoll set and the eventfd; 0 or -errno */
void aio_fds_close(AioContext *ctx);
/* Wait at most @timeout_ns (-1: for ever) for fds and run their handlers; whether any handler ran. */
bool aio_fds_poll(AioContext *ctx, int64_t timeout_ns);
/* The embedder is going to poll the fd: arm the timerfd, and say so if work is left. */
void aio_external_publish(AioContext *ctx);
void aio_external_timer(AioContext *ctx); /* the next deadline may have changed */

/* timer.c */
int64_t aio_timers_next(AioContext *ctx); /* deadline; INT64_MAX: none armed */
bool aio_timers_run(AioContext *ctx, int64_t now, unsigned max); /* whether any was due */

/* loop.c */
bool aio_rings_poll(AioContext *ctx);
bool aio_rings_busy(AioContext *ctx);
bool aio_user_calls_run(AioContext *ctx, unsigned max);

/* worker.c */
void aio_worker_start_job(AioContext *ctx, AioJob *job);

/* sim.c */
void aio_sim_attach(AioSim *sim, AioContext *ctx);
void aio_sim_detach(AioSim *sim, AioContext *ctx);

#endif
