/* SPDX-License-Identifier: MIT */

/* Stacks, the pool that keeps them, unwinding, and the debug list. */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <unwind.h>

#include "block/coroutine/sanitizer.h"

#if defined(CO_ASAN) || defined(CO_TSAN)
#define SANITISED true
#else
#define SANITISED false
#endif

static void coroutine_fn idle_entry(void *opaque)
{
    co_yield();
}

/* Forks, runs @child there, and wants it to exit with 0. */
static void run_in_child(void (*child)(void))
{
    int status;
    pid_t pid = fork();

    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        child();
        _exit(99);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 0);
}

static char *guard_start, *guard_end;

static void on_segv(int sig, siginfo_t *info, void *context)
{
    char *address = info->si_addr;

    _exit(address >= guard_start && address < guard_end ? 0 : 98);
}

static __attribute__((noinline)) unsigned recurse(unsigned depth)
{
    volatile char buffer[512];

    memset((char *)buffer, (int)depth, sizeof(buffer));
    if (depth > 0) {
        buffer[0] = (char)recurse(depth - 1);
    }
    return (unsigned char)buffer[1] + (unsigned char)buffer[0];
}

static void coroutine_fn overflow_entry(void *opaque)
{
    guard_start = co_self()->map;
    guard_end = co_self()->stack_bottom;
    recurse(UINT32_MAX);
}

static void overflow_child(void)
{
    static char alternate[64 * 1024];
    stack_t stack = { .ss_sp = alternate, .ss_size = sizeof(alternate) };
    struct sigaction action = { .sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_ONSTACK };

    sigaltstack(&stack, NULL);
    sigaction(SIGSEGV, &action, NULL);
    co_enter(co_new(overflow_entry, NULL));
}

static void test_overflow(void)
{
    run_in_child(overflow_child);
}

static void coroutine_fn deep_entry(void *opaque)
{
    recurse(300); /* at least 150 KiB */
}

static void test_deep(void)
{
    co_enter(co_new(deep_entry, NULL));
}

static void coroutine_fn nothing_entry(void *opaque)
{
}

static void no_memory_child(void)
{
    struct rlimit limit = { 0, 0 };

    co_enter(co_new(nothing_entry, NULL)); /* one for the pool */
    setrlimit(RLIMIT_AS, &limit);
    if (!co_try_new(nothing_entry, NULL)) {
        _exit(1); /* the pooled one needs no memory */
    }
    _exit(co_try_new(nothing_entry, NULL) ? 2 : 0);
}

static void test_no_memory(void)
{
    if (SANITISED) {
        g_test_skip("the sanitiser needs address space itself");
        return;
    }
    while (co_thread.pool) {
        co_try_new(nothing_entry, NULL); /* leaked: only to empty the pool */
    }
    run_in_child(no_memory_child);
}

#define MANY 300

static void live_and_die(void **maps)
{
    Coroutine *co[MANY];

    for (unsigned i = 0; i < MANY; i++) {
        co[i] = co_new(idle_entry, NULL);
        maps[i] = co[i]->map;
        co_enter(co[i]);
    }
    for (unsigned i = 0; i < MANY; i++) {
        co_enter(co[i]);
    }
}

static void *pool_thread(void *opaque)
{
    live_and_die(opaque);
    g_assert_cmpuint(co_thread.pooled, ==, 128);
    live_and_die(opaque);
    g_assert_cmpuint(co_thread.pooled, ==, 128);
    return NULL;
}

static unsigned count_mapped(void **maps)
{
    unsigned mapped = 0;
    unsigned char resident;

    for (unsigned i = 0; i < MANY; i++) {
        mapped += mincore(maps[i], 1, &resident) == 0;
    }
    return mapped;
}

static void test_pool_is_bounded(void)
{
    pthread_t thread;
    void *maps[MANY];

    g_assert_cmpint(pthread_create(&thread, NULL, pool_thread, maps), ==, 0);
    pthread_join(thread, NULL);
    /* Something else may have been mapped there, but not in many of them. */
    g_assert_cmpuint(count_mapped(maps), <=, 8);
}

static void test_pool_reuses(void)
{
    Coroutine *first = co_new(nothing_entry, NULL), *second;

    co_enter(first);
    second = co_new(nothing_entry, NULL);
    g_assert_true(first == second);
    co_enter(second);
}

