/* SPDX-License-Identifier: MIT */
/*
 * Reads that the page cache can answer are made in the calling thread: preadv2(RWF_NOWAIT) returns
 * EAGAIN rather than wait for the disk. A request that is served this way never yields, so a caller
 * with much to read could keep the loop from its other work: every 64th gives way. And what the thread
 * copies takes time in which the kernel could carry out what waits in the rings for the end of the round:
 * before a long copy they are handed over.
 */

#include "block/loop/context.h"
#include "drivers/file-posix/engine.h"

#include <errno.h>

#define NOWAIT_RUN_MAX 64
#define LONG_COPY (128 << 10) /* takes longer than the system call that hands over */

static _Thread_local unsigned nowait_run;

int coroutine_fn file_nowait_read(FileIo *io)
{
    AioContext *ctx = aio_context_current();
    FileState *s = io->s;
    int ret;

    if (G_UNLIKELY(aio_context_sim(ctx) != NULL)) {
        return -EAGAIN; /* no seed determines what the page cache has */
    }
    if (io->bytes >= LONG_COPY) {
        aio_context_submit(ctx);
    }
    do {
        file_io_step(io);
        ssize_t done = s->calls->preadv2(s->h.fd, io->vec, io->count, io->offset + io->done, RWF_NOWAIT);
        if (done < 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
            atomic_store_explicit(&s->no_nowait, true, memory_order_relaxed);
            return -EAGAIN;
        }
        if (done == 0) {
            return -EAGAIN; /* Linux 5.9 and 5.10 say so in the middle of a file too: see preadv2(2) */
        }
        ret = file_io_advance(io, done < 0 ? -errno : done);
    } while (ret > 0);

    if (ret == 0 && ++nowait_run >= NOWAIT_RUN_MAX) {
        nowait_run = 0;
        co_reschedule();
    }
    return ret;
}
