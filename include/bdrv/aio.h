/* SPDX-License-Identifier: MIT */
#ifndef BDRV_AIO_H
#define BDRV_AIO_H

/*
 * AioContext: one thread's event loop. It watches file descriptors and timers, runs deferred calls,
 * resumes coroutines and polls completion rings.
 *
 * A context belongs to one thread at a time: the one that runs it. All functions but aio_call(),
 * co_wake() and aio_context_ref/unref() must be called in that thread. A thread without a context
 * that makes a blocking call gets a private one. It goes with the thread, which first runs it until all
 * that was started there has ended. Sources: epoll(7), eventfd(2).
 */

#include <bdrv/error.h>
#include <stdbool.h>
#include <stdint.h>

G_BEGIN_DECLS

/* The event loop of a thread; opaque. */
typedef struct AioContext AioContext;

/* At most this many contexts live at once in a process; aio_context_new() fails beyond (EMFILE). */
#define AIO_CONTEXT_MAX 256

/**
 * aio_context_new() - a context, not yet bound to a thread
 * Called in a deterministic run (below) it belongs to that run.
 */
BDRV_API AioContext *aio_context_new(GError **errp);
BDRV_API AioContext *aio_context_ref(AioContext *ctx);
BDRV_API void aio_context_unref(AioContext *ctx);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(AioContext, aio_context_unref)

/**
 * aio_context_enter() - make @ctx the calling thread's context
 * The thread must have none but perhaps a private one. Leave undoes it.
 */
BDRV_API void aio_context_enter(AioContext *ctx);
BDRV_API void aio_context_leave(AioContext *ctx);

/**
 * aio_context_current() - the calling thread's context; made (private, freed with the thread) if it has none
 * Returns: NULL if the thread has none and none can be made (AIO_CONTEXT_MAX, or no file descriptors left).
 */
BDRV_API AioContext *aio_context_current(void);

/** aio_context_index() - 0 .. AIO_CONTEXT_MAX - 1, unique among live contexts; indexes per-thread slots */
BDRV_API unsigned aio_context_index(const AioContext *ctx);

/**
 * aio_context_run() - one round: rings, ready coroutines, deferred calls, timers, user callbacks, fds
 * Each kind gets a bounded share of a round. In a deterministic run this is one step of any of its
 * contexts; time jumps only if @may_block (or if the fd of @ctx is polled from outside).
 * @ctx: the calling thread's context (if the thread has none, @ctx is entered for the call)
 * @may_block: wait until something was done
 *
 * Context: not a coroutine, not a callback (returns false there).
 * Returns: whether anything was done.
 */
BDRV_API bool blocking_fn aio_context_run(AioContext *ctx, bool may_block);

/**
 * aio_context_fd() - a file descriptor that is readable when aio_context_run(ctx, false) has work
 * To be polled by the thread that runs @ctx, which should call aio_context_run(ctx, false) when it is
 * readable. The context owns it. From the first call on the loop keeps it up to date, which costs a
 * system call now and then; do not call it if you only use aio_context_run(ctx, true).
 *
 * Returns: the descriptor, or -errno if a timer descriptor cannot be made.
 */
BDRV_API int aio_context_fd(AioContext *ctx);

/**
 * aio_context_source_new() - a GSource that runs @ctx from a GMainLoop in this thread
 * It holds a reference to @ctx. Returns: NULL if aio_context_fd() fails.
 */
BDRV_API GSource *aio_context_source_new(AioContext *ctx);

/* A context knows at most so many pieces of memory. */
#define AIO_MEMORY_MAX 64

/**
 * aio_context_add_memory() - tell that requests of this context will use this memory again and again, as a guest's RAM
 * @ctx: the calling thread's context; each thread tells its own
 * @base, @bytes: stays mapped, as it is, until aio_context_remove_memory()
 *
 * A direct request (cache.direct=on) through io_uring whose buffer lies in it as one piece is then made without
 * looking up its pages and pinning them once more. They are pinned from the context's next round on, and count against
 * RLIMIT_MEMLOCK; where that cannot be had (Linux 5.19, liburing 2.2) requests go as they did.
 *
 * Returns: 0; -EINVAL (nothing, or past the end of the address space), -EEXIST (some of it is known), -ENOSPC
 * (AIO_MEMORY_MAX pieces are).
 */
BDRV_API int aio_context_add_memory(AioContext *ctx, void *base, size_t bytes);
/** aio_context_remove_memory() - forget it, before it is unmapped; it is not pinned any more when this returns
 * @base: of a piece that was added; requests of this context that use it must have ended. Own thread.
 * Returns: 0; -ENOENT. */
BDRV_API int aio_context_remove_memory(AioContext *ctx, void *base);

/* A deferred call. Owned by the caller, who keeps it until @func has run. */
typedef struct AioCall {
    void (*func)(void *opaque); /* what to call */
    void *opaque;               /* with this */
    struct AioCall *next; /* the context's */
} AioCall;

/** aio_call() - run @call->func once in @ctx's next round. Any thread; never blocks, never allocates. */
BDRV_API void aio_call(AioContext *ctx, AioCall *call);

/**
 * aio_call_user() - queue a callback of the embedder
 * Like aio_call(), but only an aio_context_run() made by the embedder runs it, never one inside a
 * blocking call of the library. Calling thread: @ctx's own.
 */
BDRV_API void aio_call_user(AioContext *ctx, AioCall *call);

/** aio_in_callback() - whether the calling thread is inside a callback that its context runs */
BDRV_API bool aio_in_callback(void);

