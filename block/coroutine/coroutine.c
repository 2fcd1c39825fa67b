/* SPDX-License-Identifier: MIT */

/*
 * The life of a coroutine: taken from the pool (co_new), entered (co_enter, co_resume), yielding,
 * woken, and back in the pool when its entry function returns (co_main).
 *
 * A wake-up never runs anything: it links the coroutine into the ready list of its context, and the
 * context's loop calls co_resume() outside of any coroutine. So wake-ups do not nest, and one that
 * comes before the yield it answers waits in the list until the coroutine has left its stack.
 *
 * co_enter() and co_yield() do all their work before the switch, so that both end in a tail call to
 * it, which returns straight to the caller of the other.
 */

#include "block/coroutine/sanitizer.h"
#include <errno.h>
#include <stdatomic.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

__thread CoThread co_thread __attribute__((tls_model("initial-exec"), visibility("hidden")));

Coroutine *co_try_new(CoroutineEntry *entry, void *opaque)
{
    CoThread *thread = &co_thread;
    Coroutine *co = thread->pool;

    if (likely(co)) {
        thread->pool = co->pool_next;
        thread->pooled--;
    } else {
        co = co_pool_refill();
        if (!co) {
            return NULL;
        }
    }
    co->sp = NULL;
    co->request = NULL;
    co->operation = NULL;
    co->entry = entry;
    co->opaque = opaque;
    atomic_store_explicit(&co->ctx, NULL, memory_order_relaxed);
    atomic_store_explicit(&co->waits_for, NULL, memory_order_relaxed);
    co_debug_add(co);
    return co;
}

Coroutine *co_new(CoroutineEntry *entry, void *opaque)
{
    Coroutine *co = co_try_new(entry, opaque);

    if (unlikely(!co)) {
        co_misuse("no memory for a stack; co_try_new() would have said so");
    }
    return co;
}

static inline AioContext *context_of(Coroutine *co)
{
    return atomic_load_explicit(&co->ctx, memory_order_relaxed);
}

/* On the coroutine's own stack. The pool is this thread's, so nobody takes the stack before it is left. */
CO_SWITCHES void *co_main(Coroutine *self)
{
    CoThread *thread = &co_thread;
    void *caller_sp;

    co_sanitizer_begin(self);
    self->entry(self->opaque);

    if (unlikely(atomic_load_explicit(&self->scheduled, memory_order_relaxed))) {
        co_misuse("it ended with a wake-up pending: one wake for one yield");
    }
    co_debug_leaving(self);
    co_debug_remove(self);
    aio_context_count_coroutine(context_of(self), -1);
    caller_sp = self->caller_sp;
    thread->current = self->caller;
    self->caller_sp = NULL;
    if (likely(thread->pooled < thread->pool_limit)) {
        self->pool_next = thread->pool;
        thread->pool = self;
        thread->pooled++;
    } else {
        co_pool_overflow(self);
    }
    co_sanitizer_end(self);
    return caller_sp;
}

/* The first time: binds the coroutine to the thread's context. */
static CO_SWITCHES __attribute__((noinline)) void enter_new(Coroutine *co)
{
    if (!context_of(co)) {
        AioContext *ctx = aio_context_current_or_null();

        atomic_store_explicit(&co->ctx, likely(ctx) ? ctx : aio_context_current(), memory_order_relaxed);
    }
    aio_context_count_coroutine(context_of(co), 1);
    co->caller = co_thread.current;
    co_thread.current = co;
    co_debug_entering(co);
    co_sanitizer_before_enter(co);
    co_switch_first(&co->caller_sp, co->stack_top, co);
    co_sanitizer_after_enter(co);
}

CO_SWITCHES void co_enter(Coroutine *co)
{
    if (unlikely(co->caller_sp)) {
        co_misuse("entered while it runs");
    }
    if (unlikely(!co->sp)) {
        enter_new(co);
        return;
    }
    co->caller = co_thread.current;
    co_thread.current = co;
    co_debug_entering(co);
    co_sanitizer_before_enter(co);
    co_switch(&co->caller_sp, co->sp);
    co_sanitizer_after_enter(co);
}

void co_resume(CoReady *ready)
{
    Coroutine *co = (Coroutine *)ready;

    atomic_store_explicit(&co->scheduled, false, memory_order_relaxed);
    co_enter(co);
}

static inline CO_SWITCHES void coroutine_fn yield_for(const char *reason)
{
    Coroutine *self = co_thread.current;
    void *caller_sp;

    if (unlikely(!self)) {
        co_misuse("yield outside of a coroutine");
    }
    co_debug_leaving(self);
    atomic_store_explicit(&self->waits_for, reason, memory_order_relaxed);
    caller_sp = self->caller_sp;
    self->caller_sp = NULL;
    co_thread.current = self->caller;
    co_sanitizer_before_yield(self);
    co_switch(&self->sp, caller_sp);
    co_sanitizer_after_yield(self);
}

CO_SWITCHES void coroutine_fn co_yield(void)
{
    yield_for("a wake-up");
}

CO_SWITCHES void coroutine_fn co_yield_reason(const char *reason)
{
    yield_for(reason);
}

/*
 * Who wakes twice would link the coroutine twice. Two threads that do so at the same moment are not
 * noticed: that would take an atomic exchange in each wake-up.
 */
static void make_ready(AioContext *ctx, Coroutine *co)
{
    if (unlikely(atomic_load_explicit(&co->scheduled, memory_order_relaxed))) {
        co_misuse("woken twice");
    }
    atomic_store_explicit(&co->scheduled, true, memory_order_relaxed);
    aio_context_make_ready(ctx, &co->ready);
}

void co_wake(Coroutine *co)
{
    AioContext *ctx = context_of(co);

    if (unlikely(!ctx)) {
        ctx = aio_context_current();
        atomic_store_explicit(&co->ctx, ctx, memory_order_relaxed);
    }
    make_ready(ctx, co);
}

void co_start(AioContext *ctx, Coroutine *co)
{
    if (unlikely(context_of(co))) {
        co_misuse("started twice");
    }
    atomic_store_explicit(&co->ctx, ctx, memory_order_relaxed);
    make_ready(ctx, co);
}

Coroutine *co_self(void)
{
    return co_current();
}

bool co_in_coroutine(void)
{
    return co_current() != NULL;
}

AioContext *co_context(Coroutine *co)
{
    return context_of(co);
}

void *co_get_request(void)
{
    return co_current_request();
}

void co_set_request(void *request)
{
    co_thread.current->request = request;
}
