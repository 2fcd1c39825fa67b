/* SPDX-License-Identifier: MIT */

/*
 * bench-request: what the request layer costs. Reads and writes of 4 KiB on null-co, in one coroutine
 * (no loop, no queue): nanoseconds a request, for the child call and for a BlockBackend.
 *
 *     bench-request [requests]
 */

#include <bdrv/bdrv.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BYTES 4096

typedef struct Bench {
    BlockBackend *blk;
    const BdrvIov *iov;
    long requests;
    bool write;
    double ns;
} Bench;

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1e9 + ts.tv_nsec;
}

static void coroutine_fn run(void *opaque)
{
    Bench *bench = opaque;
    double start = now_ns();

    for (long i = 0; i < bench->requests; i++) {
        int64_t offset = (i & 0xffff) * BYTES;
        int ret = bench->write ? blk_co_pwritev(bench->blk, offset, bench->iov, 0)
                               : blk_co_preadv(bench->blk, offset, bench->iov, 0);

        if (ret < 0) {
            fprintf(stderr, "request %ld: %d\n", i, ret);
            exit(1);
        }
    }
    bench->ns = (now_ns() - start) / bench->requests;
}

static void measure(const char *options, long requests)
{
    static uint8_t buf[BYTES];
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, BYTES);
    GError *error = NULL;
    Bench bench = { .iov = &iov, .requests = requests };

    bench.blk = blk_open(graph, NULL, bdrv_options_parse(options, NULL, NULL), BDRV_O_RDWR, &error);
    if (!bench.blk) {
        fprintf(stderr, "%s: %s\n", options, error->message);
        exit(1);
    }
    for (int write = 0; write < 2; write++) {
        bench.write = write;
        co_run_blocking(run, &bench);
        printf("%-40s %-5s %6.1f ns\n", options, write ? "write" : "read", bench.ns);
    }
    blk_close(bench.blk, NULL);
}

int main(int argc, char **argv)
{
    long requests = argc > 1 ? atol(argv[1]) : 10000000;

    measure("driver=null-co", requests);
    measure("driver=raw,file.driver=null-co", requests);
    measure("driver=raw,file.driver=raw,file.file.driver=null-co", requests);
    return 0;
}
