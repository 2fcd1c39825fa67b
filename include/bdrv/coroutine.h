/* SPDX-License-Identifier: MIT */
#ifndef BDRV_COROUTINE_H
#define BDRV_COROUTINE_H

/*
 * Stackful coroutines. A coroutine lives and dies in the AioContext it was first entered in; waking
 * it from elsewhere is a deferred call there, so a wake-up can come before the yield it answers and
 * is never lost. Yielding gives control back to whoever entered: normally the context's run loop.
 *
 * Calls that could only corrupt memory (waking twice for one yield, entering what runs, yielding
 * outside of a coroutine, freeing a lock that is held) abort with a message.
 */

#include <bdrv/aio.h>
#include <pthread.h>

G_BEGIN_DECLS

/* A thread of control with a stack of its own; opaque. */
typedef struct Coroutine Coroutine;
/* What a coroutine runs: it ends when this returns. */
typedef void CoroutineEntry(void *opaque);

/**
 * co_new() - a coroutine that will run @entry(@opaque)
 * Taken from the calling thread's pool. It starts with co_enter() or co_wake() and is recycled when
 * @entry returns. Aborts if a stack cannot be mapped; co_try_new() returns NULL instead.
 */
BDRV_API Coroutine *co_new(CoroutineEntry *entry, void *opaque);
BDRV_API Coroutine *co_try_new(CoroutineEntry *entry, void *opaque);

/**
 * co_enter() - run @co now, in this thread, until it yields or ends
 * For starting a new coroutine, or one that has yielded and that nobody else will wake. From inside
 * a coroutine it nests at most once a level; prefer co_wake().
 */
BDRV_API void co_enter(Coroutine *co);

/**
 * co_wake() - make @co continue from its co_yield()
 * From its own thread: it is put on the ready list and runs when the current coroutine yields
 * (never nested). From another thread: a deferred call to its context. A started coroutine that has
 * not yielded yet continues right after it does. One wake for one yield. Any thread.
 * A new coroutine may be started by co_wake() in the calling thread's context.
 */
BDRV_API void co_wake(Coroutine *co);

/** co_start() - start a new coroutine in @ctx, which may be another thread's. Any thread. */
BDRV_API void co_start(AioContext *ctx, Coroutine *co);

/**
 * co_yield() - give control back until woken (or entered) again
 * The floating-point control state (rounding, exception masks, flush to zero) belongs to the thread: a
 * coroutine finds what the thread has, and whoever changes it puts it back before yielding. Built with
 * coroutine_debug, one that does not aborts.
 */
BDRV_API void coroutine_fn co_yield(void);

/** co_yield_reason() - yield, and say to the debug list what is waited for (a string constant) */
BDRV_API void coroutine_fn co_yield_reason(const char *reason);

BDRV_API Coroutine *co_self(void); /* NULL outside of a coroutine */
BDRV_API bool co_in_coroutine(void); /* whether co_self() is not NULL */

/** co_context() - the context @co lives in */
BDRV_API AioContext *co_context(Coroutine *co);

/** co_reschedule() - go to the end of the ready list once */
BDRV_API void coroutine_fn co_reschedule(void);

/** co_maybe_yield() - in a deterministic run reschedule at the run's chance; otherwise do nothing */
BDRV_API void coroutine_fn co_maybe_yield(void);

/** co_sleep_until() - yield until the context's clock reaches @deadline_ns */
BDRV_API void coroutine_fn co_sleep_until(int64_t deadline_ns);

/*
 * One pointer per running coroutine for the request layer: the gate slot that the request entered
 * through. Set when a request begins, cleared when it ends.
 */
BDRV_API void *co_get_request(void); /* NULL outside of a coroutine */
BDRV_API void co_set_request(void *request);

/**
 * co_dump() - text of all live coroutines of the process: entry, context, what each waits for
 * Complete only in builds with -Dcoroutine_debug=true. Caller frees.
 */
BDRV_API char *co_dump(void);

/** co_run_blocking() - run @entry(@opaque) in a coroutine, running this thread's context until it ends
 * Returns: 0; -EDEADLK from a coroutine or a callback, and in a deterministic run in which nothing
 * is left to do before @entry has returned; -ENOMEM without memory for a stack or the thread's context.
 */
BDRV_API int blocking_fn co_run_blocking(CoroutineEntry *entry, void *opaque);

