/* SPDX-License-Identifier: MIT */
/* The gate alone: who is inside, who waits, in the seeded scheduler and in real threads. */
#include "block/graph/graph.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#define CONTEXTS 3
#define WORKERS 6  /* coroutines a context */
#define ROUNDS 60  /* requests a coroutine */
#define CLOSINGS 25

typedef struct Storm {
    BdrvGate *gate;
    _Atomic int inside;
    _Atomic int shut;     /* closers that were told the gate is empty */
    _Atomic unsigned entered, cancelled;
    _Atomic unsigned live;
    AioSim *sim; /* NULL: real threads */
} Storm;

typedef struct StormPart {
    Storm *storm;
    GRand *random;
} StormPart;

static uint64_t test_seed(void)
{
    const char *text = g_getenv("BDRV_TEST_SEED");
    uint64_t seed = text ? g_ascii_strtoull(text, NULL, 0) : (uint64_t)g_random_int();

    g_test_message("BDRV_TEST_SEED=%" G_GUINT64_FORMAT, seed);
    return seed;
}

static StormPart *part_new(Storm *storm, uint32_t seed)
{
    StormPart *part = g_new(StormPart, 1);

    part->storm = storm;
    part->random = g_rand_new_with_seed(seed);
    atomic_fetch_add(&storm->live, 1);
    return part;
}

static void part_free(StormPart *part)
{
    atomic_fetch_sub(&part->storm->live, 1);
    g_rand_free(part->random);
    g_free(part);
}

static void coroutine_fn pause_a_little(GRand *random)
{
    for (int n = g_rand_int_range(random, 0, 3); n > 0; n--) {
        co_reschedule();
    }
}

static void coroutine_fn request(void *opaque)
{
    StormPart *part = opaque;
    Storm *storm = part->storm;

    for (unsigned i = 0; i < ROUNDS; i++) {
        void *outer = bdrv_gate_enter(storm->gate);

        g_assert_null(outer);
        g_assert_nonnull(co_get_request());
        atomic_fetch_add(&storm->inside, 1);
        g_assert_cmpint(atomic_load(&storm->shut), ==, 0);
        pause_a_little(part->random);
        if (g_rand_int_range(part->random, 0, 4) == 0) {
            void *again = bdrv_gate_enter(storm->gate); /* freely, even if it is closing */

            pause_a_little(part->random);
            bdrv_gate_leave(storm->gate, again);
        }
        g_assert_cmpint(atomic_load(&storm->shut), ==, 0);
        atomic_fetch_sub(&storm->inside, 1);
        atomic_fetch_add(&storm->entered, 1);
        bdrv_gate_leave(storm->gate, outer);
        g_assert_null(co_get_request());
        pause_a_little(part->random);
    }
    part_free(part);
}

static void coroutine_fn closer(void *opaque)
{
    StormPart *part = opaque;
    Storm *storm = part->storm;

    for (unsigned i = 0; i < CLOSINGS; i++) {
        bdrv_gate_close(storm->gate);
        bdrv_gate_wait_empty(storm->gate);
        atomic_fetch_add(&storm->shut, 1);
        g_assert_cmpint(atomic_load(&storm->inside), ==, 0);
        pause_a_little(part->random);
        g_assert_cmpint(atomic_load(&storm->inside), ==, 0);
        atomic_fetch_sub(&storm->shut, 1);
        bdrv_gate_open(storm->gate);
        pause_a_little(part->random);
    }
    part_free(part);
}

static void storm_start(Storm *storm, AioContext *ctx, uint32_t seed)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        co_start(ctx, co_new(request, part_new(storm, seed * 31 + i)));
    }
    co_start(ctx, co_new(closer, part_new(storm, seed * 31 + WORKERS)));
}

