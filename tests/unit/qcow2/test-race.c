/* SPDX-License-Identifier: MIT */
/*
 * Several contexts on one qcow2 node: the same few clusters of 512 bytes, caches of two slices, a disk
 * that reorders requests; content against a model after each round, metadata by a check at each close.
 *
 *     BDRV_RACE_REQUESTS=n   about so many requests a case (default 4000; the long form takes 1000000)
 *     BDRV_TEST_SEED=n       the same run again (deterministic cases)
 *
 * Built again with planted bugs (QCOW2_PLANT_…) it asserts that they are found.
 */

#include <bdrv/simdisk.h>
#include <stdlib.h>

#include "tests/lib/conformance.h"
#include "tests/lib/test-node.h"

#define SMALL "driver=qcow2,discard=unmap,l2-cache-size=1k,refcount-cache-size=1k,l2-cache-entry-size=512,"
#define ON_DISK "file.driver=simdisk,file.disk=%ID%,file.discard=unmap"

typedef struct Setup {
    const char *create; /* options */
    bool backing;
    bool slow;
} Setup;

static GHashTable *disks; /* name -> BdrvSimDisk * */

static BdrvSimDisk *add_disk(const char *name, int64_t bytes)
{
    BdrvSimDisk *disk = bdrv_simdisk_new(name, bytes);
    g_assert_nonnull(disk);
    g_hash_table_insert(disks, g_strdup(name), disk);
    return disk;
}

static void setup(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir, uint8_t *content)
{
    const Setup *how = stack->data;
    BdrvSimDisk *disk = add_disk(id, 0);
    g_autofree char *filename = g_strdup_printf("simdisk:%s", id);
    GError *error = NULL;
    BdrvOptions *options = bdrv_options_parse(how->create, NULL, &error);

    g_assert_no_error(error);
    bdrv_simdisk_set_volatile(disk, false); /* no power is cut here: keep no log */
    bdrv_options_set_int(options, "size", stack->length);
    bdrv_create_image(graph, "qcow2", filename, options, &error);
    g_assert_no_error(error);
    if (how->slow) {
        bdrv_simdisk_set_delay(disk, 0, 20000);
    }
    if (how->backing) {
        g_autofree char *name = g_strdup_printf("%s-backing", id);
        int64_t length = stack->length * 3 / 4 + 100;
        memset(content, 0x5a, (size_t)length);
        bdrv_simdisk_poke(add_disk(name, length), 0, content, (size_t)length);
    }
}

static void teardown(const ConformanceStack *stack, const char *id, const char *dir)
{
    g_autofree char *name = g_strdup_printf("%s-backing", id);
    g_hash_table_remove(disks, id);
    g_hash_table_remove(disks, name);
}

static void report(void *opaque, bool is_corruption, const char *text)
{
    g_test_message("check: %s", text);
}

static void inspect(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir)
{
    BdrvCheckResult result = { .report = report };
    GError *error = NULL;
    g_autofree char *text = conformance_expand("driver=qcow2," ON_DISK, id, dir);
    BlockBackend *blk = blk_open(graph, NULL, bdrv_options_parse(text, NULL, &error), BDRV_O_CHECK, &error);
    g_assert_no_error(error);
    blk_check(blk, &result, BDRV_FIX_NONE, &error);
    g_assert_no_error(error);
    if (result.corruptions || result.check_errors || result.leaks) {
        g_error("check: %" G_GINT64_FORMAT " corruptions, %" G_GINT64_FORMAT " leaks", result.corruptions,
                result.leaks);
    }
    blk_close(blk, &error);
    g_assert_no_error(error);
}

static const Setup plain = { .create = "cluster_size=512", .slow = true };
static const Setup v2 = { .create = "cluster_size=512,compat=0.10", .slow = true };
static const Setup wide = { .create = "cluster_size=512,refcount_bits=64", .slow = true };
static const Setup overlay = { .create = "cluster_size=512,refcount_bits=1", .backing = true, .slow = true };
static const Setup normal = { .create = "cluster_size=4096", .slow = false };

static const ConformanceStack stacks[] = {
    { .name = "plain", .options = SMALL ON_DISK, .length = 48 * 1024, .unit = 512, .setup = setup, .teardown = teardown,
      .inspect = inspect, .data = &plain },
    { .name = "version 2", .options = SMALL ON_DISK, .length = 48 * 1024, .unit = 512, .setup = setup,
      .teardown = teardown, .inspect = inspect, .data = &v2 },
    { .name = "64-bit refcounts", .options = SMALL ON_DISK, .length = 256 * 1024, .unit = 512, .setup = setup,
      .teardown = teardown, .inspect = inspect, .data = &wide },
    { .name = "backing file", .options = SMALL ON_DISK ",backing.driver=simdisk,backing.disk=%ID%-backing",
      .length = 48 * 1024, .unit = 512, .setup = setup, .teardown = teardown, .inspect = inspect, .data = &overlay },
    { .name = "default caches", .options = "driver=qcow2," ON_DISK, .length = 256 * 1024, .unit = 512, .setup = setup,
      .teardown = teardown, .inspect = inspect, .data = &normal },
};

#define CONCURRENCY 24

static void run(const ConformanceStack *stack, ConformanceMode mode, unsigned contexts, uint64_t seed, unsigned count)
{
    ConformanceRun how = {
        .mode = mode, .contexts = contexts, .concurrency = CONCURRENCY, .overlap = true,
        .rounds = count / (CONCURRENCY / 2) + 1, .reopen_every = 60, .seed = seed,
    };
    disks = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)bdrv_simdisk_unref);
    conformance_run(stack, &how);
    g_hash_table_destroy(disks);
}

#if defined(QCOW2_PLANT_SKIP_LIMBO) || defined(QCOW2_PLANT_NO_INFLIGHT)

/* Some seed must fail. */
static void plant_is_found(void)
{
    if (g_test_subprocess()) {
        for (uint64_t seed = 1; seed <= 500; seed++) {
            run(&stacks[seed % 5], CONFORMANCE_SIM, 2 + seed % 2, seed, 6000);
        }
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/race/a planted bug is found", plant_is_found);
    return g_test_run();
}

#else

static unsigned requests(void)
{
    const char *text = g_getenv("BDRV_RACE_REQUESTS");
    return text ? (unsigned)atoi(text) : 4000;
}

static void deterministic(gconstpointer data)
{
    uint64_t seed = test_seed();
    run(data, CONFORMANCE_SIM, 2, seed, requests() / 2);
    run(data, CONFORMANCE_SIM, 3, seed + 1, requests() / 2);
}

static void threads(gconstpointer data)
{
    run(data, CONFORMANCE_THREADS, 2, test_seed(), requests());
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(stacks); i++) {
        g_autofree char *seeded = g_strdup_printf("/qcow2/race/seeded contexts keep the model: %s", stacks[i].name);
        g_autofree char *threaded = g_strdup_printf("/qcow2/race/threads keep the model: %s", stacks[i].name);
        g_test_add_data_func(seeded, &stacks[i], deterministic);
        g_test_add_data_func(threaded, &stacks[i], threads);
    }
    return g_test_run();
}

#endif
