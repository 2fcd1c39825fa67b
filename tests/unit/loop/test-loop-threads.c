/* SPDX-License-Identifier: MIT */
/* Several contexts, each in its thread, that wake, call and start each other; for TSan above all. */

#include "block/loop/loop.h"
#include <poll.h>

#define THREADS 3
#define COROUTINES 4
#define ROUNDS 1500
#define CALLS 1500

typedef struct Peer Peer;

/* A coroutine that is woken by others' baton: one wake for one yield. */
typedef struct Runner {
    Peer *peer;
    Coroutine *co;
    struct Runner *next; /* the one it wakes, in another thread */
    unsigned turns;
} Runner;

typedef struct PingCall {
    AioCall call;
    Peer *from, *to;
    unsigned left;
    bool back;
} PingCall;

struct Peer {
    AioContext *ctx;
    pthread_t thread;
    bool stop; /* own thread */
    Runner runners[COROUTINES];
    PingCall ping;
};

static Peer peers[THREADS];
static pthread_barrier_t all_wait; /* all coroutines of all peers have yielded */
static atomic_uint live; /* coroutines and pings under way */

static int small_job(void *opaque)
{
    return (int)((Runner *)opaque)->turns;
}

static void coroutine_fn run_baton(void *opaque)
{
    Runner *runner = opaque;

    while (runner->turns < ROUNDS) {
        co_yield();
        g_assert_true(aio_context_current() == runner->peer->ctx);
        runner->turns++;
        if (runner->turns % 64 == 0) {
            g_assert_cmpint(co_run_in_worker(runner->turns % 128 ? AIO_WORK_IO : AIO_WORK_CPU, small_job, runner),
                            ==, runner->turns);
        }
        if (runner->next->peer != &peers[0] || runner->turns < ROUNDS) {
            co_wake(runner->next->co);
        }
    }
    atomic_fetch_sub(&live, 1);
}

static void bounce(void *opaque)
{
    PingCall *ping = opaque;

    g_assert_true(aio_context_current() == (ping->back ? ping->from : ping->to)->ctx);
    if (ping->back && --ping->left == 0) {
        atomic_fetch_sub(&live, 1);
        return;
    }
    ping->back = !ping->back;
    aio_call((ping->back ? ping->from : ping->to)->ctx, &ping->call);
}

static void *peer_main(void *opaque)
{
    Peer *peer = opaque;

    aio_context_enter(peer->ctx);
    for (int j = 0; j < COROUTINES; j++) {
        peer->runners[j].co = co_new(run_baton, &peer->runners[j]);
        co_enter(peer->runners[j].co);
    }
    pthread_barrier_wait(&all_wait);
    for (int j = 0; j < COROUTINES && peer == &peers[0]; j++) {
        co_wake(peer->runners[j].co); /* the baton */
    }
    if (peer == &peers[1]) { /* one of them sleeps in a poll() of its own */
        struct pollfd pfd = { .fd = aio_context_fd(peer->ctx), .events = POLLIN };

        while (!peer->stop && poll(&pfd, 1, -1) == 1) {
            aio_context_run(peer->ctx, false);
        }
    }
    while (!peer->stop) {
        aio_context_run(peer->ctx, true);
    }
    aio_context_leave(peer->ctx);
    return NULL;
}

static void stop_peer(void *opaque)
{
    ((Peer *)opaque)->stop = true;
}

static void test_storm(void)
{
    AioCall stops[THREADS];

    pthread_barrier_init(&all_wait, NULL, THREADS);
    atomic_store(&live, THREADS * (COROUTINES + 1));
    for (int i = 0; i < THREADS; i++) {
        Peer *peer = &peers[i];

        peer->ctx = aio_context_new(NULL);
        peer->ping = (PingCall){ .call = { .func = bounce, .opaque = &peer->ping }, .from = peer,
                                 .to = &peers[(i + 1) % THREADS], .left = CALLS };
        for (int j = 0; j < COROUTINES; j++) {
            peer->runners[j] = (Runner){ .peer = peer, .next = &peers[(i + 1) % THREADS].runners[j] };
        }
    }
    for (int i = 0; i < THREADS; i++) {
        aio_call(peers[i].ping.to->ctx, &peers[i].ping.call);
    }
    for (int i = 0; i < THREADS; i++) {
        g_assert_cmpint(pthread_create(&peers[i].thread, NULL, peer_main, &peers[i]), ==, 0);
    }
    /* A peer must run until nobody sends it anything any more; only then is it told to stop. */
    while (atomic_load(&live)) {
        g_usleep(1000);
    }
    for (int i = 0; i < THREADS; i++) {
        stops[i] = (AioCall){ .func = stop_peer, .opaque = &peers[i] };
    }
    for (int i = 0; i < THREADS; i++) {
        aio_call(peers[i].ctx, &stops[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(peers[i].thread, NULL);
    }
    for (int i = 0; i < THREADS; i++) {
        for (int j = 0; j < COROUTINES; j++) {
            g_assert_cmpuint(peers[i].runners[j].turns, ==, ROUNDS);
        }
        aio_context_unref(peers[i].ctx);
    }
    pthread_barrier_destroy(&all_wait);
}

/* A context may be freed by what a pusher sent while the pusher is still on its way out. */
typedef struct Short {
    AioContext *ctx;
    AioCall call;
    bool called;
} Short;

static void set_called(void *opaque)
{
    ((Short *)opaque)->called = true;
}

static void *call_once(void *opaque)
{
    Short *life = opaque;

    aio_call(life->ctx, &life->call);
    return NULL;
}

static void test_free_after_last_push(void)
{
    for (int i = 0; i < 200; i++) {
        Short life = { .ctx = aio_context_new(NULL), .call = { .func = set_called, .opaque = &life } };
        pthread_t thread;

        pthread_create(&thread, NULL, call_once, &life);
        while (!life.called) {
            aio_context_run(life.ctx, i % 2);
        }
        aio_context_unref(life.ctx);
        pthread_join(thread, NULL);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/loop-threads/no wake-up or call is lost in a storm", test_storm);
    g_test_add_func("/loop-threads/a context may go right after the last push", test_free_after_last_push);
    return g_test_run();
}
