/* SPDX-License-Identifier: MIT */

/*
 * Every stack of the table, with several levels of concurrency, in threads and in deterministic runs.
 *
 *     BDRV_TEST_SEED=n      the same run again
 *     BDRV_TEST_ROUNDS=n    longer runs (default 100; 40 in the light form)
 *     BDRV_TEST_STACK=name  only one stack
 *
 * To add a stack: a row in stacks.c.
 */

#include "stacks.h"
#include "tests/lib/test-node.h"

/* ---- runs ---- */

static const struct {
    const char *name;
    ConformanceRun run;
} runs[] = {
    { "one at a time", { .mode = CONFORMANCE_SIM, .contexts = 1, .concurrency = 1, .reopen_every = 20 } },
    { "16 apart, 2 simulated contexts",
      { .mode = CONFORMANCE_SIM, .contexts = 2, .concurrency = 16, .reopen_every = 20 } },
    { "16 overlapping, 3 simulated contexts",
      { .mode = CONFORMANCE_SIM, .contexts = 3, .concurrency = 16, .overlap = true, .reopen_every = 20 } },
    { "24 overlapping, 4 threads",
      { .mode = CONFORMANCE_THREADS,
        .contexts = 4,
        .concurrency = 24,
        .idle = true,
        .overlap = true,
        .reopen_every = 20 } },
};

typedef struct Case {
    const ConformanceStack *stack;
    const ConformanceRun *run;
} Case;

static void run_case(gconstpointer data)
{
    const Case *test = data;
    const char *rounds = g_getenv("BDRV_TEST_ROUNDS");
    ConformanceRun run = *test->run;

    run.rounds = rounds ? g_ascii_strtoull(rounds, NULL, 0) : test_amount(100, 40);
    run.seed = test_seed();
    conformance_run(test->stack, &run);
}

static void add_cases(const ConformanceStack *stack)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(runs); i++) {
        g_autofree char *path = g_strdup_printf("/conformance/%s/%s", stack->name, runs[i].name);
        Case *test = g_new(Case, 1);

        *test = (Case){ .stack = stack, .run = &runs[i].run };
        g_test_add_data_func_full(path, test, run_case, g_free);
    }
}

int main(int argc, char **argv)
{
    const char *only = g_getenv("BDRV_TEST_STACK");

    g_test_init(&argc, &argv, NULL);
    for (const ConformanceStack *stack = conformance_stacks; stack->name; stack++) {
        if (!only || g_str_equal(only, stack->name)) {
            add_cases(stack);
        }
    }
    return g_test_run();
}
