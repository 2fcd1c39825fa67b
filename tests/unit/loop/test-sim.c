/* SPDX-License-Identifier: MIT */
/* Deterministic runs: the same seed gives the same run, time is virtual, blocking steps everybody. */

#include "block/loop/loop.h"

#define HOUR_NS (3600 * 1000000000LL)

/* A run of several contexts with coroutines that sleep, use workers, wake each other; what happened in order. */
typedef struct Run {
    AioSim *sim;
    AioContext *ctx[3];
    GString *trace;
    unsigned live;
} Run;

typedef struct Actor {
    Run *run;
    unsigned id;
    AioCall call;
} Actor;

static void note(Run *run, char what, unsigned id)
{
    g_string_append_printf(run->trace, "%c%u@%u ", what, id, aio_context_index(aio_context_current()));
}

static int job(void *opaque)
{
    Actor *actor = opaque;

    g_string_append_printf(actor->run->trace, "j%u ", actor->id);
    return (int)actor->id;
}

static void foreign_call(void *opaque)
{
    Actor *actor = opaque;

    note(actor->run, 'c', actor->id);
}

static void coroutine_fn act(void *opaque)
{
    Actor *actor = opaque;
    Run *run = actor->run;
    AioContext *ctx = aio_context_current();

    g_assert_true(co_context(co_self()) == ctx);
    for (int i = 0; i < 5; i++) {
        note(run, 'a', actor->id);
        co_reschedule();
        co_sleep_until(aio_clock_ns(ctx) + 1000 * (1 + actor->id % 3));
        g_assert_true(aio_context_current() == ctx);
        g_assert_cmpint(co_run_in_worker(i % 2 ? AIO_WORK_CPU : AIO_WORK_IO, job, actor), ==, actor->id);
    }
    aio_call(run->ctx[(actor->id + 1) % 3], &actor->call);
    run->live--;
}

static char *trace_of(uint64_t seed)
{
    Run run = { .sim = aio_sim_new(seed), .trace = g_string_new(NULL), .live = 9 };
    Actor actors[9];

    for (int i = 0; i < 3; i++) {
        run.ctx[i] = aio_sim_context_new(run.sim);
    }
    for (unsigned i = 0; i < 9; i++) {
        actors[i] = (Actor){ .run = &run, .id = i, .call = { .func = foreign_call, .opaque = &actors[i] } };
        co_start(run.ctx[i % 3], co_new(act, &actors[i]));
    }
    while (aio_sim_step(run.sim)) {
    }
    g_assert_cmpuint(run.live, ==, 0);
    for (int i = 0; i < 3; i++) {
        aio_context_unref(run.ctx[i]);
    }
    aio_sim_free(run.sim);
    return g_string_free(run.trace, FALSE);
}

static void test_same_seed(void)
{
    unsigned different = 0;

    for (uint64_t seed = 0; seed < 20; seed++) {
        g_autofree char *first = trace_of(seed);
        g_autofree char *again = trace_of(seed);
        g_autofree char *other = trace_of(seed + 1000);

        g_assert_cmpstr(first, ==, again);
        different += strcmp(first, other) != 0;
    }
    g_assert_cmpuint(different, ==, 20);
}

static void coroutine_fn sleep_an_hour(void *opaque)
{
    co_sleep_until(aio_clock_ns(aio_context_current()) + HOUR_NS);
    *(bool *)opaque = true;
}

static void test_time_jumps(void)
{
    AioSim *sim = aio_sim_new(7);
    AioContext *ctx = aio_sim_context_new(sim);
    bool done = false;

    co_start(ctx, co_new(sleep_an_hour, &done));
    while (aio_context_run(ctx, false)) { /* does not wait, so time does not jump */
    }
    g_assert_false(done);
    while (aio_sim_step(sim)) {
    }
    g_assert_true(done);
    g_assert_cmpint(aio_clock_ns(ctx), >=, HOUR_NS);
    aio_context_unref(ctx);
    aio_sim_free(sim);
}

/* One context waits, in a blocking call, for a coroutine of another. */
typedef struct Meeting {
    Coroutine *waiter;
} Meeting;

