/* SPDX-License-Identifier: MIT */

/*
 * Every stack of the table, with several levels of concurrency, in threads and in deterministic runs.
 *
 *     BDRV_TEST_SEED=n      the same run again
 *     BDRV_TEST_ROUNDS=n    longer runs (default 150)
 *     BDRV_TEST_STACK=name  only one stack
 *
 * To add a stack: a row in stacks[], with a setup function if something has to be made first.
 */

#include <bdrv/simdisk.h>
#include <string.h>

#include "files.h"
#include "tests/lib/test-node.h"

#define MIB (1024 * 1024)

/* ---- simdisk ---- */

typedef struct SimSetup {
    BdrvLimits limits;
    unsigned unsupported;
    bool no_fua, slow;
    int64_t extra; /* bytes that the disk is longer than the image */
} SimSetup;

static GHashTable *disks; /* id -> BdrvSimDisk * */

static void sim_setup(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                      uint8_t *content)
{
    const SimSetup *setup = stack->data;
    BdrvSimDisk *disk = bdrv_simdisk_new(id, stack->length + (setup ? setup->extra : 0));

    g_assert_nonnull(disk);
    if (setup) {
        bdrv_simdisk_set_limits(disk, &setup->limits);
        bdrv_simdisk_set_unsupported(disk, setup->unsupported);
        bdrv_simdisk_set_fua(disk, !setup->no_fua);
        bdrv_simdisk_set_delay(disk, 0, setup->slow ? 20000 : 0);
    }
    g_hash_table_insert(disks, g_strdup(id), disk);
}

static void sim_teardown(const ConformanceStack *stack, const char *id, const char *dir)
{
    g_hash_table_remove(disks, id);
    g_assert_null(bdrv_simdisk_find(id)); /* all nodes are closed */
}

static const ConformanceFile window = { .format = "raw", .extra = 100 };

static const ConformanceFile qcow2 = { .format = "qcow2" };
static const ConformanceFile qcow2_small = { .format = "qcow2", .options = "cluster_size=512" };
static const ConformanceFile qcow2_v2 = { .format = "qcow2", .options = "compat=0.10,cluster_size=4k" };
static const ConformanceFile qcow2_bits = { .format = "qcow2", .options = "cluster_size=1k,refcount_bits=1" };
static const ConformanceFile qcow2_large = { .format = "qcow2", .options = "cluster_size=2M,refcount_bits=64" };
static const ConformanceFile qcow2_over_raw = { .format = "qcow2", .options = "cluster_size=4k", .backing = "raw" };
static const ConformanceFile qcow2_over_qcow2 = { .format = "qcow2", .backing = "qcow2" };
static const ConformanceFile qcow2_v2_over_raw = { .format = "qcow2", .options = "compat=0.10", .backing = "raw" };

static const SimSetup blocks = {
    .limits = { .request_alignment = 4096, .mem_alignment = 512, .max_transfer = 65536 }
};
static const SimSetup picky = { .limits = { .request_alignment = 512,
                                            .max_iov = 2,
                                            .max_transfer = 9000,
                                            .pwrite_zeroes_alignment = 4096,
                                            .max_pwrite_zeroes = 20000,
                                            .pdiscard_alignment = 4096,
                                            .max_pdiscard = 20000 } };
static const SimSetup poor = { .limits = { .request_alignment = 1 },
                               .unsupported = BDRV_SIM_ZERO | BDRV_SIM_DISCARD | BDRV_SIM_COPY,
                               .no_fua = true };
static const SimSetup slow = { .limits = { .request_alignment = 512 }, .slow = true };
static const SimSetup longer = { .limits = { .request_alignment = 512 }, .extra = 5000 };