/**
 * aio_set_fd_handler() - watch a file descriptor
 * Level-triggered; a NULL handler is not watched for; both NULL removes. Errors and hang-ups call
 * whichever handlers there are. Remove the handlers before closing @fd.
 *
 * Returns: 0; -EPERM if @fd cannot be polled (a regular file); -ENOMEM, -ENOSPC, -EMFILE.
 */
typedef void AioFdHandler(void *opaque);
BDRV_API int aio_set_fd_handler(AioContext *ctx, int fd, AioFdHandler *on_readable, AioFdHandler *on_writable,
                                void *opaque);

/* Timers: CLOCK_MONOTONIC nanoseconds, or the virtual clock of a deterministic run. */
typedef struct AioTimer AioTimer; /* a timer of one context; opaque */
BDRV_API int64_t aio_clock_ns(AioContext *ctx);
BDRV_API AioTimer *aio_timer_new(AioContext *ctx, void (*func)(void *opaque), void *opaque);
BDRV_API void aio_timer_arm(AioTimer *timer, int64_t deadline_ns); /* re-arming moves it */
BDRV_API void aio_timer_cancel(AioTimer *timer);
BDRV_API void aio_timer_free(AioTimer *timer); /* cancels */

/*
 * A completion ring (io_uring, libaio) of one thread. In each round the context calls @submit before
 * it may sleep, so that all requests of the round go in one system call, and @poll before any system
 * call of its own. All run in the context's thread. The eventfd or ring fd is registered separately
 * with aio_set_fd_handler() to end a sleep.
 */
typedef struct AioRing {
    bool (*poll)(struct AioRing *ring);   /* reap what is complete; true if any */
    void (*submit)(struct AioRing *ring); /* hand over what is queued */
    bool (*busy)(struct AioRing *ring);   /* requests in flight: sleeping needs the fd */
    struct AioRing *next;                 /* the context's */
} AioRing;
BDRV_API void aio_ring_add(AioContext *ctx, AioRing *ring);
BDRV_API void aio_ring_remove(AioContext *ctx, AioRing *ring);
/**
 * aio_ring_queued() - a request was queued: see to it that @submit is called soon
 * Rounds call @submit anyway; this matters when an embedder that polls aio_context_fd() starts
 * requests between two runs. Nearly free.
 */
BDRV_API void aio_ring_queued(AioContext *ctx);

/**
 * aio_context_data() - storage of a driver for this context, e.g. its ring
 * @key: address that identifies the user
 * @make: called the first time, in this thread; may return NULL (and is then not asked again)
 * @destroy: called when the context goes, in whichever thread drops the last reference
 */
BDRV_API void *aio_context_data(AioContext *ctx, const void *key, void *(*make)(AioContext *ctx),
                                void (*destroy)(void *data));
/** aio_context_data_retry() - ask a @make that returned NULL once more the next time */
BDRV_API void aio_context_data_retry(AioContext *ctx, const void *key);

/**
 * aio_service_context() - a context that always runs, for what a driver does on its own account
 * Others may wait for such work, and the thread whose request caused it may stop running its context.
 * Start it there with co_start(). In a deterministic run: the current context.
 * Any thread. Returns: NULL if there is none and none can be made.
 */
BDRV_API AioContext *aio_service_context(void);

/*
 * Worker pool. I/O jobs (may sleep in the kernel) and CPU jobs (compression, ciphers) are bounded
 * separately. A job must not wait for another job. Threads are started on demand and end when idle.
 */
typedef enum AioWorkKind {
    AIO_WORK_IO,
    AIO_WORK_CPU,
} AioWorkKind;

/**
 * co_run_in_worker() - run @func in a worker thread and wait for it
 * Context: coroutine; yields.
 * Returns: what @func returned; -EAGAIN if no worker exists and none can be started.
 */
BDRV_API int coroutine_fn co_run_in_worker(AioWorkKind kind, int (*func)(void *opaque), void *opaque);

/**
 * aio_set_worker_limits() - at most so many threads of each kind (defaults: 64 I/O, one per processor CPU)
 * For the whole process, at any time, from any thread. 0 counts as 1.
 */
BDRV_API void aio_set_worker_limits(unsigned io, unsigned cpu);

/*
 * Deterministic runs. All contexts made while a simulation is entered live on the calling OS thread:
 * the order of ready coroutines, deferred calls and worker completions, and which context runs next,
 * are drawn from the seed; time is virtual: it creeps by less than 3 us a step, so that timers fire
 * amid other work too, and jumps to the next timer when nothing is ready.
 * Worker jobs run on this thread at a time drawn from the seed.
 */
typedef struct AioSim AioSim; /* a deterministic run; opaque */
BDRV_API AioSim *aio_sim_new(uint64_t seed);
BDRV_API void aio_sim_free(AioSim *sim); /* all its contexts must be gone */
BDRV_API uint64_t aio_sim_random(AioSim *sim); /* a draw from the run's generator */
BDRV_API AioContext *aio_sim_context_new(AioSim *sim); /* NULL beyond AIO_CONTEXT_MAX */

/** aio_sim_trace() - a hash of all that was drawn so far and of what there was to choose from: equal for equal runs */
BDRV_API uint64_t aio_sim_trace(const AioSim *sim);

/** aio_sim_step() - let one context do one thing; false if nothing is ready and no timer is armed */
BDRV_API bool blocking_fn aio_sim_step(AioSim *sim);

/** aio_sim_set_yield_chance() - how often co_maybe_yield() yields in a run: @percent 0 .. 100 (default 0) */
BDRV_API void aio_sim_set_yield_chance(AioSim *sim, unsigned percent);

G_END_DECLS
#endif