/* Ended in another thread than it was made in: it goes to that one's pool. */
static void *ends_elsewhere(void *opaque)
{
    co_enter(opaque);
    g_assert_cmpuint(co_thread.pooled, ==, 1);
    return NULL;
}

static void test_ends_elsewhere(void)
{
    for (unsigned i = 0; i < 50; i++) {
        pthread_t thread;

        g_assert_cmpint(pthread_create(&thread, NULL, ends_elsewhere, co_new(nothing_entry, NULL)), ==, 0);
        pthread_join(thread, NULL);
    }
}

/* Where a backtrace taken inside of a coroutine has been. */
typedef struct Seen {
    bool entered_from_test, entry, outer;
    unsigned frames;
} Seen;

static void enter_for_unwind(Seen *seen);
static void unwind_entry(void *opaque);
static void unwind_outer_entry(void *opaque);

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context, void *opaque)
{
    Seen *seen = opaque;
    uintptr_t start = _Unwind_GetRegionStart(context);

    seen->entered_from_test |= start == (uintptr_t)enter_for_unwind;
    seen->entry |= start == (uintptr_t)unwind_entry;
    seen->outer |= start == (uintptr_t)unwind_outer_entry;
    return ++seen->frames < 100 ? _URC_NO_REASON : _URC_END_OF_STACK;
}

static __attribute__((noinline)) void coroutine_fn unwind_entry(void *opaque)
{
    _Unwind_Backtrace(on_frame, opaque);
    memset(opaque, 0, sizeof(Seen));
    co_yield();
    _Unwind_Backtrace(on_frame, opaque); /* now entered by co_switch() */
    __asm__ volatile("");                /* no tail call */
}

static __attribute__((noinline)) void coroutine_fn unwind_outer_entry(void *opaque)
{
    Coroutine *co = co_new(unwind_entry, opaque);

    co_enter(co);
    co_enter(co);
    __asm__ volatile("");
}

static __attribute__((noinline)) void enter_for_unwind(Seen *seen)
{
    co_enter(co_new(unwind_outer_entry, seen));
    __asm__ volatile("");
}

static void test_unwind(void)
{
#ifdef TEST_UCONTEXT
    g_test_skip("only the assembly describes its frames");
#else
    Seen seen = { 0 };

    enter_for_unwind(&seen);
    g_assert_true(seen.entry);
    g_assert_true(seen.outer);
    g_assert_true(seen.entered_from_test);
    g_assert_cmpuint(seen.frames, <, 100);
#endif
}

static void coroutine_fn waiting_entry(void *opaque)
{
    co_yield_reason("a bus that never comes");
}

static void test_dump(void)
{
    Coroutine *co = co_new(waiting_entry, NULL);
    g_autofree char *fresh = co_dump(), *waiting = NULL, *ended = NULL;
#ifdef CO_DEBUG
    g_autofree char *line = g_strdup_printf("%p: ", (void *)co);
#endif

    co_enter(co);
    waiting = co_dump();
    co_enter(co);
    ended = co_dump();
#ifdef CO_DEBUG
    g_assert_nonnull(strstr(fresh, line));
    g_assert_nonnull(strstr(fresh, "not started"));
    g_assert_nonnull(strstr(waiting, line));
    g_assert_nonnull(strstr(waiting, "waits for a bus that never comes\n"));
    g_assert_null(strstr(ended, line));
#else
    g_assert_nonnull(strstr(fresh, "-Dcoroutine_debug=true"));
#endif
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/stack/an overflow hits the guard page", test_overflow);
    g_test_add_func("/stack/deep calls fit", test_deep);
    g_test_add_func("/stack/a failed mapping is reported", test_no_memory);
    g_test_add_func("/stack/the pool is bounded and goes with its thread", test_pool_is_bounded);
    g_test_add_func("/stack/the pool is used", test_pool_reuses);
    g_test_add_func("/stack/a coroutine may end in another thread than it was made in", test_ends_elsewhere);
    g_test_add_func("/stack/unwinding goes through the switch to who entered", test_unwind);
    g_test_add_func("/stack/the dump tells what each waits for", test_dump);
    return g_test_run();
}
