/* SPDX-License-Identifier: MIT */
#ifndef BDRV_COROUTINE_COROUTINE_INT_H
#define BDRV_COROUTINE_COROUTINE_INT_H

/* What the event loop and the parts of the coroutine runtime see of each other. */

#include "block/loop/context.h" /* CoReady, co_resume(), aio_context_make_ready() */
#include "config.h"
#include <bdrv/coroutine.h>
#include <stdatomic.h>
#include <stddef.h>

/* Tests also build the runtime with the debug list. */
#if defined(CONFIG_COROUTINE_DEBUG) && !defined(CO_DEBUG)
#define CO_DEBUG 1
#endif

/*
 * A coroutine lives at the upper end of its own stack mapping:
 *
 *     map                                    stack_top          map + map_bytes
 *     | guard (PROT_NONE) | stack, grows down | colour | Coroutine |
 *
 * so making one is a single mmap() and its hot fields share a TLB entry with its first frames.
 * Fields up to @caller_sp are known to the assembly by their offset.
 */
struct Coroutine {
    CoReady ready;           /* first: co_resume() gets its address */
    void *sp;                /* where it continues; NULL: not yet entered, or never yielded in this life */
    void *caller_sp;         /* where who entered it continues; NULL: it is not running */
    Coroutine *caller;       /* the coroutine that entered it; NULL: the thread itself */
    void *request;           /* the request layer's, see co_set_request() */
    const void *operation;   /* whose work it does, see block/io/operation.h; NULL: nobody waits to hear of it */
    AioContext *_Atomic ctx; /* where it lives; NULL: not yet bound */
    CoroutineEntry *entry;
    void *opaque;
    _Atomic bool scheduled;          /* between a wake and its turn; only to find misuse */
    _Atomic(const char *) waits_for; /* string constant; NULL: it runs or is new */

    void *stack_bottom, *stack_top;
    Coroutine *pool_next;
    void *map;
    size_t map_bytes;
    void *fake_stack;          /* address sanitiser: of this coroutine while it is not running */
    void *caller_fake_stack;   /* ... of who entered it */
    const void *caller_bottom; /* ... whose stack this is */
    size_t caller_bytes;
    void *fiber; /* thread sanitiser */
    void *caller_fiber;
    unsigned valgrind_id;
#ifdef CO_DEBUG
    Coroutine *live_next, **live_prev; /* co_debug_lock */
    uint32_t fp_control;               /* the thread's when it was last entered */
#endif
};

static inline size_t co_stack_bytes(const Coroutine *co)
{
    return (size_t)((char *)co->stack_top - (char *)co->stack_bottom);
}

#define CO_ASM_SP 8 /* offsets that the assembly uses */
#define CO_ASM_CALLER_SP 16
_Static_assert(sizeof(void *) != 8 || offsetof(Coroutine, sp) == CO_ASM_SP, "change the assembly too");
_Static_assert(sizeof(void *) != 8 || offsetof(Coroutine, caller_sp) == CO_ASM_CALLER_SP,
               "change the assembly too");

/*
 * The thread's coroutine state. Compilers may keep the address of a thread-local variable in a
 * register over a call, thus over a switch: that is sound here because a coroutine never moves to
 * another thread once it was entered.
 */
typedef struct CoThread {
    Coroutine *current;          /* NULL: outside of any coroutine */
    Coroutine *pool;             /* unused ones, last in first out */
    unsigned pooled, pool_limit; /* limit 0: the pool is not yet set up */
} CoThread;

extern __thread CoThread co_thread __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* co_self() and co_get_request() for the library's own hot paths */
static inline Coroutine *co_current(void)
{
    return co_thread.current;
}

static inline void *co_current_request(void)
{
    Coroutine *self = co_thread.current;

    return self ? self->request : NULL;
}

static inline const void *co_current_operation(void)
{
    Coroutine *self = co_thread.current;

    return self ? self->operation : NULL;
}

/* In a coroutine. */
static inline void co_set_operation(const void *operation)
{
    co_thread.current->operation = operation;
}

/* co_maybe_yield() for locks: outside of deterministic runs no more than a look at the context */
static inline void coroutine_fn co_maybe_yield_at_lock(void)
{
    AioContext *ctx = atomic_load_explicit(&co_thread.current->ctx, memory_order_relaxed);

    if (__builtin_expect(aio_context_sim(ctx) != NULL, 0)) {
        co_maybe_yield();
    }
}

/* switch-*.S, switch-ucontext.c */

/* co_switch() - leave this stack, storing where to continue in *@save, and continue at @load */
void co_switch(void **save, void *load);

/* co_switch_first() - the same, but to co_main(@co) on the fresh stack that ends below @stack_top */
void co_switch_first(void **save, void *stack_top, Coroutine *co);

/* co_main() - the whole life of a coroutine, on its stack; returns where the caller continues */
void *co_main(Coroutine *co);

/* stack.c */
Coroutine *co_stack_new(void); /* NULL if nothing can be mapped */
void co_stack_free(Coroutine *co);

/* pool.c */
Coroutine *co_pool_refill(void);      /* the pool is empty; NULL if nothing can be mapped */
void co_pool_overflow(Coroutine *co); /* the pool is full or not yet set up; @co may be running */

/* debug.c */
#ifdef CO_DEBUG
void co_debug_add(Coroutine *co);
void co_debug_remove(Coroutine *co);
/* Floating-point control is the thread's, see co_yield(): remember it, and abort if it was changed since. */
void co_debug_entering(Coroutine *co);
void co_debug_leaving(Coroutine *co);
#else
static inline void co_debug_add(Coroutine *co)
{
}

static inline void co_debug_remove(Coroutine *co)
{
}

static inline void co_debug_entering(Coroutine *co)
{
}

static inline void co_debug_leaving(Coroutine *co)
{
}
#endif

/* lock.c: the waiters of a lock, first in first out */
struct CoWaiter {
    Coroutine *co;
    CoWaiter *next;
    enum {
        CO_WAIT_EXCLUSIVE,
        CO_WAIT_SHARED,
    } wants;
    bool woken;   /* by an unlock, but it must still win the lock */
    bool granted; /* the lock is its own */
};

void co_waiters_append(CoWaiter **first, CoWaiter ***last, CoWaiter *waiter);
CoWaiter *co_waiters_take(CoWaiter **first, CoWaiter ***last);

/*
 * co_spin() - wait a moment for a lock whose holder runs elsewhere
 * @state: the lock's state word
 * @held, @waited: bits of it: held by somebody; somebody waits
 * @spin: the lock's own memory of whether spinning has paid off
 * @holder_thread: of the holder, see co_this_thread()
 *
 * Returns: whether the lock was seen free.
 */
bool co_spin(_Atomic uint32_t *state, uint32_t held, uint32_t waited, _Atomic int32_t *spin,
             const void *holder_thread);

/* A number for this thread to compare with; never dereferenced. */
static inline const void *co_this_thread(void)
{
    return &co_thread;
}

/* co_misuse() - a call that can only be a bug of the caller and would corrupt memory if it went on */
_Noreturn void co_misuse(const char *what);

#endif
