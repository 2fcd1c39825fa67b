/* SPDX-License-Identifier: MIT */
#ifndef TEST_COROUTINE_THREADS_H
#define TEST_COROUTINE_THREADS_H

/* Run coroutines in several threads, each with its own context, and wait for all of them. */

#include <bdrv/coroutine.h>

typedef struct TestCrowd {
    CoroutineEntry *entry;
    void *opaque;
    unsigned coroutines;
} TestCrowd;

typedef struct TestCrowdHere {
    const TestCrowd *crowd;
    Coroutine *root;
    unsigned left;
    bool root_waits;
} TestCrowdHere;

static inline void coroutine_fn test_crowd_member(void *opaque)
{
    TestCrowdHere *here = opaque;

    here->crowd->entry(here->crowd->opaque);
    if (--here->left == 0 && here->root_waits) {
        co_wake(here->root);
    }
}

static inline void coroutine_fn test_crowd_root(void *opaque)
{
    TestCrowdHere *here = opaque;

    here->root = co_self();
    here->left = here->crowd->coroutines;
    for (unsigned i = 0; i < here->crowd->coroutines; i++) {
        co_wake(co_new(test_crowd_member, here));
    }
    if (here->left) {
        here->root_waits = true;
        co_yield();
    }
}

static inline void *test_crowd_thread(void *opaque)
{
    TestCrowdHere here = { .crowd = opaque };

    g_assert_cmpint(co_run_blocking(test_crowd_root, &here), ==, 0);
    return NULL;
}

/* @coroutines in each of @threads run @entry(@opaque); returns when all have ended. */
static inline void run_crowd(unsigned threads, unsigned coroutines, CoroutineEntry *entry, void *opaque)
{
    TestCrowd crowd = { .entry = entry, .opaque = opaque, .coroutines = coroutines };
    pthread_t thread[16];

    g_assert_cmpuint(threads, <=, G_N_ELEMENTS(thread));
    for (unsigned i = 0; i < threads; i++) {
        g_assert_cmpint(pthread_create(&thread[i], NULL, test_crowd_thread, &crowd), ==, 0);
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(thread[i], NULL);
    }
}

#endif
