/* SPDX-License-Identifier: MIT */

/* CoQueue: a condition variable of coroutines. Everything is protected by the user's mutex. */

#include "block/coroutine/coroutine_int.h"

void co_queue_init(CoQueue *queue)
{
    queue->first = NULL;
    queue->last = &queue->first;
}

void coroutine_fn co_queue_wait(CoQueue *queue, pthread_mutex_t *mutex)
{
    CoWaiter self = { .co = co_current() };

    co_waiters_append(&queue->first, &queue->last, &self);
    pthread_mutex_unlock(mutex);
    co_yield_reason("a CoQueue");
    pthread_mutex_lock(mutex);
}

bool co_queue_wake_one(CoQueue *queue)
{
    CoWaiter *waiter = co_waiters_take(&queue->first, &queue->last);

    if (!waiter) {
        return false;
    }
    co_wake(waiter->co);
    return true;
}

void co_queue_wake_all(CoQueue *queue)
{
    while (co_queue_wake_one(queue)) {
    }
}

bool co_queue_empty(const CoQueue *queue)
{
    return !queue->first;
}
