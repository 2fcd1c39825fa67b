/* SPDX-License-Identifier: MIT */

/* co_dump(), and the list behind it. */

#include "block/coroutine/coroutine_int.h"
#include <dlfcn.h>
#include <fenv.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

void co_misuse(const char *what)
{
    fprintf(stderr, "libbdrv: coroutine misused: %s\n", what);
    abort();
}

#ifdef CO_DEBUG

/* All live coroutines of the process, oldest last. */
static pthread_mutex_t co_debug_lock = PTHREAD_MUTEX_INITIALIZER;
static Coroutine *live_first; /* co_debug_lock */

void co_debug_add(Coroutine *co)
{
    pthread_mutex_lock(&co_debug_lock);
    co->live_next = live_first;
    co->live_prev = &live_first;
    if (live_first) {
        live_first->live_prev = &co->live_next;
    }
    live_first = co;
    pthread_mutex_unlock(&co_debug_lock);
}

void co_debug_remove(Coroutine *co)
{
    pthread_mutex_lock(&co_debug_lock);
    *co->live_prev = co->live_next;
    if (co->live_next) {
        co->live_next->live_prev = co->live_prev;
    }
    pthread_mutex_unlock(&co_debug_lock);
}

/* Rounding, precision, exception masks, flush to zero: not the flags of past exceptions, which anybody may raise. */
static uint32_t fp_control(void)
{
#if defined(__x86_64__)
    uint32_t mxcsr;
    uint16_t x87;

    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(x87));
    return (mxcsr & 0xffc0) | (uint32_t)x87 << 16;
#elif defined(__aarch64__)
    uint64_t fpcr;

    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return (uint32_t)fpcr;
#else
    return (uint32_t)fegetround();
#endif
}

void co_debug_entering(Coroutine *co)
{
    co->fp_control = fp_control();
}

void co_debug_leaving(Coroutine *co)
{
    if (co->fp_control != fp_control()) {
        co_misuse("it yields or ends with another floating-point control state than it was entered with");
    }
}

static void describe(GString *text, Coroutine *co)
{
    const char *waits_for = atomic_load_explicit(&co->waits_for, memory_order_relaxed);
    AioContext *ctx = atomic_load_explicit(&co->ctx, memory_order_relaxed);
    Dl_info info;

    g_string_append_printf(text, "%p: ", (void *)co);
    if (dladdr((void *)co->entry, &info) && info.dli_sname) {
        g_string_append_printf(text, "%s(%p)", info.dli_sname, co->opaque);
    } else {
        g_string_append_printf(text, "%p(%p)", (void *)co->entry, co->opaque);
    }
    if (!ctx) {
        g_string_append(text, ", not started\n");
        return;
    }
    g_string_append_printf(text, " in context %p, ", (void *)ctx);
    if (waits_for) {
        g_string_append_printf(text, "waits for %s%s\n", waits_for,
                               atomic_load_explicit(&co->scheduled, memory_order_relaxed) ? ", woken" : "");
    } else {
        g_string_append(text, "runs\n");
    }
}

char *co_dump(void)
{
    GString *text = g_string_new(NULL);

    pthread_mutex_lock(&co_debug_lock);
    for (Coroutine *co = live_first; co; co = co->live_next) {
        describe(text, co);
    }
    pthread_mutex_unlock(&co_debug_lock);
    return g_string_free(text, FALSE);
}

#else

char *co_dump(void)
{
    return g_strdup("live coroutines are listed only by builds with -Dcoroutine_debug=true\n");
}

#endif
