/* SPDX-License-Identifier: MIT */
/* The worker pool: bounds, separate kinds, what happens when no thread can be started. */

#include "block/loop/loop.h"
#include <semaphore.h>
#include <signal.h>
#include <unistd.h>

/* The linker sends the library's pthread_create() here. */
static atomic_bool no_new_threads;
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*func)(void *), void *opaque);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*func)(void *), void *opaque);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*func)(void *), void *opaque)
{
    return atomic_load(&no_new_threads) ? EAGAIN : __real_pthread_create(thread, attr, func, opaque);
}

typedef struct Crowd {
    AioWorkKind kind;
    atomic_uint inside, most;
    unsigned done;
} Crowd;

static int crowd_job(void *opaque)
{
    Crowd *crowd = opaque;
    unsigned inside = atomic_fetch_add(&crowd->inside, 1) + 1;
    unsigned most = atomic_load(&crowd->most);

    while (inside > most && !atomic_compare_exchange_weak(&crowd->most, &most, inside)) {
    }
    usleep(500);
    atomic_fetch_sub(&crowd->inside, 1);
    return 42;
}

static void coroutine_fn join_crowd(void *opaque)
{
    Crowd *crowd = opaque;

    g_assert_cmpint(co_run_in_worker(crowd->kind, crowd_job, crowd), ==, 42);
    crowd->done++;
}

static void run_crowd(Crowd *crowd, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        co_enter(co_new(join_crowd, crowd));
    }
    while (crowd->done < n) {
        aio_context_run(aio_context_current(), true);
    }
}

static void test_bounds(void)
{
    static const struct {
        unsigned io, cpu;
    } limits[] = { { 4, 2 }, { 2, 1 }, { 1, 3 } };

    for (size_t i = 0; i < G_N_ELEMENTS(limits); i++) {
        Crowd io = { .kind = AIO_WORK_IO }, cpu = { .kind = AIO_WORK_CPU };

        aio_set_worker_limits(limits[i].io, limits[i].cpu);
        run_crowd(&io, 30);
        run_crowd(&cpu, 30);
        /* Threads that a lower limit makes superfluous end after at most one job. */
        g_assert_cmpuint(io.most, <=, limits[i ? i - 1 : i].io > limits[i].io ? limits[i - 1].io : limits[i].io);
        g_assert_cmpuint(cpu.most, <=, limits[i ? i - 1 : i].cpu > limits[i].cpu ? limits[i - 1].cpu
                                                                                  : limits[i].cpu);
    }
}

static int wait_for_release(void *opaque)
{
    while (!atomic_load((atomic_bool *)opaque)) {
        usleep(100);
    }
    return 0;
}

static unsigned released;

static void coroutine_fn occupy(void *opaque)
{
    g_assert_cmpint(co_run_in_worker(AIO_WORK_IO, wait_for_release, opaque), ==, 0);
    released++;
}

static void test_kinds_are_separate(void)
{
    atomic_bool release = false;
    Crowd cpu = { .kind = AIO_WORK_CPU };

    released = 0;
    aio_set_worker_limits(2, 2);
    for (int i = 0; i < 5; i++) {
        co_enter(co_new(occupy, &release));
    }
    run_crowd(&cpu, 10); /* while all I/O threads are busy */
    g_assert_cmpuint(released, ==, 0);
    atomic_store(&release, true);
    while (released < 5) {
        aio_context_run(aio_context_current(), true);
    }
}

static void coroutine_fn expect_eagain(void *opaque)
{
    Crowd *crowd = opaque;

    g_assert_cmpint(co_run_in_worker(crowd->kind, crowd_job, crowd), ==, -EAGAIN);
    crowd->done++;
}

static void test_no_worker(void)
{
    Crowd crowd = { .kind = AIO_WORK_IO };

    atomic_store(&no_new_threads, true);
    co_enter(co_new(expect_eagain, &crowd));
    while (!crowd.done) {
        g_assert_true(aio_context_run(aio_context_current(), true));
    }
    atomic_store(&no_new_threads, false);
    g_assert_cmpuint(crowd.most, ==, 0);
}

