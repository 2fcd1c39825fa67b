/* SPDX-License-Identifier: MIT */

/*
 * bench-flavours: what a request costs an embedder. The same reads of 4 KiB, one behind the other, through the queue, the
 * callback and the blocking flavour: nanoseconds a request, the best of some rounds in turns.
 *
 *     bench-flavours OPTIONS [DEPTH [REQUESTS [FLAVOUR]]]
 *     bench-flavours driver=null-co,size=1073741824
 *     bench-flavours driver=qcow2,file.driver=file,file.filename=disk.qcow2 64 1000000
 *     bdrv-img bench -d 64 -c 1000000 disk.qcow2           (goes through a queue, too)
 *
 * With BENCH_PINNED in the environment the context knows the memory of the buffers (for cache.direct=on).
 * With FLAVOUR (queue, callback, blocking) only that one and one round, for a profiler.
 */

#include <bdrv/bdrv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BYTES 4096
#define DEPTH_MAX 1024
#define REAP_MAX 64
#define ROUNDS 5

typedef struct Bench Bench;

/* A buffer and the request that uses it. */
typedef struct Slot {
    Bench *bench;
    struct iovec vec;
    BdrvIov iov;
} Slot;

struct Bench {
    BlockBackend *blk;
    Slot slots[DEPTH_MAX];
    unsigned depth;
    long requests, started, ended;
    int64_t length, offset;
};

static void check(int ret)
{
    if (ret < 0) {
        fprintf(stderr, "request failed: %s\n", strerror(-ret));
        exit(1);
    }
}

static int64_t next_offset(Bench *bench)
{
    int64_t offset = bench->offset;

    bench->offset += BYTES;
    if (bench->offset > bench->length - BYTES) {
        bench->offset = 0;
    }
    bench->started++;
    return offset;
}

static void submit(BlkQueue *queue, Bench *bench, unsigned slot)
{
    BlkSubmission submission = {
        .op = BLK_OP_READ,
        .offset = next_offset(bench),
        .iov = &bench->slots[slot].iov,
        .user_data = slot,
    };

    blk_queue_submit(queue, &submission); /* there is room: slots are counted */
}

static void through_queue(Bench *bench)
{
    BlkQueueCompletion completions[REAP_MAX];
    BlkQueue *queue = blk_queue_new(bench->blk, bench->depth, NULL);

    for (unsigned i = 0; i < bench->depth && bench->started < bench->requests; i++) {
        submit(queue, bench, i);
    }
    while (bench->ended < bench->requests) {
        unsigned n = blk_queue_wait(queue, completions, REAP_MAX); /* rings */

        for (unsigned i = 0; i < n; i++) {
            check(completions[i].result);
            bench->ended++;
            if (bench->started < bench->requests) {
                submit(queue, bench, (unsigned)completions[i].user_data);
            }
        }
    }
    blk_queue_free(queue);
}

static void on_end(void *opaque, int ret)
{
    Slot *slot = opaque;
    Bench *bench = slot->bench;

    check(ret);
    bench->ended++;
    if (bench->started < bench->requests) {
        blk_aio_preadv(bench->blk, next_offset(bench), &slot->iov, 0, on_end, slot);
    }
}

static void through_callbacks(Bench *bench)
{
    for (unsigned i = 0; i < bench->depth && bench->started < bench->requests; i++) {
        blk_aio_preadv(bench->blk, next_offset(bench), &bench->slots[i].iov, 0, on_end, &bench->slots[i]);
    }
    while (bench->ended < bench->requests) {
        aio_context_run(aio_context_current(), true);
    }
}

static void blocking(Bench *bench)
{
    while (bench->ended++ < bench->requests) {
        check(blk_preadv(bench->blk, next_offset(bench), &bench->slots[0].iov, 0));
    }
}

static const struct {
    const char *name;
    void (*run)(Bench *bench);
} flavours[] = { { "queue", through_queue }, { "callback", through_callbacks }, { "blocking", blocking } };

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1e9 + ts.tv_nsec;
}

/* ns a request */
static double measure(Bench *bench, void (*run)(Bench *bench))
{
    double start = now_ns();

    bench->started = bench->ended = bench->offset = 0;
    run(bench);
    return (now_ns() - start) / bench->requests;
}

static void measure_all(Bench *bench)
{
    double best[G_N_ELEMENTS(flavours)] = { 0 };

    for (int round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(flavours); i++) {
            double ns = measure(bench, flavours[i].run);

            best[i] = round == 0 ? ns : MIN(best[i], ns);
        }
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(flavours); i++) {
        printf("%-9s depth %3u %8.1f ns, %.2f of the queue's\n", flavours[i].name, bench->depth, best[i],
               best[i] / best[0]);
    }
}

static bool measure_one(Bench *bench, const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(flavours); i++) {
        if (g_str_equal(flavours[i].name, name)) {
            printf("%-9s depth %3u %8.1f ns\n", name, bench->depth, measure(bench, flavours[i].run));
            return true;
        }
    }
    fprintf(stderr, "no flavour '%s'; there are queue, callback and blocking\n", name);
    return false;
}

int main(int argc, char **argv)
{
    static Bench bench;
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BdrvOptions *options;
    uint8_t *memory;
    GError *error = NULL;
    bool ok = true;

    if (argc < 2 || argc > 5) {
        fprintf(stderr, "usage: %s OPTIONS [DEPTH [REQUESTS [FLAVOUR]]]\n", argv[0]);
        return 2;
    }
    bench.depth = argc > 2 ? (unsigned)CLAMP(atoi(argv[2]), 1, DEPTH_MAX) : 64;
    bench.requests = argc > 3 ? MAX(atol(argv[3]), 1) : 1000000;
    options = bdrv_options_parse(argv[1], NULL, &error);
    bench.blk = options ? blk_open(graph, NULL, options, 0, &error) : NULL;
    if (!bench.blk || blk_length(bench.blk) < BYTES) {
        fprintf(stderr, "%s\n", error ? error->message : "the disk is shorter than a request");
        return 1;
    }
    bench.length = blk_length(bench.blk);
    memory = blk_blockalign(bench.blk, (size_t)bench.depth * BYTES);
    for (unsigned i = 0; i < bench.depth; i++) {
        Slot *slot = &bench.slots[i];

        *slot = (Slot){ .bench = &bench };
        slot->iov = BDRV_IOV_BUF(slot->vec, memory + (size_t)i * BYTES, BYTES);
    }
    if (g_getenv("BENCH_PINNED")) {
        aio_context_add_memory(aio_context_current(), memory, (size_t)bench.depth * BYTES);
    }
    if (argc > 4) {
        ok = measure_one(&bench, argv[4]);
    } else {
        measure_all(&bench);
    }
    aio_context_remove_memory(aio_context_current(), memory);
    bdrv_vfree(memory);
    return blk_close(bench.blk, NULL) && ok ? 0 : 1;
}