/*
 * Locks over I/O. Holders may yield and belong to any thread. A CoMutex spins briefly if its holder
 * runs elsewhere, lets newcomers barge in a bounded number of times, then hands over in order.
 * For locks that are never held over a yield use pthread_mutex_t.
 */
typedef struct CoWaiter CoWaiter; /* one that waits; opaque */

/* All fields are private. Not to be moved or copied once somebody may wait. */
typedef struct CoMutex {
    BDRV_ATOMIC(uint32_t) state;
    uint32_t barged;                 /* times that newcomers went before the first waiter; lock */
    BDRV_ATOMIC(const void *) holder_thread; /* only compared */
    BDRV_ATOMIC(int32_t) spin;            /* how much spinning has paid off */
    pthread_mutex_t lock;            /* of the queue; taken only if somebody waits */
    CoWaiter *first, **last;         /* lock */
} CoMutex;

/** co_mutex_init() - free; co_mutex_destroy() when nobody uses it any more */
BDRV_API void co_mutex_init(CoMutex *mutex);
BDRV_API void co_mutex_destroy(CoMutex *mutex); /* must be free */
BDRV_API void coroutine_fn co_mutex_lock(CoMutex *mutex);
BDRV_API bool coroutine_fn co_mutex_trylock(CoMutex *mutex);
BDRV_API void coroutine_fn co_mutex_unlock(CoMutex *mutex);

/* Writers are not starved by readers, nor readers by writers: FIFO once somebody waits. */
typedef struct CoRwLock {
    BDRV_ATOMIC(uint32_t) state;
    BDRV_ATOMIC(int32_t) spin;
    BDRV_ATOMIC(const void *) holder_thread; /* of the writer */
    pthread_mutex_t lock;              /* of the queue; taken only if somebody waits */
    CoWaiter *first, **last;           /* lock */
} CoRwLock;

/** co_rwlock_init() - free; co_rwlock_destroy() when nobody uses it any more
 * co_rwlock_rdlock() / co_rwlock_wrlock() - with other readers, or alone */
BDRV_API void co_rwlock_init(CoRwLock *lock);
BDRV_API void co_rwlock_destroy(CoRwLock *lock);
BDRV_API void coroutine_fn co_rwlock_rdlock(CoRwLock *lock);
BDRV_API void coroutine_fn co_rwlock_wrlock(CoRwLock *lock);
BDRV_API void coroutine_fn co_rwlock_downgrade(CoRwLock *lock); /* writer becomes reader */
BDRV_API void coroutine_fn co_rwlock_unlock(CoRwLock *lock);

/* A FIFO of waiting coroutines, protected by a pthread mutex of the user. */
typedef struct CoQueue {
    CoWaiter *first, **last;
} CoQueue;

/** co_queue_init() - nobody waits */
BDRV_API void co_queue_init(CoQueue *queue);
/** co_queue_wait() - unlock @mutex, yield until woken, lock @mutex again. Always re-check the condition. */
BDRV_API void coroutine_fn co_queue_wait(CoQueue *queue, pthread_mutex_t *mutex);
BDRV_API bool co_queue_wake_one(CoQueue *queue); /* with the mutex held; whether anybody waited */
BDRV_API void co_queue_wake_all(CoQueue *queue);
BDRV_API bool co_queue_empty(const CoQueue *queue);

/*
 * A lock of byte ranges over I/O: ranges that overlap are held together if all want to share, else one
 * after the other, in the order in which they were asked for.
 */
typedef struct CoRange CoRange;
typedef struct CoRangeLock {
    pthread_mutex_t lock;
    CoRange *newest; /* who holds or waits; lock */
    CoQueue waiters; /* lock */
} CoRangeLock;

/* One holder; lives on its stack until it has unlocked. All fields are private. */
struct CoRange {
    CoRange *next, **link; /* older ones; lock */
    int64_t offset, end;
    bool alone;
};

/** co_range_lock_init() - no range is held */
BDRV_API void co_range_lock_init(CoRangeLock *lock);
BDRV_API void co_range_lock_destroy(CoRangeLock *lock); /* nobody holds or waits */
/** co_range_lock() - wait for the bytes @offset .. @end - 1; @alone: nobody else may hold any of them */
BDRV_API void coroutine_fn co_range_lock(CoRangeLock *lock, CoRange *range, int64_t offset, int64_t end, bool alone);
BDRV_API void co_range_unlock(CoRangeLock *lock, CoRange *range);

G_END_DECLS
#endif