static void test_storm_sim(void)
{
    uint64_t seed = test_seed();

    for (unsigned run = 0; run < 20; run++) {
        Storm storm = { .gate = bdrv_gate_new(), .sim = aio_sim_new(seed + run) };
        AioContext *ctx[CONTEXTS];

        for (unsigned i = 0; i < CONTEXTS; i++) {
            ctx[i] = aio_sim_context_new(storm.sim);
            storm_start(&storm, ctx[i], (uint32_t)(seed + run * CONTEXTS + i));
        }
        while (aio_sim_step(storm.sim)) {
        }
        g_assert_cmpuint(storm.live, ==, 0);
        g_assert_cmpuint(storm.entered, ==, CONTEXTS * WORKERS * ROUNDS);
        g_assert_true(bdrv_gate_is_empty(storm.gate));
        for (unsigned i = 0; i < CONTEXTS; i++) {
            aio_context_unref(ctx[i]);
        }
        aio_sim_free(storm.sim);
        bdrv_gate_free(storm.gate);
    }
}

typedef struct StormThread {
    Storm *storm;
    uint32_t seed;
    pthread_t id;
} StormThread;

static void *storm_thread(void *opaque)
{
    StormThread *thread = opaque;
    g_autoptr(AioContext) ctx = aio_context_new(NULL);
    aio_context_enter(ctx);
    storm_start(thread->storm, ctx, thread->seed);
    while (atomic_load(&thread->storm->live) > 0) {
        aio_context_run(ctx, false);
    }
    aio_context_leave(ctx);
    return NULL;
}

static void test_storm_threads(void)
{
    Storm storm = { .gate = bdrv_gate_new() };
    StormThread threads[CONTEXTS];
    uint64_t seed = test_seed();

    atomic_fetch_add(&storm.live, 1); /* nobody ends before all have begun */
    for (unsigned i = 0; i < CONTEXTS; i++) {
        threads[i] = (StormThread){ &storm, (uint32_t)seed + i, 0 };
        pthread_create(&threads[i].id, NULL, storm_thread, &threads[i]);
    }
    while (atomic_load(&storm.entered) < 1) {
        g_usleep(100);
    }
    atomic_fetch_sub(&storm.live, 1);
    for (unsigned i = 0; i < CONTEXTS; i++) {
        pthread_join(threads[i].id, NULL);
    }
    g_assert_cmpuint(storm.entered, ==, CONTEXTS * WORKERS * ROUNDS);
    g_assert_true(bdrv_gate_is_empty(storm.gate));
    bdrv_gate_free(storm.gate);
}

/* ---- parked requests ---- */

typedef struct Line {
    BdrvGate *gate;
    unsigned order[8], count;
} Line;

typedef struct LinePlace {
    Line *line;
    unsigned number;
    BdrvGateWait wait;
    int ret;
} LinePlace;

static void coroutine_fn line_up(void *opaque)
{
    LinePlace *place = opaque;
    Line *line = place->line;
    void *outer;

    place->ret = bdrv_gate_enter_or_cancel(line->gate, &place->wait, &outer);
    if (place->ret == 0) {
        line->order[line->count++] = place->number;
        bdrv_gate_leave(line->gate, outer);
    }
}

static void run_all(void)
{
    while (aio_context_run(aio_context_current(), false)) {
    }
}

static void test_fifo(void)
{
    Line line = { .gate = bdrv_gate_new() };
    LinePlace places[5] = { 0 };

    bdrv_gate_close(line.gate);
    for (unsigned i = 0; i < 4; i++) {
        places[i] = (LinePlace){ .line = &line, .number = i };
        co_enter(co_new(line_up, &places[i]));
    }
    run_all();
    g_assert_cmpuint(line.count, ==, 0);
    bdrv_gate_open(line.gate);
    /* The gate is open, but who comes now goes behind those who have waited. */
    places[4] = (LinePlace){ .line = &line, .number = 4 };
    co_enter(co_new(line_up, &places[4]));
    g_assert_cmpuint(line.count, ==, 0);
    run_all();
    g_assert_cmpuint(line.count, ==, 5);
    for (unsigned i = 0; i < 5; i++) {
        g_assert_cmpuint(line.order[i], ==, i);
    }
    bdrv_gate_free(line.gate);
}

