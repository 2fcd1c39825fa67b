/* SPDX-License-Identifier: MIT */
/* The threads engine: a worker makes the system calls until the request is complete. */

#include "drivers/file-posix/engine.h"

#include <errno.h>

int coroutine_fn file_run(int (*job)(void *opaque), void *opaque)
{
    return co_run_in_worker(AIO_WORK_IO, job, opaque);
}

static int worker_job(void *opaque)
{
    FileIo *io = opaque;
    const FileCalls *calls = io->s->calls;
    int ret;

    do {
        file_io_step(io);
        ssize_t done = io->kind == FILE_IO_READ
                           ? calls->preadv2(io->s->h.fd, io->vec, io->count, io->offset + io->done, io->rw_flags)
                           : calls->pwritev2(io->s->h.fd, io->vec, io->count, io->offset + io->done, io->rw_flags);
        ret = file_io_advance(io, done < 0 ? -errno : done);
    } while (ret > 0);
    return ret;
}

int coroutine_fn file_worker_io(FileIo *io)
{
    return file_run(worker_job, io);
}
