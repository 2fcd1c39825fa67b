/* SPDX-License-Identifier: MIT */
/*
 * Requests, drains, reopens, opening and closing of handles on one shared node, all at once: in the
 * seeded scheduler and in real threads.
 */
#include "tests/unit/backend/slow.h"

#include <errno.h>
#include <stdatomic.h>

#define CONTEXTS 3

typedef struct Storm {
    BdrvGraph *graph;
    BlockBackend *base; /* on the shared node itself */
    BlockBackend *top;  /* a format with the shared node as its backing file */
    SlowState *slow;
    unsigned rounds;
    _Atomic unsigned live, requests, drains, opens, reopens;
} Storm;

typedef struct Actor {
    Storm *storm;
    GRand *random;
} Actor;

static uint64_t test_seed(void)
{
    const char *text = g_getenv("BDRV_TEST_SEED");
    uint64_t seed = text ? g_ascii_strtoull(text, NULL, 0) : (uint64_t)g_random_int();

    g_test_message("BDRV_TEST_SEED=%" G_GUINT64_FORMAT, seed);
    return seed;
}

static void coroutine_fn check_request(Storm *storm, BlockBackend *blk, GRand *random)
{
    uint8_t buf[512];
    int64_t offset = g_rand_int_range(random, 0, SLOW_BYTES - 512);

    g_assert_cmpint(blk_co_pread(blk, offset, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmphex(buf[0], ==, 0x5a);
    atomic_fetch_add(&storm->requests, 1);
}

static void coroutine_fn reader(void *opaque)
{
    Actor *actor = opaque;
    Storm *storm = actor->storm;

    for (unsigned i = 0; i < storm->rounds * 4; i++) {
        check_request(storm, i % 2 ? storm->base : storm->top, actor->random);
    }
}

static void coroutine_fn copier(void *opaque)
{
    Actor *actor = opaque;
    Storm *storm = actor->storm;

    for (unsigned i = 0; i < storm->rounds; i++) {
        int ret = blk_co_copy_range(storm->base, 0, storm->top, 0, 512, 0);

        g_assert_cmpint(ret, ==, -EPERM); /* entered both gates; top is read-only */
        co_reschedule();
    }
}

static void coroutine_fn drainer(void *opaque)
{
    Actor *actor = opaque;
    Storm *storm = actor->storm;

    for (unsigned i = 0; i < storm->rounds; i++) {
        BlockBackend *blk = g_rand_boolean(actor->random) ? storm->base : storm->top;
        bool twice = g_rand_boolean(actor->random);

        g_assert_cmpint(blk_co_drain_begin(blk), ==, 0);
        g_assert_cmpint(atomic_load(&storm->slow->busy), ==, 0);
        if (twice) {
            g_assert_cmpint(blk_co_drain_begin(blk), ==, 0);
        }
        co_reschedule();
        g_assert_cmpint(atomic_load(&storm->slow->busy), ==, 0);
        g_assert_cmpint(atomic_load(&storm->slow->drained), ==, 1);
        if (twice) {
            blk_co_drain_end(blk);
            co_reschedule();
            g_assert_cmpint(atomic_load(&storm->slow->busy), ==, 0);
        }
        blk_co_drain_end(blk);
        atomic_fetch_add(&storm->drains, 1);
        co_reschedule();
    }
}

static void coroutine_fn opener(void *opaque)
{
    Actor *actor = opaque;
    Storm *storm = actor->storm;

    for (unsigned i = 0; i < storm->rounds; i++) {
        bool rw = g_rand_int_range(actor->random, 0, 4) == 0;
        GError *error = NULL;
        BlockBackend *blk = blk_co_open(storm->graph, NULL,
                                        bdrv_options_parse(rw ? "driver=veil,file=disk" : "driver=shape,file=disk",
                                                           NULL, NULL), rw ? BDRV_O_RDWR : 0, &error);

        if (!blk) { /* writers do not get along with formats and read-only nodes */
            g_assert_true(g_error_matches(error, BDRV_ERROR, EBUSY) || g_error_matches(error, BDRV_ERROR, EACCES));
            g_clear_error(&error);
            continue;
        }
        check_request(storm, blk, actor->random);
        if (rw) {
            uint8_t byte = 0;

            g_assert_cmpint(blk_co_pwrite(blk, 0, 1, &byte, 0), ==, 0);
        }
        g_assert_true(blk_co_close(blk, &error));
        g_assert_no_error(error);
        atomic_fetch_add(&storm->opens, 1);
    }
}

static void coroutine_fn reopener(void *opaque)
{
    Actor *actor = opaque;
    Storm *storm = actor->storm;

    for (unsigned i = 0; i < storm->rounds; i++) {
        GError *error = NULL;

        if (!blk_co_reopen(storm->base, NULL, i % 2 ? 0 : BDRV_O_RDWR, &error)) {
            g_assert_true(g_error_matches(error, BDRV_ERROR, EBUSY) || g_error_matches(error, BDRV_ERROR, EACCES));
            g_clear_error(&error);
        } else {
            atomic_fetch_add(&storm->reopens, 1);
        }
        co_reschedule();
    }
}

static CoroutineEntry *const actors[] = { reader, reader, copier, drainer, opener, reopener };

typedef struct Play {
    Actor actor;
    CoroutineEntry *entry;
} Play;

static void coroutine_fn play(void *opaque)
{
    Play *play = opaque;

    play->entry(&play->actor);
    atomic_fetch_sub(&play->actor.storm->live, 1);
    g_rand_free(play->actor.random);
    g_free(play);
}

static void storm_enter(Storm *storm, AioContext *ctx, uint32_t seed)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(actors); i++) {
        Play *part = g_new(Play, 1);

        *part = (Play){ { storm, g_rand_new_with_seed(seed * 17 + i) }, actors[i] };
        atomic_fetch_add(&storm->live, 1);
        co_start(ctx, co_new(play, part));
    }
}

