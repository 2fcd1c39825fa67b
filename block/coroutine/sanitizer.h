/* SPDX-License-Identifier: MIT */
#ifndef BDRV_COROUTINE_SANITIZER_H
#define BDRV_COROUTINE_SANITIZER_H

/*
 * What the address and thread sanitisers must be told around each switch. Without them all of this
 * is empty, and co_enter() and co_yield() end in a jump to the switch.
 */

#include "block/coroutine/coroutine_int.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CO_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define CO_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define CO_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define CO_TSAN 1
#endif

#ifdef CO_ASAN
void __sanitizer_start_switch_fiber(void **fake_stack_save, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake_stack_save, const void **bottom_old, size_t *size_old);
void __asan_unpoison_memory_region(void const volatile *addr, size_t size);
#endif
#ifdef CO_TSAN
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
#endif

/*
 * For functions that switch: the thread sanitiser keeps a call stack for each fibre, and would take the
 * function's end off the call stack of the other one.
 */
#if defined(CO_TSAN) && defined(__clang__)
/* clang's no_sanitize leaves the calls at a function's begin and end */
#define CO_SWITCHES __attribute__((disable_sanitizer_instrumentation))
#elif defined(CO_TSAN)
#define CO_SWITCHES __attribute__((no_sanitize("thread")))
#else
#define CO_SWITCHES
#endif
#define CO_SWITCH_HOOK static inline CO_SWITCHES __attribute__((always_inline))

static inline void co_sanitizer_map(Coroutine *co)
{
#ifdef CO_ASAN
    __asan_unpoison_memory_region(co->stack_bottom, co_stack_bytes(co));
#endif
#ifdef CO_TSAN
    co->fiber = __tsan_create_fiber(0);
#endif
}

static inline void co_sanitizer_unmap(Coroutine *co)
{
#ifdef CO_ASAN
    __asan_unpoison_memory_region(co->stack_bottom, co_stack_bytes(co));
#endif
#ifdef CO_TSAN
    __tsan_destroy_fiber(co->fiber);
#endif
}

CO_SWITCH_HOOK void co_sanitizer_before_enter(Coroutine *co)
{
#ifdef CO_ASAN
    __sanitizer_start_switch_fiber(&co->caller_fake_stack, co->stack_bottom, co_stack_bytes(co));
#endif
#ifdef CO_TSAN
    co->caller_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(co->fiber, 0);
#endif
}

CO_SWITCH_HOOK void co_sanitizer_after_enter(Coroutine *co)
{
#ifdef CO_ASAN
    __sanitizer_finish_switch_fiber(co->caller_fake_stack, NULL, NULL);
#endif
}

CO_SWITCH_HOOK void co_sanitizer_before_yield(Coroutine *self)
{
#ifdef CO_ASAN
    __sanitizer_start_switch_fiber(&self->fake_stack, self->caller_bottom, self->caller_bytes);
#endif
#ifdef CO_TSAN
    __tsan_switch_to_fiber(self->caller_fiber, 0);
#endif
}

CO_SWITCH_HOOK void co_sanitizer_after_yield(Coroutine *self)
{
#ifdef CO_ASAN
    __sanitizer_finish_switch_fiber(self->fake_stack, &self->caller_bottom, &self->caller_bytes);
#endif
}

CO_SWITCH_HOOK void co_sanitizer_begin(Coroutine *self)
{
#ifdef CO_ASAN
    __sanitizer_finish_switch_fiber(NULL, &self->caller_bottom, &self->caller_bytes);
#endif
}

CO_SWITCH_HOOK void co_sanitizer_end(Coroutine *self)
{
#ifdef CO_ASAN
    __sanitizer_start_switch_fiber(NULL, self->caller_bottom, self->caller_bytes);
#endif
#ifdef CO_TSAN
    __tsan_switch_to_fiber(self->caller_fiber, 0);
#endif
}

#endif
