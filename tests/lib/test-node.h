/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_NODE_H
#define BDRV_TEST_NODE_H

/*
 * Stacks of nodes made by hand, without graph, open and backend: for tests of the request layer and
 * of drivers alone. All functions but test_seed(), test_amount(), test_parse() and test_run() run in a coroutine.
 */

#include "block/io/io.h"

/* ID of a secret that every node finds, for images that are encrypted. */
#define TEST_SECRET "key"
#define TEST_PASSPHRASE "passphrase"

/* All secrets that it finds; the first one is the above. */
#define TEST_SECRETS 3
extern const char *const test_secrets[TEST_SECRETS], *const test_passphrases[TEST_SECRETS];

/** test_seed() - BDRV_TEST_SEED, or a new one; printed */
uint64_t test_seed(void);
/** test_amount() - @light in builds whose tests take the light form (-Dtests_form), else @shorter */
unsigned test_amount(unsigned shorter, unsigned light);
/** test_parse() - take a program's own options and leave GTest its; false: told what is wrong */
bool test_parse(int *argc, char ***argv, const char *about, const GOptionEntry *entries);
uint64_t test_random(uint64_t *state);
/** test_random_below() - 0 .. @limit - 1 */
int64_t test_random_below(uint64_t *state, int64_t limit);

/** test_run() - run @body in a coroutine of a deterministic run (virtual time), and all it starts, to the end
 */
void blocking_fn test_run(void (*body)(void));

/** test_run_seeded() - test_run() with a seed that the caller knows and an argument */
void blocking_fn test_run_seeded(uint64_t seed, CoroutineEntry *entry, void *opaque);

/** test_start() - start a coroutine in the calling one's context; it begins at the next yield */
void coroutine_fn test_start(CoroutineEntry *entry, void *opaque);

/**
 * test_open() - a node with an edge above it that has all rights
 * @options: "key=value,…" of the driver
 * @file: edge to the child "file", taken; NULL: none
 */
BdrvChild *coroutine_fn test_open(const char *driver, const char *options, BdrvChild *file,
                                  BdrvOpenFlags flags, GError **errp);
/** test_try_open() with an error that fails the test */
BdrvChild *coroutine_fn test_must_open(const char *driver, const char *options, BdrvChild *file);
/** test_set_backing() - hang @backing (taken) under @child's node */
void test_set_backing(BdrvChild *child, BdrvChild *backing);
/** test_set_data_file() - the same for an external data file */
void test_set_data_file(BdrvChild *child, BdrvChild *data_file);
/** test_close() - closes what is under it too */
void coroutine_fn test_close(BdrvChild *child);

#endif
