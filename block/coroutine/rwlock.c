/* SPDX-License-Identifier: MIT */

/*
 * CoRwLock. As long as nobody waits, taking and releasing it are one compare-and-swap each. Once
 * somebody waits everybody queues up, and whoever releases the lock hands it over: to one writer or to
 * all readers up to the next writer. So neither side can starve the other.
 */

#include "block/coroutine/coroutine_int.h"
#include <stdatomic.h>

/* state */
#define WRITER 1u
#define WAITED 2u /* the queue is not empty; changes only with CoRwLock.lock held */
#define READER 4u /* times the number of readers */

void co_rwlock_init(CoRwLock *lock)
{
    atomic_init(&lock->state, 0);
    atomic_init(&lock->spin, 0);
    atomic_init(&lock->holder_thread, NULL);
    pthread_mutex_init(&lock->lock, NULL);
    lock->first = NULL;
    lock->last = &lock->first;
}

void co_rwlock_destroy(CoRwLock *lock)
{
    if (atomic_load_explicit(&lock->state, memory_order_relaxed)) {
        co_misuse("a CoRwLock is destroyed while it is held");
    }
    pthread_mutex_destroy(&lock->lock);
}

static inline void set_writer(CoRwLock *lock, const void *thread)
{
    atomic_store_explicit(&lock->holder_thread, thread, memory_order_relaxed);
}

/* @blocked: bits that must be clear; @added: what to add. */
static inline bool try_acquire(CoRwLock *lock, uint32_t blocked, uint32_t added)
{
    uint32_t state = atomic_load_explicit(&lock->state, memory_order_relaxed);

    while (!(state & blocked)) {
        if (atomic_compare_exchange_weak_explicit(&lock->state, &state, state + added, memory_order_acquire,
                                                  memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

/* With lock->lock held: take the lock, or mark it as waited for so that its holders will look. */
static bool acquire_or_mark(CoRwLock *lock, uint32_t blocked, uint32_t added)
{
    uint32_t state = atomic_load_explicit(&lock->state, memory_order_relaxed);

    for (;;) {
        uint32_t wanted = state & blocked ? state | WAITED : state + added;

        if (atomic_compare_exchange_weak_explicit(&lock->state, &state, wanted, memory_order_acquire,
                                                  memory_order_relaxed)) {
            return !(state & blocked);
        }
    }
}

static coroutine_fn __attribute__((noinline)) void wait_turn(CoRwLock *lock, bool exclusive)
{
    uint32_t blocked = exclusive ? ~0u : WRITER | WAITED;
    uint32_t added = exclusive ? WRITER : READER;
    CoWaiter self = { .co = co_current(), .wants = exclusive ? CO_WAIT_EXCLUSIVE : CO_WAIT_SHARED };

    if (co_spin(&lock->state, WRITER, WAITED, &lock->spin,
                atomic_load_explicit(&lock->holder_thread, memory_order_relaxed)) &&
        try_acquire(lock, blocked, added)) {
        return;
    }
    pthread_mutex_lock(&lock->lock);
    if (acquire_or_mark(lock, blocked, added)) {
        pthread_mutex_unlock(&lock->lock);
        return;
    }
    co_waiters_append(&lock->first, &lock->last, &self);
    pthread_mutex_unlock(&lock->lock);
    co_yield_reason(exclusive ? "a CoRwLock, to write" : "a CoRwLock, to read");

    /* Handed over. Taking lock->lock lets who did so be done with the lock before we may destroy it. */
    pthread_mutex_lock(&lock->lock);
    pthread_mutex_unlock(&lock->lock);
}

void coroutine_fn co_rwlock_rdlock(CoRwLock *lock)
{
    co_maybe_yield_at_lock();
    if (!try_acquire(lock, WRITER | WAITED, READER)) {
        wait_turn(lock, false);
    }
}

void coroutine_fn co_rwlock_wrlock(CoRwLock *lock)
{
    co_maybe_yield_at_lock();
    if (!try_acquire(lock, ~0u, WRITER)) {
        wait_turn(lock, true);
    }
    set_writer(lock, co_this_thread());
}

/*
 * With lock->lock held: hand a lock that is free, or held by readers only, to those whose turn it is.
 * Returns: them, linked by next; to be woken once lock->lock is released.
 */
static CoWaiter *hand_over(CoRwLock *lock)
{
    CoWaiter *granted = NULL, **end = &granted;
    uint32_t held = atomic_load_explicit(&lock->state, memory_order_relaxed) & ~WAITED;
    uint32_t before = held;

    while (lock->first) {
        bool exclusive = lock->first->wants == CO_WAIT_EXCLUSIVE;

        if (held & WRITER || (exclusive && held)) {
            break;
        }
        held += exclusive ? WRITER : READER;
        *end = co_waiters_take(&lock->first, &lock->last);
        end = &(*end)->next;
        *end = NULL;
    }
    atomic_fetch_add_explicit(&lock->state, held - before - (lock->first ? 0 : WAITED), memory_order_release);
    return granted;
}

/* A waiter may be gone as soon as it is woken. */
static void wake_granted(CoWaiter *granted)
{
    while (granted) {
        CoWaiter *next = granted->next;

        co_wake(granted->co);
        granted = next;
    }
}

/* Take @removed off the state and add @added: at once if nobody waits, else with a hand-over. */
static void release(CoRwLock *lock, uint32_t removed, uint32_t added)
{
    uint32_t state = atomic_load_explicit(&lock->state, memory_order_relaxed);
    CoWaiter *granted;

    while (!(state & WAITED)) {
        if (atomic_compare_exchange_weak_explicit(&lock->state, &state, state - removed + added,
                                                  memory_order_release, memory_order_relaxed)) {
            return;
        }
    }
    pthread_mutex_lock(&lock->lock);
    atomic_fetch_add_explicit(&lock->state, added - removed, memory_order_acq_rel);
    granted = hand_over(lock);
    pthread_mutex_unlock(&lock->lock);
    wake_granted(granted);
}

void coroutine_fn co_rwlock_downgrade(CoRwLock *lock)
{
    if (!(atomic_load_explicit(&lock->state, memory_order_relaxed) & WRITER)) {
        co_misuse("a CoRwLock is downgraded that is not held to write");
    }
    set_writer(lock, NULL);
    release(lock, WRITER, READER);
}

void coroutine_fn co_rwlock_unlock(CoRwLock *lock)
{
    uint32_t state = atomic_load_explicit(&lock->state, memory_order_relaxed);

    if (!(state & ~WAITED)) {
        co_misuse("a CoRwLock is unlocked that nobody holds");
    }
    release(lock, state & WRITER ? WRITER : READER, 0);
    co_maybe_yield_at_lock(); /* the lock may be gone */
}