static void test_cancel(void)
{
    Line line = { .gate = bdrv_gate_new() };
    LinePlace places[4] = { 0 };

    bdrv_gate_close(line.gate);
    for (unsigned i = 0; i < 4; i++) {
        places[i] = (LinePlace){ .line = &line, .number = i };
        co_enter(co_new(line_up, &places[i]));
    }
    g_assert_true(bdrv_gate_cancel(line.gate, &places[0].wait));
    g_assert_true(bdrv_gate_cancel(line.gate, &places[2].wait));
    run_all();
    g_assert_cmpint(places[0].ret, ==, -ECANCELED);
    g_assert_cmpint(places[2].ret, ==, -ECANCELED);
    g_assert_cmpuint(line.count, ==, 0);
    bdrv_gate_open(line.gate);
    g_assert_true(bdrv_gate_cancel(line.gate, &places[1].wait)); /* woken but not yet in */
    run_all();
    g_assert_cmpint(places[1].ret, ==, -ECANCELED);
    g_assert_cmpuint(line.count, ==, 1);
    g_assert_cmpuint(line.order[0], ==, 3);
    g_assert_false(bdrv_gate_cancel(line.gate, &places[3].wait)); /* has been in */
    bdrv_gate_free(line.gate);
}

static void test_nested_closing(void)
{
    Line line = { .gate = bdrv_gate_new() };
    LinePlace place = { .line = &line };

    bdrv_gate_close(line.gate);
    bdrv_gate_close(line.gate);
    co_enter(co_new(line_up, &place));
    bdrv_gate_open(line.gate);
    run_all();
    g_assert_cmpuint(line.count, ==, 0);
    bdrv_gate_open(line.gate);
    run_all();
    g_assert_cmpuint(line.count, ==, 1);
    bdrv_gate_free(line.gate);
}

typedef struct Pair {
    BdrvGate *a, *b;
    bool in, go, out;
    bool shut;
} Pair;

static void coroutine_fn use_both(void *opaque)
{
    Pair *pair = opaque;
    void *outer = bdrv_gate_enter_both(pair->a, pair->b);

    pair->in = true;
    g_assert_false(bdrv_gate_is_empty(pair->a));
    g_assert_false(bdrv_gate_is_empty(pair->b));
    bdrv_gate_leave_both(pair->a, pair->b, outer);
    pair->out = true;
}

static void coroutine_fn shut_a(void *opaque)
{
    Pair *pair = opaque;

    bdrv_gate_close(pair->a);
    bdrv_gate_wait_empty(pair->a);
    pair->shut = true;
}

static void test_both(void)
{
    Pair pair = { .a = bdrv_gate_new(), .b = bdrv_gate_new() };

    /* While it waits for b it is not inside a: a drain of a must not wait for one of b. */
    bdrv_gate_close(pair.b);
    co_enter(co_new(use_both, &pair));
    g_assert_false(pair.in);
    co_enter(co_new(shut_a, &pair));
    run_all();
    g_assert_true(pair.shut);
    bdrv_gate_open(pair.b);
    run_all();
    g_assert_false(pair.in);
    bdrv_gate_open(pair.a);
    run_all();
    g_assert_true(pair.out);
    g_assert_true(bdrv_gate_is_empty(pair.a) && bdrv_gate_is_empty(pair.b));
    bdrv_gate_free(pair.a);
    bdrv_gate_free(pair.b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/gate/a closed gate is empty and stays empty, in a seeded run", test_storm_sim);
    g_test_add_func("/gate/a closed gate is empty and stays empty, in threads", test_storm_threads);
    g_test_add_func("/gate/parked requests enter in the order they came", test_fifo);
    g_test_add_func("/gate/a parked request can be cancelled", test_cancel);
    g_test_add_func("/gate/closing nests", test_nested_closing);
    g_test_add_func("/gate/a request on two handles waits outside of both", test_both);
    return g_test_run();
}