static void test_some_worker(void)
{
    Crowd crowd = { .kind = AIO_WORK_IO };
    atomic_bool release = false;

    released = 0;
    aio_set_worker_limits(8, 8);
    co_enter(co_new(occupy, &release)); /* one thread exists, and is busy */
    atomic_store(&no_new_threads, true);
    co_enter(co_new(join_crowd, &crowd));
    atomic_store(&release, true);
    while (!crowd.done || !released) {
        aio_context_run(aio_context_current(), true);
    }
    atomic_store(&no_new_threads, false);
}

static int wait_for_all(void *opaque)
{
    Crowd *crowd = opaque;

    atomic_fetch_add(&crowd->inside, 1);
    while (atomic_load(&crowd->inside) < 6) {
        usleep(100);
    }
    return 0;
}

static void coroutine_fn wait_with_all(void *opaque)
{
    Crowd *crowd = opaque;

    g_assert_cmpint(co_run_in_worker(crowd->kind, wait_for_all, crowd), ==, 0);
    crowd->done++;
}

static void test_a_thread_each(void)
{
    Crowd crowd = { .kind = AIO_WORK_IO };

    aio_set_worker_limits(6, 1);
    for (int i = 0; i < 6; i++) {
        co_enter(co_new(wait_with_all, &crowd));
    }
    while (crowd.done < 6) {
        aio_context_run(aio_context_current(), true);
    }
}

/* Jobs under way while the limit changes all the time: none is forgotten, whoever leaves. */
static void test_changing_limits(void)
{
    for (unsigned i = 0; i < 300; i++) {
        Crowd crowd = { .kind = AIO_WORK_IO };

        for (unsigned j = 0; j < 8; j++) {
            co_enter(co_new(join_crowd, &crowd));
            aio_set_worker_limits(1 + (i + j * 3) % 5, 1);
        }
        while (crowd.done < 8) {
            aio_context_run(aio_context_current(), true);
        }
    }
}

static unsigned count_threads(void)
{
    g_autoptr(GDir) dir = g_dir_open("/proc/self/task", 0, NULL);
    unsigned n = 0;

    while (g_dir_read_name(dir)) {
        n++;
    }
    return n;
}

static void test_lower_limit_ends_idle(void)
{
    Crowd crowd = { .kind = AIO_WORK_IO };

    aio_set_worker_limits(1, 1);
    run_crowd(&crowd, 3);
    while (count_threads() > 4) { /* this one, one of each kind, perhaps one of the sanitiser's */
        usleep(1000);
    }
}

/* ---- the service thread ---- */

typedef struct MaskQuestion {
    AioCall call;
    sem_t answered;
    bool masked;
} MaskQuestion;

static void tell_mask(void *opaque)
{
    MaskQuestion *question = opaque;
    sigset_t mask;

    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    question->masked = sigismember(&mask, SIGINT) == 1 && sigismember(&mask, SIGALRM) == 1 &&
                       sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGUSR1) == 1;
    sem_post(&question->answered);
}

static void test_service_takes_no_signals(void)
{
    MaskQuestion question = { .call = { .func = tell_mask, .opaque = &question } };
    AioContext *service = aio_service_context();
    sigset_t mask;

    g_assert_true(service != aio_context_current());
    sem_init(&question.answered, 0, 0);
    aio_call(service, &question.call);
    sem_wait(&question.answered);
    sem_destroy(&question.answered);
    g_assert_true(question.masked);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    g_assert_cmpint(sigismember(&mask, SIGINT), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/worker/no worker and none to be had is EAGAIN", test_no_worker); /* first: no thread yet */
    g_test_add_func("/worker/jobs queue if some worker exists", test_some_worker);
    g_test_add_func("/worker/each kind keeps its bound", test_bounds);
    g_test_add_func("/worker/threads busy with disks do not hold up CPU jobs", test_kinds_are_separate);
    g_test_add_func("/worker/jobs that sleep get a thread each", test_a_thread_each);
    g_test_add_func("/worker/no job is forgotten while limits change", test_changing_limits);
    g_test_add_func("/worker/a lower limit ends idle threads", test_lower_limit_ends_idle);
    g_test_add_func("/worker/the service thread takes none of the embedder's signals", test_service_takes_no_signals);
    return g_test_run();
}