static void coroutine_fn storm_setup(void *opaque)
{
    Storm *storm = opaque;
    GError *error = NULL;

    storm->graph = bdrv_graph_new();
    storm->base = blk_co_open(storm->graph, NULL, bdrv_options_parse("driver=slow,node-name=disk", NULL, NULL), 0,
                              &error);
    g_assert_no_error(error);
    storm->slow = slow_state(storm->graph, "disk");
    storm->slow->reschedules = 2;
    storm->top = blk_co_open(storm->graph, NULL,
                             bdrv_options_parse("driver=veil,file.driver=veil,file.file=disk", NULL, NULL), 0,
                             &error);
    g_assert_no_error(error);
}

static void coroutine_fn storm_teardown(void *opaque)
{
    Storm *storm = opaque;

    g_assert_cmpint(storm->slow->drained, ==, 0);
    g_assert_true(blk_co_close(storm->top, NULL));
    g_assert_true(blk_co_close(storm->base, NULL));
    bdrv_graph_unref(storm->graph);
    g_test_message("%u requests, %u drains, %u opens, %u reopens", storm->requests, storm->drains, storm->opens,
                   storm->reopens);
    g_assert_cmpuint(storm->drains, ==, CONTEXTS * storm->rounds);
    g_assert_cmpuint(storm->opens, >, 0);
    g_assert_cmpuint(storm->reopens, >, 0);
}

static void test_sim(void)
{
    uint64_t seed = test_seed();

    for (unsigned run = 0; run < 12; run++) {
        AioSim *sim = aio_sim_new(seed + run);
        Storm storm = { .rounds = 25 };
        AioContext *ctx[CONTEXTS];

        for (unsigned i = 0; i < CONTEXTS; i++) {
            ctx[i] = aio_sim_context_new(sim);
        }
        co_start(ctx[0], co_new(storm_setup, &storm));
        while (aio_sim_step(sim)) {
        }
        for (unsigned i = 0; i < CONTEXTS; i++) {
            storm_enter(&storm, ctx[i], (uint32_t)(seed + run * CONTEXTS + i));
        }
        while (aio_sim_step(sim)) {
        }
        g_assert_cmpuint(storm.live, ==, 0);
        co_start(ctx[1], co_new(storm_teardown, &storm));
        while (aio_sim_step(sim)) {
        }
        g_assert_cmpuint(storm.opens, >, 0);
        for (unsigned i = 0; i < CONTEXTS; i++) {
            aio_context_unref(ctx[i]);
        }
        aio_sim_free(sim);
    }
}

typedef struct StormThread {
    Storm *storm;
    uint32_t seed;
    pthread_barrier_t *begin;
    pthread_t id;
} StormThread;

static void *storm_thread(void *opaque)
{
    StormThread *thread = opaque;
    g_autoptr(AioContext) ctx = aio_context_new(NULL);

    aio_context_enter(ctx);
    storm_enter(thread->storm, ctx, thread->seed);
    pthread_barrier_wait(thread->begin);
    while (atomic_load(&thread->storm->live) > 0) {
        aio_context_run(ctx, false);
    }
    aio_context_leave(ctx);
    return NULL;
}

static void test_threads(void)
{
    Storm storm = { .rounds = 60 };
    StormThread threads[CONTEXTS];
    pthread_barrier_t begin;
    uint64_t seed = test_seed();

    g_assert_cmpint(co_run_blocking(storm_setup, &storm), ==, 0);
    pthread_barrier_init(&begin, NULL, CONTEXTS);
    for (unsigned i = 0; i < CONTEXTS; i++) {
        threads[i] = (StormThread){ &storm, (uint32_t)seed + i, &begin, 0 };
        pthread_create(&threads[i].id, NULL, storm_thread, &threads[i]);
    }
    for (unsigned i = 0; i < CONTEXTS; i++) {
        pthread_join(threads[i].id, NULL);
    }
    pthread_barrier_destroy(&begin);
    g_assert_cmpint(co_run_blocking(storm_teardown, &storm), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    slow_register();
    g_test_add_func("/storm/in the seeded scheduler", test_sim);
    g_test_add_func("/storm/in threads", test_threads);
    return g_test_run();
}
