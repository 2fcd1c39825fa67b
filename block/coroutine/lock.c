/* SPDX-License-Identifier: MIT */

/*
 * CoMutex, and what it shares with CoRwLock.
 *
 * Uncontended, locking and unlocking are one compare-and-swap each. A waiter queues up and yields. An
 * unlock with waiters frees the mutex and wakes the first of them, which stays first in the queue and
 * must win the mutex when its turn comes: meanwhile newcomers may take it ("barging"), which keeps the
 * mutex busy instead of idle for the length of a wake-up. Each unlock that finds the waiter still on
 * its way is counted; after CO_MUTEX_BARGE_MAX of them the mutex is handed over instead of freed.
 *
 * Lock order: CoMutex.lock is innermost; nothing is called with it held.
 */

#include "block/coroutine/coroutine_int.h"
#include <stdatomic.h>

/* state */
#define LOCKED 1u
#define WAITED 2u /* the queue is not empty; changes only with CoMutex.lock held */

#define CO_MUTEX_BARGE_MAX 16

/* Longest spin, in pauses: about a microsecond, the cost of going to sleep and being woken. */
#define CO_SPIN_MAX 64
/* After so many fruitless spins in a row a lock is taken for one that is held over I/O ... */
#define CO_SPIN_GIVE_UP 8
/* ... and is tried again only after so many more contentions. */
#define CO_SPIN_RETRY 256

void co_waiters_append(CoWaiter **first, CoWaiter ***last, CoWaiter *waiter)
{
    waiter->next = NULL;
    if (!*first) {
        *last = first;
    }
    **last = waiter;
    *last = &waiter->next;
}

CoWaiter *co_waiters_take(CoWaiter **first, CoWaiter ***last)
{
    CoWaiter *waiter = *first;

    if (waiter) {
        *first = waiter->next;
        if (!*first) {
            *last = first;
        }
    }
    return waiter;
}

static inline void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/*
 * Whether the holder runs or has yielded is not known here, since its memory may be gone at any moment.
 * What is known: on this thread it cannot be running. Elsewhere the lock's history decides: @spin counts
 * fruitless spins in a row, and from CO_SPIN_GIVE_UP on the contentions that were not spun for.
 * Lost updates of the count do no harm.
 */
bool co_spin(_Atomic uint32_t *state, uint32_t held, uint32_t waited, _Atomic int32_t *spin,
             const void *holder_thread)
{
    int32_t fruitless = atomic_load_explicit(spin, memory_order_relaxed);

    if (!holder_thread || holder_thread == co_this_thread()) {
        return false;
    }
    if (fruitless >= CO_SPIN_GIVE_UP) {
        fruitless = fruitless < CO_SPIN_RETRY ? fruitless + 1 : CO_SPIN_GIVE_UP - 1;
        atomic_store_explicit(spin, fruitless, memory_order_relaxed);
        return false;
    }
    for (unsigned i = 0; i < CO_SPIN_MAX; i++) {
        uint32_t now = atomic_load_explicit(state, memory_order_relaxed);

        if (now & waited) {
            return false; /* queue up behind them */
        }
        if (!(now & held)) {
            atomic_store_explicit(spin, 0, memory_order_relaxed);
            return true;
        }
        cpu_pause();
    }
    atomic_store_explicit(spin, fruitless + 1, memory_order_relaxed);
    return false;
}

void co_mutex_init(CoMutex *mutex)
{
    atomic_init(&mutex->state, 0);
    atomic_init(&mutex->holder_thread, NULL);
    atomic_init(&mutex->spin, 0);
    mutex->barged = 0;
    pthread_mutex_init(&mutex->lock, NULL);
    mutex->first = NULL;
    mutex->last = &mutex->first;
}

void co_mutex_destroy(CoMutex *mutex)
{
    if (atomic_load_explicit(&mutex->state, memory_order_relaxed)) {
        co_misuse("a CoMutex is destroyed while it is held");
    }
    pthread_mutex_destroy(&mutex->lock);
}

static inline void set_holder(CoMutex *mutex)
{
    atomic_store_explicit(&mutex->holder_thread, co_this_thread(), memory_order_relaxed);
}

/* Take the mutex if nobody holds it, waited for or not. */
static inline bool try_acquire(CoMutex *mutex)
{
    uint32_t state = atomic_load_explicit(&mutex->state, memory_order_relaxed);

    while (!(state & LOCKED)) {
        if (atomic_compare_exchange_weak_explicit(&mutex->state, &state, state | LOCKED, memory_order_acquire,
                                                  memory_order_relaxed)) {
            set_holder(mutex);
            return true;
        }
    }
    return false;
}

