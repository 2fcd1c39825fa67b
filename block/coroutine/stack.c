/* SPDX-License-Identifier: MIT */

/* Guarded, mapped stacks. Sources: mmap(2), the valgrind manual (client requests). */

#include "block/coroutine/sanitizer.h"
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef CONFIG_VALGRIND_H
#include <valgrind/valgrind.h>
#endif

/* Usable bytes of a stack, with the Coroutine at its end. Only touched pages cost memory. */
#if defined(CO_ASAN) || defined(CO_TSAN)
#define CO_STACK_BYTES ((size_t)1024 * 1024) /* instrumented frames are several times larger */
#else
#define CO_STACK_BYTES ((size_t)256 * 1024)
#endif

/*
 * More than one page, so that no frame with a usual buffer steps over it; an odd number of pages, so
 * that stacks mapped one after the other fall in different sets of the second-level cache.
 */
#define CO_GUARD_PAGES 17

/*
 * Stacks also start at different distances from a page boundary: otherwise the hot first frames of all
 * coroutines share the same few sets of the first-level cache.
 */
#define CO_COLOURS 32
#define CO_COLOUR_BYTES 128

static size_t round_up(size_t bytes, size_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

Coroutine *co_stack_new(void)
{
    static _Atomic unsigned next_colour; /* any value will do: no order between threads matters */
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t guard = CO_GUARD_PAGES * page;
    size_t bytes = guard + round_up(CO_STACK_BYTES, page);
    unsigned colour = atomic_fetch_add_explicit(&next_colour, 1, memory_order_relaxed);
    char *map = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    char *end;
    Coroutine *co;

    if (map == MAP_FAILED) {
        return NULL;
    }
    if (mprotect(map + guard, bytes - guard, PROT_READ | PROT_WRITE) < 0) {
        munmap(map, bytes);
        return NULL;
    }
    end = map + bytes - round_up(sizeof(Coroutine), 64);
    co = (Coroutine *)(void *)end; /* the mapping is zero */
    co->map = map;
    co->map_bytes = bytes;
    co->stack_bottom = map + guard;
    co->stack_top = end - (size_t)(colour % CO_COLOURS) * CO_COLOUR_BYTES;
#ifdef CONFIG_VALGRIND_H
    co->valgrind_id = VALGRIND_STACK_REGISTER(co->stack_bottom, co->stack_top);
#endif
    co_sanitizer_map(co);
    return co;
}

void co_stack_free(Coroutine *co)
{
    co_sanitizer_unmap(co);
#ifdef CONFIG_VALGRIND_H
    VALGRIND_STACK_DEREGISTER(co->valgrind_id);
#endif
    munmap(co->map, co->map_bytes);
}
