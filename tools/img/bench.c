/* SPDX-License-Identifier: MIT */
/* bench: how long a run of equal requests takes. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "tools/img/img.h"

typedef struct Bench {
    BlockBackend *blk;
    BlkQueue *queue;
    BdrvIov *iovs; /* one a slot */
    struct iovec *vecs;
    unsigned *free_slots;
    unsigned free_count;
    bool write, drain_before_flush;
    int64_t count, depth, flush_interval;
    int64_t buffer_size, step, offset, length;
    int64_t submitted, completed, since_flush;
} Bench;

enum { FLUSH_TAG = -1, REAP_BATCH = 64, MAX_FLUSHES = 64, MAX_DEPTH = 65536 - MAX_FLUSHES };

static void submit_request(Bench *bench)
{
    unsigned slot = bench->free_slots[--bench->free_count];
    BlkSubmission submission = {
        .op = bench->write ? BLK_OP_WRITE : BLK_OP_READ,
        .offset = bench->offset,
        .iov = &bench->iovs[slot],
        .user_data = slot,
    };

    bench->submitted++;
    bench->since_flush++;
    bench->offset += bench->step;
    if (bench->length > 0) {
        bench->offset %= bench->length;
    }
    if (bench->offset > bench->length - bench->buffer_size) {
        bench->offset = 0; /* qemu-img fails here, if the image is no multiple of the buffer */
    }
    blk_queue_submit(bench->queue, &submission); /* there is room: slots are counted */
}

static bool flush_is_due(const Bench *bench)
{
    return bench->flush_interval && bench->since_flush >= bench->flush_interval;
}

/* Hand over what may go now: until the depth is reached, or a flush is due. */
static unsigned submit_more(Bench *bench, unsigned *flushes_in_flight)
{
    unsigned in_flight = (unsigned)bench->depth - bench->free_count;

    while (bench->submitted < bench->count && bench->free_count > 0) {
        if (flush_is_due(bench)) {
            /* Draining: the flush waits for all before it, and what follows waits for the flush. */
            if (*flushes_in_flight == MAX_FLUSHES ||
                (bench->drain_before_flush && in_flight + *flushes_in_flight > 0)) {
                break;
            }
            BlkSubmission flush = { .op = BLK_OP_FLUSH, .user_data = (uint64_t)FLUSH_TAG };
            blk_queue_submit(bench->queue, &flush);
            (*flushes_in_flight)++;
            bench->since_flush = 0;
            if (bench->drain_before_flush) {
                break;
            }
        }
        if (bench->drain_before_flush && *flushes_in_flight > 0) {
            break;
        }
        submit_request(bench);
        in_flight++;
    }
    blk_queue_ring(bench->queue);
    return in_flight;
}

static int run(Bench *bench)
{
    BlkQueueCompletion completions[REAP_BATCH];
    unsigned flushes_in_flight = 0;

    while (bench->completed < bench->count || flushes_in_flight > 0) {
        submit_more(bench, &flushes_in_flight);
        unsigned n = blk_queue_wait(bench->queue, completions, REAP_BATCH);

        for (unsigned i = 0; i < n; i++) {
            if (completions[i].result < 0) {
                tool_error("Failed request: %s", strerror(-completions[i].result));
                return 1;
            }
            if (completions[i].user_data == (uint64_t)FLUSH_TAG) {
                flushes_in_flight--;
                continue;
            }
            bench->completed++;
            bench->free_slots[bench->free_count++] = (unsigned)completions[i].user_data;
        }
    }
    return 0;
}

static bool set_up(Bench *bench, uint8_t **memory, int pattern)
{
    GError *error = NULL;

    *memory = blk_blockalign(bench->blk, MAX(bench->buffer_size * bench->depth, 1));
    if (!*memory) {
        tool_error("cannot allocate %" PRId64 " buffers of %" PRId64 " bytes", bench->depth, bench->buffer_size);
        return false;
    }
    memset(*memory, pattern, bench->buffer_size * bench->depth);
    bench->iovs = g_new(BdrvIov, bench->depth);
    bench->vecs = g_new(struct iovec, bench->depth);
    bench->free_slots = g_new(unsigned, bench->depth);
    for (int64_t i = 0; i < bench->depth; i++) {
        bench->iovs[i] =
            BDRV_IOV_BUF(bench->vecs[i], *memory + i * bench->buffer_size, (size_t)bench->buffer_size);
        bench->free_slots[bench->free_count++] = (unsigned)i;
    }
    /* Flushes take places of the queue besides the requests. */
    bench->queue = blk_queue_new(bench->blk, (unsigned)bench->depth + MAX_FLUSHES, &error);
    if (!bench->queue) {
        tool_report(NULL, error);
        return false;
    }
    return true;
}

