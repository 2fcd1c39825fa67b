/* SPDX-License-Identifier: MIT */
/*
 * The worker pool: for each kind of job a queue, a stack of idle threads and a bound. A job is handed
 * to the thread that became idle last, so that the others' time runs out and they end.
 *
 * Threads are started one at a time: a new thread that takes its first job and sees more waiting
 * starts the next. Short jobs are thus done by few threads, jobs that sleep soon get one each, and the
 * loop's thread seldom pays for it.
 */

#include "block/loop/loop.h"
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WORKER_IDLE_SECONDS 5
#define WORKER_STACK_SIZE (1024 * 1024)

typedef struct Worker {
    /*
     * Set, after @job, by who took the worker off the idle stack. A futex and not a condition variable,
     * so that it can be woken after the lock was released: if the worker is gone by then, the address
     * is only a number to the kernel.
     */
    _Atomic uint32_t woken;
    AioJob *job; /* NULL: to end, it is not counted in @threads any more */
    struct Worker *next_idle;
} Worker;

typedef struct WorkerPool {
    pthread_mutex_t lock; /* protects everything below */
    AioJob *first, **last; /* jobs that wait for a thread */
    Worker *idle;
    unsigned threads; /* with the one that is being started */
    bool starting;
    unsigned max_threads; /* 0: not set yet */
} WorkerPool;

static WorkerPool pools[2] = {
    [AIO_WORK_IO] = { .lock = PTHREAD_MUTEX_INITIALIZER, .max_threads = 64 },
    [AIO_WORK_CPU] = { .lock = PTHREAD_MUTEX_INITIALIZER },
};

static void put_job_locked(WorkerPool *pool, AioJob *job)
{
    job->next = NULL;
    if (!pool->first) {
        pool->last = &pool->first;
    }
    *pool->last = job;
    pool->last = &job->next;
}

static AioJob *take_job_locked(WorkerPool *pool)
{
    AioJob *job = pool->first;

    if (job) {
        pool->first = job->next;
    }
    return job;
}

/* Hand @job to an idle worker, which wake() must follow, at best without the lock. */
static Worker *give_locked(WorkerPool *pool, AioJob *job)
{
    Worker *worker = pool->idle;

    pool->idle = worker->next_idle;
    worker->job = job;
    atomic_store_explicit(&worker->woken, 1, memory_order_release);
    return worker;
}

