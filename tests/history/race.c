/* SPDX-License-Identifier: MIT */
/*
 * Several contexts on one image: the same few clusters of 512 bytes, caches of two slices, a disk that
 * reorders requests and lets some of them wait for long; among the requests drains, reopens, other handles,
 * growth, shrinking, checks, cancelled requests. Content against a model, metadata by a check at each close.
 *
 *     BDRV_RACE_REQUESTS=n   about so many requests a case (default 4000, light and seeded 1000; the long form takes 1000000)
 *     BDRV_TEST_SEED=n       the same run again (deterministic cases)
 */

#include <stdlib.h>

#include "tests/conformance/stacks.h"
#include "tests/lib/test-node.h"

#define CONCURRENCY 48

static void run(const ConformanceStack *stack, ConformanceMode mode, unsigned requests)
{
    const char *text = g_getenv("BDRV_RACE_REQUESTS");
    unsigned some = stack->variant ? requests / 4 : requests;
    unsigned count = text ? (unsigned)atoi(text) : some;
    ConformanceRun how = {
        .mode = mode, .contexts = 2, .concurrency = CONCURRENCY, .lanes = 20, .overlap = true, .races = true,
        .rounds = count / (CONCURRENCY / 2) + 1, .reopen_every = 40, .seed = test_seed(),
    };
    ConformanceResult result = conformance_run(stack, &how);

    g_test_message("%s: %" G_GUINT64_FORMAT " requests", stack->name, result.requests);
}

static void deterministic(gconstpointer data)
{
    run(data, CONFORMANCE_SIM, test_amount(4000, 1000));
}

static void threads(gconstpointer data)
{
    run(data, CONFORMANCE_THREADS, 4000);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (const ConformanceStack *stack = race_stacks; stack->name; stack++) {
        g_autofree char *seeded = g_strdup_printf("/race/seeded contexts keep the model: %s", stack->name);
        g_autofree char *threaded = g_strdup_printf("/race/threads keep the model: %s", stack->name);
        g_test_add_data_func(seeded, stack, deterministic);
        g_test_add_data_func(threaded, stack, threads);
    }
    return g_test_run();
}