static int bench_image(Bench *bench, int pattern)
{
    uint8_t *memory = NULL;
    struct timespec began, ended;
    int status = 1;

    bench->length = blk_length(bench->blk);
    printf("Sending %" PRId64 " %s requests, %" PRId64 " bytes each, %" PRId64
           " in parallel (starting at offset %" PRId64 ", step size %" PRId64 ")\n",
           bench->count, bench->write ? "write" : "read", bench->buffer_size, bench->depth, bench->offset,
           bench->step);
    if (bench->flush_interval) {
        printf("Sending flush every %" PRId64 " requests\n", bench->flush_interval);
    }
    if (set_up(bench, &memory, pattern)) {
        clock_gettime(CLOCK_MONOTONIC, &began);
        status = run(bench);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        if (status == 0) {
            printf("Run completed in %3.3f seconds.\n",
                   (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9);
        }
    }
    if (bench->queue) {
        blk_queue_free(bench->queue);
    }
    bdrv_vfree(memory);
    g_free(bench->iovs);
    g_free(bench->vecs);
    g_free(bench->free_slots);
    return status;
}

static bool check(const Bench *bench)
{
    if (!bench->write && bench->flush_interval) {
        tool_error("--flush-interval is only available in write tests");
        return false;
    }
    if (bench->flush_interval && bench->flush_interval < bench->depth) {
        tool_error("Flush interval can't be smaller than depth");
        return false;
    }
    return true;
}

int img_bench(int argc, char **argv)
{
    g_autoptr(BdrvGraph) graph = NULL;
    Bench bench = { .count = 75000, .depth = 64, .buffer_size = 4096, .drain_before_flush = true };
    ToolImage image = { 0 };
    int64_t pattern = 0;
    int option, status;

    while ((option = img_next_option(argc, argv)) != -1) {
        switch (option) {
        case 'h': return 0;
        case 'c':
            if (!img_parse_integer(optarg, "request count", 0, INT32_MAX, &bench.count)) {
                return 1;
            }
            break;
        case 'd':
            if (!img_parse_integer(optarg, "queue depth", 1, MAX_DEPTH, &bench.depth)) {
                return 1;
            }
            break;
        case 'f': image.format = optarg; break;
        case 'n': image.aio = "native"; break;
        case 'i':
            if (strcmp(optarg, "threads") != 0 && strcmp(optarg, "native") != 0 && strcmp(optarg, "io_uring") != 0) {
                tool_error("Invalid aio option: %s", optarg);
                return 1;
            }
            image.aio = optarg;
            break;
        case 'o':
            if (!img_parse_size(optarg, "offset", &bench.offset)) {
                return 1;
            }
            break;
        case 'q': break; /* as ever: there is nothing it would silence */
        case 's':
            if (!img_parse_size(optarg, "buffer size", &bench.buffer_size)) {
                return 1;
            }
            if (bench.buffer_size > INT32_MAX) {
                tool_error("Invalid buffer size specified. Must be less than or equal to %d.", INT32_MAX);
                return 1;
            }
            break;
        case 'S':
            if (!img_parse_size(optarg, "step size", &bench.step)) {
                return 1;
            }
            break;
        case 't':
            if (!img_take_cache(optarg, "cache mode", &image.flags)) {
                return 1;
            }
            break;
        case 'w':
            bench.write = true;
            image.flags |= BDRV_O_RDWR;
            break;
        case 'U': image.flags |= BDRV_O_FORCE_SHARE; break;
        case IMG_OPTION_PATTERN:
            if (!img_parse_integer(optarg, "pattern byte", 0, 255, &pattern)) {
                return 1;
            }
            break;
        case IMG_OPTION_FLUSH_INTERVAL:
            if (!img_parse_integer(optarg, "flush interval", 0, INT32_MAX, &bench.flush_interval)) {
                return 1;
            }
            break;
        case IMG_OPTION_NO_DRAIN: bench.drain_before_flush = false; break;
        case IMG_OPTION_IMAGE_OPTS: image.image_opts = true; break;
        default: return 1;
        }
    }
    if (optind != argc - 1) {
        return img_usage_error("Expecting one image file name");
    }
    if (!check(&bench)) {
        return 1;
    }
    if (!bench.step) {
        bench.step = bench.buffer_size;
    }
    image.filename = argv[optind];
    graph = tool_graph();
    bench.blk = img_open(graph, &image);
    if (!bench.blk) {
        return 1;
    }
    status = bench_image(&bench, (int)pattern);
    if (!img_close(bench.blk, image.filename)) {
        status = 1;
    }
    return status;
}
