/* SPDX-License-Identifier: MIT */
/* aio_read, aio_write, aio_flush: the commands whose requests go on while the next command runs. */
#include "tools/io/io.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

typedef struct AioTask {
    IoTransfer transfer;
    IoSession *session;
} AioTask;

static void complete(void *opaque, int ret)
{
    AioTask *task = opaque;

    task->session->in_flight--;
    io_transfer_end(&task->transfer, ret);
    g_free(task);
}

/* @transfer: moved into a task that lives until its request has ended */
static AioTask *start(IoSession *session, IoTransfer *transfer)
{
    AioTask *task = g_new0(AioTask, 1);

    task->transfer = *transfer;
    task->transfer.began = io_now();
    task->session = session;
    session->in_flight++;
    return task;
}

/* 0; 1: -i, there is nothing to do; -EINVAL */
static int take_options(IoTransfer *transfer, int argc, char **argv, const char *options, const IoCommand *self)
{
    int option, ret = 0;

    while (ret == 0 && (option = getopt(argc, argv, options)) != -1) {
        if (option == 'i') {
            printf("injecting invalid %s request\n", transfer->reads ? "read" : "write");
            return 1;
        }
        ret = io_transfer_option(transfer, option, self);
    }
    return ret;
}

int io_aio_read(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("aio_read");
    IoTransfer read = { .reads = true, .operation = "readv", .verb = "read" };
    int ret = take_options(&read, argc, argv, "CiP:qv", self);
    AioTask *task;

    ret = ret ? MIN(ret, 0) : io_transfer_vector(&read, session->blk, argc, argv, self);
    if (ret < 0 || !read.buffer.data) {
        return ret;
    }
    task = start(session, &read);
    blk_aio_preadv(session->blk, task->transfer.offset, &task->transfer.buffer.iov, 0, complete, task);
    return 0;
}

static bool check_write(const IoTransfer *write)
{
    const char *wrong = write->zeroes && write->has_pattern ? "-z and -P cannot be specified at the same time"
                        : (write->flags & BDRV_REQ_MAY_UNMAP) && !write->zeroes ? "-u requires -z to be specified"
                                                                                : NULL;

    if (wrong) {
        printf("%s\n", wrong);
    }
    return !wrong;
}

static int aio_write_zeroes(IoSession *session, IoTransfer *write, int argc, char **argv)
{
    AioTask *task;

    if (!io_parse_number(argv[optind], &write->offset)) {
        return -EINVAL;
    }
    if (optind != argc - 2) {
        printf("-z supports only a single length parameter\n");
        return -EINVAL;
    }
    if (!io_parse_number(argv[optind + 1], &write->bytes)) {
        return -EINVAL;
    }
    task = start(session, write);
    blk_aio_pwrite_zeroes(session->blk, write->offset, write->bytes, write->flags, complete, task);
    return 0;
}

int io_aio_write(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("aio_write");
    IoTransfer write = { .operation = "aio_write", .verb = "wrote" };
    int ret = take_options(&write, argc, argv, "CfiP:quz", self);
    AioTask *task;

    if (ret) {
        return MIN(ret, 0);
    }
    if (optind > argc - 2) {
        return io_usage(self);
    }
    if (!check_write(&write)) {
        return -EINVAL;
    }
    if (write.zeroes) {
        return aio_write_zeroes(session, &write, argc, argv);
    }
    ret = io_transfer_vector(&write, session->blk, argc, argv, self);
    if (ret < 0) {
        return ret;
    }
    task = start(session, &write);
    blk_aio_pwritev(session->blk, write.offset, &task->transfer.buffer.iov, write.flags, complete, task);
    return 0;
}

int io_aio_flush(IoSession *session, int argc, char **argv)
{
    while (session->in_flight > 0) {
        aio_context_run(aio_context_current(), true);
    }
    return 0;
}