static void coroutine_fn wake_waiter(void *opaque)
{
    Meeting *meeting = opaque;

    while (!meeting->waiter) {
        co_reschedule();
    }
    co_wake(meeting->waiter);
}

static void coroutine_fn wait_for_wake(void *opaque)
{
    Meeting *meeting = opaque;

    meeting->waiter = co_self();
    co_yield();
}

static void test_blocking_steps_all(void)
{
    AioSim *sim = aio_sim_new(3);
    AioContext *a = aio_sim_context_new(sim), *b = aio_sim_context_new(sim);
    Meeting meeting = { NULL };

    co_start(b, co_new(wake_waiter, &meeting));
    aio_context_enter(a);
    g_assert_cmpint(co_run_blocking(wait_for_wake, &meeting), ==, 0);
    g_assert_true(aio_context_current() == a);
    aio_context_leave(a);
    while (aio_sim_step(sim)) {
    }
    aio_context_unref(a);
    aio_context_unref(b);
    aio_sim_free(sim);
}

static void test_lost_wake_is_found(void)
{
    AioSim *sim = aio_sim_new(3);
    AioContext *ctx = aio_sim_context_new(sim);
    Meeting meeting = { NULL };
    bool never = false;

    aio_context_enter(ctx);
    co_enter(co_new(wait_for_wake, &meeting));
    g_assert_cmpint(aio_context_run_until(ctx, &never), ==, -EDEADLK);
    co_wake(meeting.waiter);
    g_assert_true(aio_context_run(ctx, true));
    aio_context_leave(ctx);
    aio_context_unref(ctx);
    aio_sim_free(sim);
}

static void make_inside(void *opaque)
{
    *(AioContext **)opaque = aio_context_new(NULL);
}

static void test_contexts_made_inside(void)
{
    AioSim *sim = aio_sim_new(3);
    AioContext *ctx = aio_sim_context_new(sim), *inner = NULL;
    AioCall call = { .func = make_inside, .opaque = &inner };

    aio_call(ctx, &call);
    g_assert_true(aio_sim_step(sim));
    g_assert_true(aio_context_sim(inner) == sim);
    aio_context_unref(inner);
    aio_context_unref(ctx);
    aio_sim_free(sim);
}

static void count_call(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void test_polled_from_outside(void)
{
    AioSim *sim = aio_sim_new(5);
    AioContext *ctx = aio_sim_context_new(sim);
    unsigned fired = 0;
    AioTimer *timer = aio_timer_new(ctx, count_call, &fired);
    GSource *source = aio_context_source_new(ctx);

    g_source_attach(source, NULL);
    aio_timer_arm(timer, HOUR_NS);
    while (!fired) {
        g_main_context_iteration(NULL, TRUE);
    }
    g_source_destroy(source);
    g_source_unref(source);
    aio_timer_free(timer);
    aio_context_unref(ctx);
    aio_sim_free(sim);
}

static void test_yield_chance(void)
{
    static const struct {
        unsigned percent, min, max;
    } cases[] = { { 0, 0, 0 }, { 30, 2500, 3500 }, { 100, 10000, 10000 }, { 500, 10000, 10000 } };
    AioSim *sim = aio_sim_new(11);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        unsigned n = 0;

        aio_sim_set_yield_chance(sim, cases[i].percent);
        for (int j = 0; j < 10000; j++) {
            n += aio_sim_draw_yield(sim);
        }
        g_assert_cmpuint(n, >=, cases[i].min);
        g_assert_cmpuint(n, <=, cases[i].max);
    }
    aio_sim_free(sim);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sim/the same seed gives the same trace", test_same_seed);
    g_test_add_func("/sim/time jumps to the next timer", test_time_jumps);
    g_test_add_func("/sim/a blocking call steps the whole simulation", test_blocking_steps_all);
    g_test_add_func("/sim/a lost wake-up is found", test_lost_wake_is_found);
    g_test_add_func("/sim/contexts made inside belong to it", test_contexts_made_inside);
    g_test_add_func("/sim/a main loop can drive it", test_polled_from_outside);
    g_test_add_func("/sim/yields come at the chance that was set", test_yield_chance);
    return g_test_run();
}
