/* SPDX-License-Identifier: MIT */
/*
 * The floor under the file driver: the system calls it has to make, in plain loops without a library.
 *
 *     bench-syscall cached FILE [COUNT]                      preadv2(RWF_NOWAIT), 4 KiB, page cache warm
 *     bench-syscall direct FILE [COUNT] [DEPTH] [ENGINE]     O_DIRECT 4 KiB reads; uring or libaio
 *
 * Offsets go through the file in steps of 4 KiB and wrap, as those of 'bdrv-img bench' do. Prints
 * requests per second and nanoseconds a request.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#ifdef CONFIG_LIBURING
#include <liburing.h>
#endif

#define BLOCK 4096
#define DEPTH_MAX 1024

typedef struct Bench {
    int fd;
    long count, depth;
    off_t length, next;
    char *buffers;
} Bench;

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static off_t next_offset(Bench *b)
{
    off_t offset = b->next;

    b->next += BLOCK;
    if (b->next + BLOCK > b->length) {
        b->next = 0;
    }
    return offset;
}

static int run_cached(Bench *b)
{
    for (long i = 0; i < b->count; i++) {
        struct iovec vec = { .iov_base = b->buffers + (i % b->depth) * BLOCK, .iov_len = BLOCK };
        off_t offset = next_offset(b);
        ssize_t ret = preadv2(b->fd, &vec, 1, offset, RWF_NOWAIT);
        if (ret < 0 && (errno == EAGAIN || errno == EOPNOTSUPP)) {
            ret = preadv(b->fd, &vec, 1, offset);
        }
        if (ret != BLOCK) {
            return -1;
        }
    }
    return 0;
}

static int run_libaio(Bench *b)
{
    static struct iocb iocbs[DEPTH_MAX];
    static struct io_event events[DEPTH_MAX];
    struct iocb *batch[DEPTH_MAX];
    io_context_t ctx = NULL;
    long started = 0, ended = 0, ready = b->depth;

    if (io_setup(DEPTH_MAX, &ctx) < 0) {
        return -1;
    }
    for (long i = 0; i < b->depth; i++) {
        batch[i] = &iocbs[i];
    }
    while (ended < b->count) {
        long n = ready < b->count - started ? ready : b->count - started;
        for (long i = 0; i < n; i++) {
            io_prep_pread(batch[i], b->fd, b->buffers + (batch[i] - iocbs) * BLOCK, BLOCK, next_offset(b));
        }
        if (n && io_submit(ctx, n, batch) != n) {
            return -1;
        }
        started += n;
        int got = io_getevents(ctx, 1, DEPTH_MAX, events, NULL);
        if (got < 0) {
            return -1;
        }
        for (int i = 0; i < got; i++) {
            if (events[i].res != BLOCK) {
                return -1;
            }
            batch[i] = events[i].obj;
        }
        ready = got;
        ended += got;
    }
    io_destroy(ctx);
    return 0;
}

#ifdef CONFIG_LIBURING
static int run_uring(Bench *b)
{
    struct io_uring ring;
    long started = 0, ended = 0, free_count = b->depth;
    static long free_list[DEPTH_MAX];

    if (io_uring_queue_init(DEPTH_MAX, &ring, 0) < 0) {
        return -1;
    }
    for (long i = 0; i < b->depth; i++) {
        free_list[i] = i;
    }
    while (ended < b->count) {
        while (free_count && started < b->count) {
            struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
            long slot = free_list[--free_count];
            io_uring_prep_read(sqe, b->fd, b->buffers + slot * BLOCK, BLOCK, next_offset(b));
            io_uring_sqe_set_data(sqe, (void *)(intptr_t)slot);
            started++;
        }
        if (io_uring_submit_and_wait(&ring, 1) < 0) {
            return -1;
        }
        struct io_uring_cqe *cqe;
        unsigned head, got = 0;
        io_uring_for_each_cqe(&ring, head, cqe) {
            if (cqe->res != BLOCK) {
                return -1;
            }
            free_list[free_count++] = (intptr_t)io_uring_cqe_get_data(cqe);
            got++;
        }
        io_uring_cq_advance(&ring, got);
        ended += got;
    }
    io_uring_queue_exit(&ring);
    return 0;
}
#endif

static int run(Bench *b, const char *mode, const char *engine)
{
    if (strcmp(mode, "cached") == 0) {
        return run_cached(b);
    }
    if (strcmp(engine, "libaio") == 0) {
        return run_libaio(b);
    }
#ifdef CONFIG_LIBURING
    return run_uring(b);
#else
    fprintf(stderr, "built without liburing; use engine libaio\n");
    return -1;
#endif
}

int main(int argc, char **argv)
{
    Bench b = { .depth = 64 };
    struct stat st;

    if (argc < 3 || (strcmp(argv[1], "cached") != 0 && strcmp(argv[1], "direct") != 0)) {
        fprintf(stderr, "usage: bench-syscall cached|direct FILE [COUNT] [DEPTH] [uring|libaio]\n");
        return 2;
    }
    int direct = strcmp(argv[1], "direct") == 0;
    const char *engine = argc > 5 ? argv[5] : "uring";
    b.count = argc > 3 ? atol(argv[3]) : direct ? 100000 : 1000000;
    b.depth = argc > 4 ? atol(argv[4]) : 64;
    b.fd = open(argv[2], O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
    if (b.fd < 0 || fstat(b.fd, &st) < 0 || st.st_size < BLOCK || b.depth < 1 || b.depth > DEPTH_MAX ||
        posix_memalign((void **)&b.buffers, 4096, b.depth * BLOCK) != 0) {
        fprintf(stderr, "cannot use '%s' (at least 4096 bytes) at depth 1 .. %d\n", argv[2], DEPTH_MAX);
        return 1;
    }
    b.length = st.st_size;

    double start = now();
    if (run(&b, argv[1], engine) < 0) {
        fprintf(stderr, "a request failed: %s\n", strerror(errno));
        return 1;
    }
    double seconds = now() - start;
    printf("%s %s: %ld requests in %.3f s, %.0f per second, %.0f ns each\n", argv[1], direct ? engine : "preadv2",
           b.count, seconds, b.count / seconds, seconds * 1e9 / b.count);
    free(b.buffers);
    close(b.fd);
    return 0;
}