/* With mutex->lock held: take the mutex, or mark it as waited for so that its holder will look. */
static bool acquire_or_mark(CoMutex *mutex)
{
    uint32_t state = atomic_load_explicit(&mutex->state, memory_order_relaxed);

    for (;;) {
        uint32_t wanted = state & LOCKED ? state | WAITED : state | LOCKED;

        if (atomic_compare_exchange_weak_explicit(&mutex->state, &state, wanted, memory_order_acquire,
                                                  memory_order_relaxed)) {
            return !(state & LOCKED);
        }
    }
}

/* With mutex->lock held: the first waiter leaves the queue and has the mutex. */
static CoWaiter *take_first(CoMutex *mutex)
{
    CoWaiter *waiter = co_waiters_take(&mutex->first, &mutex->last);

    if (!mutex->first) {
        atomic_fetch_and_explicit(&mutex->state, ~WAITED, memory_order_relaxed);
    }
    mutex->barged = 0;
    return waiter;
}

static coroutine_fn __attribute__((noinline)) void lock_contended(CoMutex *mutex)
{
    CoWaiter self = { .co = co_current() };

    if (co_spin(&mutex->state, LOCKED, WAITED, &mutex->spin,
                atomic_load_explicit(&mutex->holder_thread, memory_order_relaxed)) &&
        try_acquire(mutex)) {
        return;
    }
    pthread_mutex_lock(&mutex->lock);
    if (acquire_or_mark(mutex)) {
        pthread_mutex_unlock(&mutex->lock);
        set_holder(mutex);
        return;
    }
    co_waiters_append(&mutex->first, &mutex->last, &self);
    for (;;) {
        pthread_mutex_unlock(&mutex->lock);
        co_yield_reason("a CoMutex");
        pthread_mutex_lock(&mutex->lock);
        if (self.granted) {
            break;
        }
        /* Only the first is woken without being granted, and it stays the first. */
        self.woken = false;
        if (acquire_or_mark(mutex)) {
            take_first(mutex);
            break;
        }
    }
    pthread_mutex_unlock(&mutex->lock);
    set_holder(mutex);
}

void coroutine_fn co_mutex_lock(CoMutex *mutex)
{
    uint32_t free_state = 0;

    co_maybe_yield_at_lock();
    if (atomic_compare_exchange_strong_explicit(&mutex->state, &free_state, LOCKED, memory_order_acquire,
                                                memory_order_relaxed)) {
        set_holder(mutex);
        return;
    }
    if (!try_acquire(mutex)) {
        lock_contended(mutex);
    }
}

bool coroutine_fn co_mutex_trylock(CoMutex *mutex)
{
    return try_acquire(mutex);
}

/*
 * The queue cannot be empty here: who holds the mutex saw WAITED, and a waiter leaves the queue only by
 * getting the mutex. So there is always somebody after us who keeps the mutex from being destroyed
 * until mutex->lock is released.
 */
static __attribute__((noinline)) void unlock_waited(CoMutex *mutex)
{
    CoWaiter *waiter;
    Coroutine *wake = NULL;

    pthread_mutex_lock(&mutex->lock);
    waiter = mutex->first;
    if (!waiter->woken) {
        wake = waiter->co;
    }
    if (mutex->barged >= CO_MUTEX_BARGE_MAX) {
        take_first(mutex);
        waiter->granted = true;
        atomic_store_explicit(&mutex->holder_thread, NULL, memory_order_relaxed); /* known once it runs */
    } else {
        mutex->barged++;
        waiter->woken = true;
        atomic_fetch_and_explicit(&mutex->state, ~LOCKED, memory_order_release);
    }
    pthread_mutex_unlock(&mutex->lock);
    if (wake) {
        co_wake(wake);
    }
}

void coroutine_fn co_mutex_unlock(CoMutex *mutex)
{
    uint32_t state = LOCKED;

    if (!atomic_compare_exchange_strong_explicit(&mutex->state, &state, 0, memory_order_release,
                                                 memory_order_relaxed)) {
        if (!(state & LOCKED)) {
            co_misuse("a CoMutex is unlocked that nobody holds");
        }
        unlock_waited(mutex);
    }
    co_maybe_yield_at_lock(); /* the mutex may be gone */
}
