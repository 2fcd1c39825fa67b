/* SPDX-License-Identifier: MIT */

/*
 * The switch alone, without the runtime and without GLib's library, so that the one for another
 * processor can be run in an emulator. Prints TAP.
 */

#include "block/coroutine/coroutine_int.h"
#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unwind.h>

static Coroutine co; /* here without its place in a mapping */
static _Alignas(64) char stack[256 * 1024];
static void (*body)(void);

static unsigned tests;

static void check(bool good, const char *what)
{
    printf("%s %u %s\n", good ? "ok" : "not ok", ++tests, what);
}

void co_misuse(const char *what)
{
    printf("Bail out! %s\n", what);
    exit(1);
}

void *co_main(Coroutine *self)
{
    body();
    return self->caller_sp;
}

static void start(void (*func)(void))
{
    memset(&co, 0, sizeof(co));
    co.stack_bottom = stack;
    co.stack_top = stack + sizeof(stack);
    body = func;
    co_switch_first(&co.caller_sp, co.stack_top, &co);
}

static void enter(void)
{
    co_switch(&co.caller_sp, co.sp);
}

static void yield(void)
{
    co_switch(&co.sp, co.caller_sp);
}

/* More values than there are registers, integer and floating, live across switches. */
static __attribute__((noinline)) uint64_t mix(uint64_t seed, void (*pause)(void))
{
    uint64_t n[12];
    double x[10];
    uint64_t sum = 0;

    for (unsigned i = 0; i < 12; i++) {
        n[i] = seed * (2 * i + 3);
    }
    for (unsigned i = 0; i < 10; i++) {
        x[i] = (double)seed / (i + 1);
    }
#pragma GCC unroll 100
    for (unsigned round = 0; round < 100; round++) {
        pause();
        for (unsigned i = 0; i < 12; i++) {
            n[i] += n[(i + 1) % 12] ^ round;
        }
        for (unsigned i = 0; i < 10; i++) {
            x[i] = x[i] * 0.75 + x[(i + 1) % 10] * 0.125;
        }
    }
    for (unsigned i = 0; i < 12; i++) {
        sum ^= n[i];
    }
    for (unsigned i = 0; i < 10; i++) {
        sum ^= (uint64_t)(x[i] * 1000);
    }
    return sum;
}

static void pause_not(void)
{
}

static uint64_t inside;

static void mix_body(void)
{
    inside = mix(4711, yield);
}

static void test_registers(void)
{
    uint64_t outside;

    start(mix_body);
    for (unsigned i = 0; i < 50; i++) {
        enter();
    }
    start(mix_body); /* abandons the first */
    outside = mix(42, enter);
    check(outside == mix(42, pause_not), "registers of who enters survive");
    check(inside == mix(4711, pause_not), "registers of the coroutine survive");
}

static bool rounding_good;

static void rounding_body(void)
{
    rounding_good = fegetround() == FE_DOWNWARD;
    fesetround(FE_UPWARD);
    fesetround(FE_DOWNWARD); /* put back before yielding */
    yield();
}

static void test_rounding(void)
{
    bool good;

    fesetround(FE_DOWNWARD);
    start(rounding_body);
    good = fegetround() == FE_DOWNWARD;
    enter();
    good &= fegetround() == FE_DOWNWARD;
    fesetround(FE_TONEAREST);
    check(good && rounding_good, "the rounding mode is the thread's on both sides");
}

static bool aligned;

static void aligned_body(void)
{
    _Alignas(16) volatile char buffer[16];

    buffer[0] = 0;
    aligned = (uintptr_t)buffer % 16 == 0 && (uintptr_t)__builtin_frame_address(0) % 16 == 0;
    (void)buffer[0];
}

static void test_aligned(void)
{
    start(aligned_body);
    check(aligned, "the stack is aligned");
}

#ifndef TEST_UCONTEXT
static bool seen_enterer, seen_body;
static void unwind_body(void);
static void enterer(void);

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context, void *opaque)
{
    uintptr_t function = _Unwind_GetRegionStart(context);

    seen_enterer |= function == (uintptr_t)enterer;
    seen_body |= function == (uintptr_t)unwind_body;
    return _URC_NO_REASON;
}

static __attribute__((noinline)) void unwind_body(void)
{
    _Unwind_Backtrace(on_frame, NULL);
    yield();
    _Unwind_Backtrace(on_frame, NULL);
    __asm__ volatile(""); /* no tail call */
}

static __attribute__((noinline)) void enterer(void)
{
    seen_enterer = seen_body = false;
    start(unwind_body);
    check(seen_enterer && seen_body, "unwinding goes to who entered first");
    seen_enterer = seen_body = false;
    enter();
    check(seen_enterer && seen_body, "unwinding goes to who entered last");
}
#endif

int main(void)
{
    test_registers();
    test_rounding();
    test_aligned();
#ifndef TEST_UCONTEXT
    enterer();
#endif
    printf("1..%u\n", tests);
    return 0;
}