static void wake(Worker *worker)
{
    syscall(SYS_futex, &worker->woken, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Whether it was woken before its time was up. */
static bool park(Worker *self)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += WORKER_IDLE_SECONDS;
    while (!atomic_load_explicit(&self->woken, memory_order_acquire)) {
        if (syscall(SYS_futex, &self->woken, FUTEX_WAIT_BITSET_PRIVATE, 0, &until, NULL, FUTEX_BITSET_MATCH_ANY) < 0 &&
            errno == ETIMEDOUT) {
            return false;
        }
    }
    return true;
}

/*
 * Sleep until a job is handed over. Releases the lock. NULL if the thread is not needed any more; it
 * is not counted then.
 */
static AioJob *wait_for_job_unlock(WorkerPool *pool, Worker *self)
{
    self->job = NULL;
    atomic_store_explicit(&self->woken, 0, memory_order_relaxed);
    self->next_idle = pool->idle;
    pool->idle = self;
    pthread_mutex_unlock(&pool->lock);
    if (!park(self)) {
        pthread_mutex_lock(&pool->lock);
        if (!atomic_load_explicit(&self->woken, memory_order_acquire)) {
            Worker **p = &pool->idle;

            while (*p != self) {
                p = &(*p)->next_idle;
            }
            *p = self->next_idle;
            pool->threads--;
        }
        pthread_mutex_unlock(&pool->lock);
    }
    return self->job;
}

static void start_more_locked(WorkerPool *pool);

static void *worker_main(void *opaque)
{
    WorkerPool *pool = opaque;
    Worker self;
    AioJob *job;

    pthread_mutex_lock(&pool->lock);
    pool->starting = false;
    while (pool->threads <= pool->max_threads) {
        job = take_job_locked(pool);
        if (job) {
            start_more_locked(pool);
            pthread_mutex_unlock(&pool->lock);
        } else {
            job = wait_for_job_unlock(pool, &self);
            if (!job) {
                return NULL;
            }
        }
        job->result = job->func(job->opaque);
        co_wake(job->co); /* the job is gone now */
        pthread_mutex_lock(&pool->lock);
    }
    pool->threads--;
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static int start_thread(WorkerPool *pool)
{
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_t thread;
    int ret;

    ret = pthread_attr_init(&attr);
    if (ret) {
        return ret;
    }
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, WORKER_STACK_SIZE);
    /* Signals are the embedder's: none is delivered to a worker. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ret = pthread_create(&thread, &attr, worker_main, pool);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return ret;
}

/* No thread could be started. If there is none at all, nobody is ever going to take what waits. */
static void start_failed(WorkerPool *pool)
{
    AioJob *jobs = NULL;

    pthread_mutex_lock(&pool->lock);
    pool->starting = false;
    pool->threads--;
    if (pool->threads == 0) {
        jobs = pool->first;
        pool->first = NULL;
    }
    pthread_mutex_unlock(&pool->lock);
    for (AioJob *next; jobs; jobs = next) {
        next = jobs->next;
        jobs->result = -EAGAIN;
        co_wake(jobs->co);
    }
}

/* If jobs wait and the bound allows it. Lets go of the lock meanwhile. */
static void start_more_locked(WorkerPool *pool)
{
    if (!pool->first || pool->starting || pool->threads >= pool->max_threads) {
        return;
    }
    pool->starting = true;
    pool->threads++;
    pthread_mutex_unlock(&pool->lock);
    if (start_thread(pool) != 0) {
        start_failed(pool);
    }
    pthread_mutex_lock(&pool->lock);
}

static void set_default_locked(WorkerPool *pool)
{
    if (!pool->max_threads) {
        long processors = sysconf(_SC_NPROCESSORS_ONLN);

        pool->max_threads = MAX(processors, 1);
    }
}

void aio_worker_start_job(AioContext *ctx, AioJob *job)
{
    WorkerPool *pool = &pools[job->kind];
    Worker *idle = NULL;

    pthread_mutex_lock(&pool->lock);
    set_default_locked(pool);
    if (pool->idle) {
        idle = give_locked(pool, job);
    } else {
        put_job_locked(pool, job);
        start_more_locked(pool);
    }
    pthread_mutex_unlock(&pool->lock);
    if (idle) {
        wake(idle);
    }
}

void aio_set_worker_limits(unsigned io, unsigned cpu)
{
    unsigned limits[2] = { [AIO_WORK_IO] = MAX(io, 1), [AIO_WORK_CPU] = MAX(cpu, 1) };

    for (unsigned kind = 0; kind < 2; kind++) {
        pthread_mutex_lock(&pools[kind].lock);
        pools[kind].max_threads = limits[kind];
        /*
         * Too many threads: idle ones end now, busy ones after their jobs. Those are counted out here
         * already, or a busy one would think that it is superfluous too and none might be left.
         */
        while (pools[kind].threads > limits[kind] && pools[kind].idle) {
            pools[kind].threads--;
            wake(give_locked(&pools[kind], NULL));
        }
        start_more_locked(&pools[kind]); /* or more than before, for jobs that wait */
        pthread_mutex_unlock(&pools[kind].lock);
    }
}

int coroutine_fn co_run_in_worker(AioWorkKind kind, int (*func)(void *opaque), void *opaque)
{
    AioContext *ctx = aio_context_current();
    AioJob job = { .func = func, .opaque = opaque, .kind = kind, .co = co_self() };

    ctx->schedule->start_job(ctx, &job);
    co_yield_reason("worker");
    return job.result;
}
