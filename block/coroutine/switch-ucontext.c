/* SPDX-License-Identifier: MIT */

/*
 * The switch for any system with ucontext(3). Slow, because each switch also sets the signal mask.
 * A suspended stack is known by the address of the ucontext_t on it.
 */

#include "block/coroutine/sanitizer.h"
#include <ucontext.h>

CO_SWITCHES void co_switch(void **save, void *load)
{
    ucontext_t here;

    here.uc_stack = (stack_t){ 0 }; /* the address sanitiser looks */
    *save = &here;
    if (swapcontext(&here, load) < 0) {
        co_misuse("swapcontext failed");
    }
}

/* makecontext() passes ints only. */
static CO_SWITCHES void co_base(unsigned high, unsigned low)
{
    Coroutine *co = (Coroutine *)(uintptr_t)((uint64_t)high << 32 | low);

    setcontext(co_main(co));
    co_misuse("setcontext failed");
}

CO_SWITCHES void co_switch_first(void **save, void *stack_top, Coroutine *co)
{
    ucontext_t here, start;
    uint64_t address = (uintptr_t)co;

    here.uc_stack = (stack_t){ 0 };
    *save = &here;
    if (getcontext(&start) < 0) {
        co_misuse("getcontext failed");
    }
    start.uc_stack.ss_sp = co->stack_bottom;
    start.uc_stack.ss_size = co_stack_bytes(co);
    start.uc_link = NULL;
    makecontext(&start, (void (*)(void))co_base, 2, (unsigned)(address >> 32), (unsigned)address);
    if (swapcontext(&here, &start) < 0) {
        co_misuse("swapcontext failed");
    }
}
