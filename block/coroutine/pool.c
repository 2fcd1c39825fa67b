/* SPDX-License-Identifier: MIT */

/*
 * The slow paths of the pool of unused coroutines. Each thread has its own and is the only one to
 * touch it, so there is no lock; a coroutine goes to the pool of the thread it ended in.
 */

#include "block/coroutine/coroutine_int.h"

/* Unused coroutines that a thread keeps: as many as deep queues need, at most 32 MiB of touched stacks. */
#define CO_POOL_MAX 128

static pthread_key_t pool_key;
static pthread_once_t pool_key_once = PTHREAD_ONCE_INIT;
static bool pool_key_valid;

static Coroutine *pool_take(CoThread *thread)
{
    Coroutine *co = thread->pool;

    thread->pool = co->pool_next;
    thread->pooled--;
    return co;
}

/* A destructor that runs after this one may end coroutines again: the pool is then set up anew. */
static void pool_thread_ends(void *opaque)
{
    CoThread *thread = opaque;

    thread->pool_limit = 0;
    while (thread->pool) {
        co_stack_free(pool_take(thread));
    }
}

static void pool_key_new(void)
{
    pool_key_valid = pthread_key_create(&pool_key, pool_thread_ends) == 0;
}

Coroutine *co_pool_refill(void)
{
    return co_stack_new();
}

/* What runs cannot be unmapped: @co stays, and makes room by freeing an older one. */
void co_pool_overflow(Coroutine *co)
{
    CoThread *thread = &co_thread;

    if (thread->pool_limit == 0) {
        pthread_once(&pool_key_once, pool_key_new);
        /* Without the key only one is kept, and lost when the thread ends. */
        thread->pool_limit = pool_key_valid && pthread_setspecific(pool_key, thread) == 0 ? CO_POOL_MAX : 1;
    }
    if (thread->pooled >= thread->pool_limit) {
        co_stack_free(pool_take(thread));
    }
    co->pool_next = thread->pool;
    thread->pool = co;
    thread->pooled++;
}