static const ConformanceStack stacks[] = {
    { .name = "simdisk",
      .options = "driver=simdisk,disk=%ID%",
      .length = MIB,
      .resize = true,
      .setup = sim_setup,
      .teardown = sim_teardown },
    { .name = "raw on simdisk",
      .options = "driver=raw,file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .resize = true,
      .setup = sim_setup,
      .teardown = sim_teardown },
    { .name = "raw window on blocks",
      .options = "driver=raw,offset=1000,size=1M,file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .skew = 1000 % 512,
      .setup = sim_setup,
      .teardown = sim_teardown,
      .data = &longer },
    { .name = "blocks of 4096",
      .options = "driver=raw,file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .setup = sim_setup,
      .teardown = sim_teardown,
      .data = &blocks },
    { .name = "limits everywhere",
      .options = "driver=raw,file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .setup = sim_setup,
      .teardown = sim_teardown,
      .data = &picky },
    { .name = "nothing but reads and writes",
      .options = "driver=raw,file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .setup = sim_setup,
      .teardown = sim_teardown,
      .data = &poor },
    { .name = "slow blocks of 512",
      .options = "driver=raw,file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .setup = sim_setup,
      .teardown = sim_teardown,
      .data = &slow },
    { .name = "file",
      .options = "driver=raw,file.driver=file,file.filename=%DIR%/disk",
      .length = MIB,
      .resize = true,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown },
    { .name = "file, threads",
      .options = "driver=raw,file.driver=file,file.filename=%DIR%/disk,file.aio=threads",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown },
    { .name = "file, direct",
      .length = MIB,
      .flags = BDRV_O_NOCACHE,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .options = "driver=raw,file.driver=file,file.filename=%DIR%/disk" },
    { .name = "file, direct, native",
      .length = MIB,
      .flags = BDRV_O_NOCACHE,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .options = "driver=raw,file.driver=file,file.filename=%DIR%/disk,file.aio=native" },
    { .name = "file window, direct",
      .length = MIB,
      .flags = BDRV_O_NOCACHE,
      .skew = 100,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .data = &window,
      .options = "driver=raw,offset=100,file.driver=file,file.filename=%DIR%/disk" },
    { .name = "qcow2",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .options = "driver=qcow2,file.driver=file,file.filename=%DIR%/disk",
      .data = &qcow2 },
    { .name = "qcow2, 512-byte clusters",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .options = "driver=qcow2,file.driver=file,file.filename=%DIR%/disk",
      .data = &qcow2_small },
    { .name = "qcow2 v2",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .options = "driver=qcow2,file.driver=file,file.filename=%DIR%/disk",
      .data = &qcow2_v2 },
    { .name = "qcow2, 1-bit refcounts",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .options = "driver=qcow2,file.driver=file,file.filename=%DIR%/disk",
      .data = &qcow2_bits },
    { .name = "qcow2, 2 MiB clusters",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .options = "driver=qcow2,file.driver=file,file.filename=%DIR%/disk",
      .data = &qcow2_large },
    { .name = "qcow2 over raw",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .options = "driver=qcow2,file.driver=file,file.filename=%DIR%/disk",
      .data = &qcow2_over_raw },
    { .name = "qcow2 over qcow2",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .options = "driver=qcow2,file.driver=file,file.filename=%DIR%/disk",
      .data = &qcow2_over_qcow2 },
    { .name = "qcow2 v2 over raw",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .options = "driver=qcow2,file.driver=file,file.filename=%DIR%/disk",
      .data = &qcow2_v2_over_raw },
    { .name = "qcow2, direct",
      .length = MIB,
      .flags = BDRV_O_NOCACHE,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .options = "driver=qcow2,file.driver=file,file.filename=%DIR%/disk",
      .data = &qcow2 },
    { .name = "qcow2, smallest caches",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .options =
          "driver=qcow2,file.driver=file,file.filename=%DIR%/disk,l2-cache-size=1k,refcount-cache-size=1k",
      .data = &qcow2_small },
};

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

    run.rounds = rounds ? g_ascii_strtoull(rounds, NULL, 0) : 150;
    run.seed = test_seed();
    conformance_run(test->stack, &run);
}

int main(int argc, char **argv)
{
    const char *only = g_getenv("BDRV_TEST_STACK");
    g_autofree Case *cases = g_new0(Case, G_N_ELEMENTS(stacks) * G_N_ELEMENTS(runs));
    int result;

    g_test_init(&argc, &argv, NULL);
    disks = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)bdrv_simdisk_unref);
    for (unsigned s = 0; s < G_N_ELEMENTS(stacks); s++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(runs) && (!only || g_str_equal(only, stacks[s].name)); i++) {
            g_autofree char *path = g_strdup_printf("/conformance/%s/%s", stacks[s].name, runs[i].name);
            Case *test = &cases[s * G_N_ELEMENTS(runs) + i];

            *test = (Case){ .stack = &stacks[s], .run = &runs[i].run };
            g_test_add_data_func(path, test, run_case);
        }
    }
    result = g_test_run();
    g_hash_table_unref(disks);
    return result;
}
