/* SPDX-License-Identifier: MIT */

/*
 * Every I/O engine in every cache mode under raw and qcow2, on the file system of the temporary directory.
 *
 *     BDRV_TEST_SEED=n      the same run again
 *     BDRV_TEST_LONG=1      thousands of requests for each stack, and more kinds of runs
 *     BDRV_TEST_ROUNDS=n    rounds of a run (default 50, 20 in the light form, long 400)
 */

#include "config.h"

#include <string.h>

#include "files.h"
#include "tests/lib/test-node.h"

#ifdef CONFIG_LIBURING
#include <liburing.h>
#endif

#define MIB (1024 * 1024)

static const struct {
    const char *name;
    bool direct_only;
} engines[] = { { "threads" }, { "native", .direct_only = true }, { "io_uring" }, { "auto" } };

static const struct {
    const char *name;
    BdrvOpenFlags flags;
} modes[] = {
    { "writeback", 0 },
    { "none", BDRV_O_NOCACHE },
    { "writethrough", BDRV_O_WRITETHROUGH },
    { "directsync", BDRV_O_NOCACHE | BDRV_O_WRITETHROUGH },
    { "unsafe", BDRV_O_NO_FLUSH },
};

static const struct {
    const char *name, *options;
    ConformanceFile file;
    int64_t length, room;
} images[] = {
    { .name = "raw", .options = "driver=raw", .file = { .format = "raw" }, .length = MIB },
    { .name = "qcow2",
      .options = "driver=qcow2",
      .file = { .format = "qcow2" },
      .length = 2 * MIB,
      .room = 2 * MIB },
    { .name = "qcow2-small",
      .options = "driver=qcow2,l2-cache-entry-size=512,l2-cache-size=1k,refcount-cache-size=1k",
      .file = { .format = "qcow2", .options = "cluster_size=512,refcount_bits=64" },
      .length = MIB,
      .room = MIB },
    { .name = "qcow2-backing",
      .options = "driver=qcow2",
      .file = { .format = "qcow2", .options = "cluster_size=16k", .backing = "qcow2" },
      .length = MIB + 512,
      .room = MIB },
    /* All requests meet in few clusters, which are freed and used again all the time. */
    { .name = "qcow2-crowded",
      .options = "driver=qcow2",
      .file = { .format = "qcow2", .options = "cluster_size=4k,refcount_bits=1" },
      .length = 100000 / 512 * 512,
      .room = 100 * 1024 },
};

static const struct {
    const char *name;
    ConformanceRun run;
    bool only_long;
} runs[] = {
    { "2 threads overlapping",
      { .mode = CONFORMANCE_THREADS, .contexts = 2, .concurrency = 16, .overlap = true, .reopen_every = 8 } },
    { "4 threads apart",
      { .mode = CONFORMANCE_THREADS, .contexts = 4, .concurrency = 32, .idle = true, .reopen_every = 30 },
      .only_long = true },
    { "one at a time",
      { .mode = CONFORMANCE_THREADS, .contexts = 1, .concurrency = 1, .reopen_every = 10 },
      .only_long = true },
    { "3 simulated contexts",
      { .mode = CONFORMANCE_SIM, .contexts = 3, .concurrency = 16, .overlap = true, .reopen_every = 20 },
      .only_long = true },
};

typedef struct Case {
    ConformanceStack stack;
    const ConformanceRun *run;
    bool need_io_uring;
} Case;

/* The library falls back in silence: what is to be tested must be there. Where CI is set, a lack of it fails.
 */
static bool have_io_uring(void)
{
#ifdef CONFIG_LIBURING
    struct io_uring ring;

    if (io_uring_queue_init(4, &ring, 0) == 0) {
        io_uring_queue_exit(&ring);
        return true;
    }
#endif
    return false;
}

static void run_case(gconstpointer data)
{
    const Case *test = data;
    const char *rounds = g_getenv("BDRV_TEST_ROUNDS");
    ConformanceRun run = *test->run;

    if (test->need_io_uring && !have_io_uring()) {
#ifdef CONFIG_LIBURING
        g_assert_null(g_getenv("CI"));
#endif
        g_test_skip("io_uring is missing");
        return;
    }
    run.rounds = rounds ? g_ascii_strtoull(rounds, NULL, 0) : g_getenv("BDRV_TEST_LONG") ? 400 : test_amount(50, 20);
    run.seed = test_seed();
    conformance_run(&test->stack, &run);
}

static GPtrArray *cases; /* as long as the program; GLib drops its own list before leaks are looked for */

static void add_case(unsigned image, unsigned engine, unsigned mode, unsigned run)
{
    Case *test = g_new(Case, 1);
    g_autofree char *path = g_strdup_printf("/engines/%s/%s, %s, %s", images[image].name,
                                            engines[engine].name, modes[mode].name, runs[run].name);

    *test = (Case){
        .run = &runs[run].run,
        .need_io_uring = g_str_equal(engines[engine].name, "io_uring"),
        .stack = {
            .name = g_strdup(strrchr(path, '/') + 1),
            .options = g_strdup_printf("%s,file.driver=file,file.filename=%%DIR%%/disk,file.aio=%s",
                                       images[image].options, engines[engine].name),
            .length = images[image].length,
            .room = images[image].room,
            .resize = !images[image].room,
            .torn_reads = true,
            .flags = modes[mode].flags,
            .setup = conformance_file_setup,
            .teardown = conformance_file_teardown,
            .inspect = images[image].room ? conformance_check_image : NULL,
            .data = &images[image].file,
        },
    };
    g_ptr_array_add(cases, test);
    g_test_add_data_func(path, test, run_case);
}

int main(int argc, char **argv)
{
    bool all = g_getenv("BDRV_TEST_LONG") != NULL;

    g_test_init(&argc, &argv, NULL);
    cases = g_ptr_array_new();
    for (unsigned i = 0; i < G_N_ELEMENTS(images); i++) {
        for (unsigned e = 0; e < G_N_ELEMENTS(engines); e++) {
            for (unsigned m = 0; m < G_N_ELEMENTS(modes); m++) {
                bool possible = !engines[e].direct_only || (modes[m].flags & BDRV_O_NOCACHE);

                for (unsigned r = 0; possible && r < G_N_ELEMENTS(runs); r++) {
                    if (all || !runs[r].only_long) {
                        add_case(i, e, m, r);
                    }
                }
            }
        }
    }
    return g_test_run();
}
