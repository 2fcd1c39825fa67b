/* SPDX-License-Identifier: MIT */

/*
 * CoRangeLock: a read-write lock for each byte of an address space, taken for ranges. All who hold or
 * wait are in one list, newest first; one waits while an older one overlaps and either wants to be
 * alone. Waiting only for older ones, nobody waits in a circle and nobody starves.
 */

#include "block/coroutine/coroutine_int.h"

void co_range_lock_init(CoRangeLock *lock)
{
    pthread_mutex_init(&lock->lock, NULL);
    lock->newest = NULL;
    co_queue_init(&lock->waiters);
}

void co_range_lock_destroy(CoRangeLock *lock)
{
    pthread_mutex_destroy(&lock->lock);
}

static bool must_wait_locked(const CoRange *range)
{
    for (const CoRange *older = range->next; older; older = older->next) {
        if ((range->alone || older->alone) && older->offset < range->end && range->offset < older->end) {
            return true;
        }
    }
    return false;
}

void coroutine_fn co_range_lock(CoRangeLock *lock, CoRange *range, int64_t offset, int64_t end, bool alone)
{
    range->offset = offset;
    range->end = end;
    range->alone = alone;

    pthread_mutex_lock(&lock->lock);
    range->next = lock->newest;
    range->link = &lock->newest;
    if (range->next) {
        range->next->link = &range->next;
    }
    lock->newest = range;
    while (must_wait_locked(range)) {
        co_queue_wait(&lock->waiters, &lock->lock);
    }
    pthread_mutex_unlock(&lock->lock);
}

void co_range_unlock(CoRangeLock *lock, CoRange *range)
{
    pthread_mutex_lock(&lock->lock);
    *range->link = range->next;
    if (range->next) {
        range->next->link = range->link;
    }
    co_queue_wake_all(&lock->waiters);
    pthread_mutex_unlock(&lock->lock);
}
