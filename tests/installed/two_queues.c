/* SPDX-License-Identifier: MIT */
/* Two threads, each with a queue of its own on one image: two_queues IMAGE */
#include <bdrv/bdrv.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define DEPTH 16
#define REQUESTS 256
#define BYTES 4096

typedef struct Worker {
    BlockBackend *blk;
    int64_t offset;
    unsigned done, failed;
} Worker;

static void run(Worker *worker, BlkQueue *queue, BlkOp op)
{
    static _Thread_local unsigned char bufs[DEPTH][BYTES];
    struct iovec vecs[DEPTH];
    BdrvIov iovs[DEPTH];
    BlkQueueCompletion completions[DEPTH];
    unsigned next = 0, ended = 0;

    while (ended < REQUESTS) {
        /* A round after the other: a buffer is free again when its request has been reaped. */
        for (unsigned slot = 0; slot < DEPTH && next < REQUESTS; slot++, next++) {
            BlkSubmission submission = { .op = op, .offset = worker->offset + (int64_t)next * BYTES, .user_data = next };

            memset(bufs[slot], op == BLK_OP_WRITE ? (int)next % 251 : 0xff, BYTES);
            iovs[slot] = BDRV_IOV_BUF(vecs[slot], bufs[slot], BYTES);
            submission.iov = &iovs[slot];
            worker->failed += !blk_queue_submit(queue, &submission);
        }
        blk_queue_ring(queue);
        while (ended < next) {
            unsigned n = blk_queue_wait(queue, completions, DEPTH);

            for (unsigned i = 0; i < n; i++) {
                unsigned slot = completions[i].user_data % DEPTH;

                worker->failed += completions[i].result < 0 || bufs[slot][BYTES - 1] != completions[i].user_data % 251;
            }
            ended += n;
        }
    }
    worker->done += ended;
}

static void *work(void *opaque)
{
    Worker *worker = opaque;
    BlkQueue *queue = blk_queue_new(worker->blk, DEPTH, NULL);

    if (!queue) {
        worker->failed++;
        return NULL;
    }
    run(worker, queue, BLK_OP_WRITE);
    run(worker, queue, BLK_OP_READ);
    worker->failed += blk_queue_free(queue) != 0;
    return NULL;
}

int main(int argc, char **argv)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autoptr(GError) error = NULL;
    BlockBackend *disk = argc == 2 ? blk_open(graph, argv[1], NULL, BDRV_O_RDWR, &error) : NULL;
    Worker workers[2] = { { .blk = disk }, { .blk = disk, .offset = 4 << 20 } };
    pthread_t threads[2];

    if (!disk) {
        fprintf(stderr, "%s\n", error ? error->message : "which image?");
        return 1;
    }
    for (int i = 0; i < 2; i++) {
        if (pthread_create(&threads[i], NULL, work, &workers[i]) != 0) {
            return 1;
        }
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        printf("%u requests, %u failed\n", workers[i].done, workers[i].failed);
    }
    return !blk_close(disk, &error) || workers[0].failed || workers[1].failed;
}
