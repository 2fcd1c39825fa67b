/* SPDX-License-Identifier: MIT */

/*
 * What the coroutine runtime costs: nanoseconds per operation, the best and the median of several runs.
 * Usage: bench-coroutine [MILLIONS]
 */

#include <bdrv/coroutine.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define RUNS 9

static uint64_t loops;

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void coroutine_fn nothing_entry(void *opaque)
{
}

static void coroutine_fn yielding_entry(void *opaque)
{
    const bool *stop = opaque;

    while (!*stop) {
        co_yield();
    }
}

static void enter_yield(void)
{
    static bool stop;
    Coroutine *co;

    stop = false;
    co = co_new(yielding_entry, &stop);
    for (uint64_t i = 0; i < loops; i++) {
        co_enter(co);
    }
    stop = true;
    co_enter(co);
}

/* As many as a deep queue has, in turn: what the caches make of it. */
static void enter_yield_64(void)
{
    static bool stop;
    Coroutine *co[64];

    stop = false;
    for (unsigned i = 0; i < 64; i++) {
        co[i] = co_new(yielding_entry, &stop);
    }
    for (uint64_t i = 0; i < loops; i += 64) {
        for (unsigned n = 0; n < 64; n++) {
            co_enter(co[n]);
        }
    }
    stop = true;
    for (unsigned i = 0; i < 64; i++) {
        co_enter(co[i]);
    }
}

static void create_enter_terminate(void)
{
    for (uint64_t i = 0; i < loops; i++) {
        co_enter(co_new(nothing_entry, NULL));
    }
}

static void coroutine_fn once_entry(void *opaque)
{
    co_yield();
}

static void create_yield_terminate(void)
{
    for (uint64_t i = 0; i < loops; i++) {
        Coroutine *co = co_new(once_entry, NULL);

        co_enter(co);
        co_enter(co);
    }
}

static void coroutine_fn mutex_entry(void *opaque)
{
    CoMutex *mutex = opaque;

    for (uint64_t i = 0; i < loops; i++) {
        co_mutex_lock(mutex);
        co_mutex_unlock(mutex);
    }
}

static void mutex_uncontended(void)
{
    CoMutex mutex;

    co_mutex_init(&mutex);
    co_enter(co_new(mutex_entry, &mutex));
    co_mutex_destroy(&mutex);
}

static void coroutine_fn rdlock_entry(void *opaque)
{
    CoRwLock *lock = opaque;

    for (uint64_t i = 0; i < loops; i++) {
        co_rwlock_rdlock(lock);
        co_rwlock_unlock(lock);
    }
}

static void rdlock_uncontended(void)
{
    CoRwLock lock;

    co_rwlock_init(&lock);
    co_enter(co_new(rdlock_entry, &lock));
    co_rwlock_destroy(&lock);
}

static void coroutine_fn reschedule_entry(void *opaque)
{
    for (uint64_t i = 0; i < loops; i++) {
        co_reschedule();
    }
}

static void wake_yield_through_loop(void)
{
    co_run_blocking(reschedule_entry, NULL);
}

static const struct {
    const char *what;
    void (*run)(void);
    double target_ns; /* 0: none */
} benches[] = {
    { "enter+yield", enter_yield, 8 },
    { "enter+yield, 64 in turn", enter_yield_64, 0 },
    { "create+enter+terminate", create_enter_terminate, 15 },
    { "create+enter+yield+enter+terminate", create_yield_terminate, 0 },
    { "CoMutex lock+unlock", mutex_uncontended, 0 },
    { "CoRwLock rdlock+unlock", rdlock_uncontended, 0 },
    { "wake+yield through the loop", wake_yield_through_loop, 0 },
};

int main(int argc, char **argv)
{
    loops = (argc > 1 ? strtoull(argv[1], NULL, 0) : 5) * 1000000;
    printf("%-40s %8s %8s %8s\n", "ns", "best", "median", "target");
    for (unsigned b = 0; b < sizeof(benches) / sizeof(*benches); b++) {
        double ns[RUNS];

        for (unsigned run = 0; run < RUNS; run++) {
            double start = now_ns();

            benches[b].run();
            ns[run] = (now_ns() - start) / (double)loops;
        }
        qsort(ns, RUNS, sizeof(*ns), compare_doubles);
        printf("%-40s %8.2f %8.2f", benches[b].what, ns[0], ns[RUNS / 2]);
        if (benches[b].target_ns > 0) {
            printf(" %8.2f", benches[b].target_ns);
        }
        printf("\n");
    }
    return 0;
}
