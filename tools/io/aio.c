/* SPDX-License-Identifier: MIT */
/* aio_read, aio_write, aio_flush: the commands whose requests go on while the next command runs. */
#include "tools/io/io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_PATTERN = 0xcd, READ_FILL = 0xab };

typedef struct AioTask {
    IoSession *session;
    const char *operation, *verb;
    IoBuffer buffer; /* data NULL: write zeroes */
    int64_t offset, bytes;
    struct timespec began;
    bool machine_readable, quiet, verbose, verify;
    int pattern;
} AioTask;

static void free_task(AioTask *task)
{
    if (task->buffer.data) {
        io_buffer_free(&task->buffer);
    }
    g_free(task);
}

static void complete(void *opaque, int ret)
{
    AioTask *task = opaque;

    task->session->in_flight--;
    if (ret < 0) {
        printf("%s failed: %s\n", task->operation, strerror(-ret));
        free_task(task);
        return;
    }
    if (task->verify && !io_buffer_is(&task->buffer, 0, task->bytes, task->pattern)) {
        printf("Pattern verification failed at offset %" PRId64 ", %" PRId64 " bytes\n", task->offset, task->bytes);
    }
    if (!task->quiet) {
        if (task->verbose) {
            io_dump(task->buffer.data, task->offset, task->bytes);
        }
        io_report(task->verb, task->began, task->offset, task->bytes, task->bytes, 1, task->machine_readable);
    }
    free_task(task);
}

static void start(AioTask *task)
{
    task->session->in_flight++;
    task->began = io_now();
}

int io_aio_read(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("aio_read");
    AioTask *task = g_new0(AioTask, 1);
    int option;

    task->session = session;
    task->operation = "readv";
    task->verb = "read";
    while ((option = getopt(argc, argv, "CiP:qv")) != -1) {
        switch (option) {
        case 'C': task->machine_readable = true; break;
        case 'i':
            printf("injecting invalid read request\n");
            free_task(task);
            return 0;
        case 'P':
            if (!io_parse_pattern(optarg, &task->pattern)) {
                free_task(task);
                return -EINVAL;
            }
            task->verify = true;
            break;
        case 'q': task->quiet = true; break;
        case 'v': task->verbose = true; break;
        default: free_task(task); return io_usage(self);
        }
    }
    if (optind > argc - 2) {
        free_task(task);
        return io_usage(self);
    }
    if (!io_parse_number(argv[optind], &task->offset) ||
        !io_buffer_init(&task->buffer, session->blk, argv + optind + 1, argc - optind - 1, READ_FILL)) {
        free_task(task);
        return -EINVAL;
    }
    task->bytes = task->buffer.iov.bytes;
    start(task);
    blk_aio_preadv(session->blk, task->offset, &task->buffer.iov, 0, complete, task);
    return 0;
}

static int aio_write_zeroes(IoSession *session, AioTask *task, int argc, char **argv, BdrvRequestFlags flags)
{
    if (optind != argc - 2) {
        printf("-z supports only a single length parameter\n");
        free_task(task);
        return -EINVAL;
    }
    if (!io_parse_number(argv[optind + 1], &task->bytes)) {
        free_task(task);
        return -EINVAL;
    }
    start(task);
    blk_aio_pwrite_zeroes(session->blk, task->offset, task->bytes, flags, complete, task);
    return 0;
}

int io_aio_write(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("aio_write");
    AioTask *task = g_new0(AioTask, 1);
    BdrvRequestFlags flags = 0;
    bool zeroes = false, has_pattern = false;
    int option;

    task->session = session;
    task->operation = "aio_write";
    task->verb = "wrote";
    task->pattern = DEFAULT_PATTERN;
    while ((option = getopt(argc, argv, "CfiP:quz")) != -1) {
        switch (option) {
        case 'C': task->machine_readable = true; break;
        case 'f': flags |= BDRV_REQ_FUA; break;
        case 'i':
            printf("injecting invalid write request\n");
            free_task(task);
            return 0;
        case 'P':
            if (!io_parse_pattern(optarg, &task->pattern)) {
                free_task(task);
                return -EINVAL;
            }
            has_pattern = true;
            break;
        case 'q': task->quiet = true; break;
        case 'u': flags |= BDRV_REQ_MAY_UNMAP; break;
        case 'z': zeroes = true; break;
        default: free_task(task); return io_usage(self);
        }
    }
    if (optind > argc - 2) {
        free_task(task);
        return io_usage(self);
    }
    if (zeroes && has_pattern) {
        printf("-z and -P cannot be specified at the same time\n");
        free_task(task);
        return -EINVAL;
    }
    if ((flags & BDRV_REQ_MAY_UNMAP) && !zeroes) {
        printf("-u requires -z to be specified\n");
        free_task(task);
        return -EINVAL;
    }
    if (!io_parse_number(argv[optind], &task->offset)) {
        free_task(task);
        return -EINVAL;
    }
    if (zeroes) {
        return aio_write_zeroes(session, task, argc, argv, flags);
    }
    if (!io_buffer_init(&task->buffer, session->blk, argv + optind + 1, argc - optind - 1, task->pattern)) {
        free_task(task);
        return -EINVAL;
    }
    task->bytes = task->buffer.iov.bytes;
    start(task);
    blk_aio_pwritev(session->blk, task->offset, &task->buffer.iov, flags, complete, task);
    return 0;
}

int io_aio_flush(IoSession *session, int argc, char **argv)
{
    while (session->in_flight > 0) {
        aio_context_run(aio_context_current(), true);
    }
    return 0;
}
