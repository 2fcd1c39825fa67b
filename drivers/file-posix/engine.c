/* SPDX-License-Identifier: MIT */
/*
 * Which engine a request takes, and what short transfers mean.
 *
 *     aio=threads    worker
 *     aio=native     libaio; what may block in io_submit (a direct write that extends the file): worker
 *     aio=io_uring   io_uring
 *     aio=auto       buffered read: inline if the page cache has it, else io_uring, else worker
 *                    buffered write: io_uring, else worker
 *                    direct: io_uring, else libaio, else worker; extending writes: worker
 *
 * The kernel carries a buffered write that may block out in a thread of its own, so the submitter does
 * not wait; against our workers that takes a third of the time for 4 KiB at depth 64 and two thirds
 * at depth 1 (ext4), and nothing is lost for large ones.
 */

#include "drivers/file-posix/engine.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

static int lock_call(int fd, int command, struct flock *lock)
{
    return fcntl(fd, command, lock);
}

const FileCalls file_system_calls = {
    .preadv2 = preadv2,
    .pwritev2 = pwritev2,
    .fdatasync = fdatasync,
    .close = close,
    .fallocate = fallocate,
    .posix_fallocate = posix_fallocate,
    .ftruncate = ftruncate,
    .lseek = lseek,
    .lock = lock_call,
    .copy_file_range = copy_file_range,
};

void file_io_step(FileIo *io)
{
    size_t from = io->iov_offset + io->done;
    size_t left = io->bytes - io->done;
    size_t covered;

    if (from == 0 && left == io->iov->bytes && io->iov->count <= IOV_MAX) {
        io->vec = io->iov->vec;
        io->count = io->iov->count;
        return;
    }
    io->vec = io->part;
    io->count = bdrv_iov_slice(io->iov, from, left, io->part, FILE_IO_PART, &covered);
    if (covered < left && covered % io->s->h.request_alignment) {
        /* refresh_limits sees to it that FILE_IO_PART elements hold at least one aligned block. */
        covered -= covered % io->s->h.request_alignment;
        io->count = bdrv_iov_slice(io->iov, from, covered, io->part, FILE_IO_PART, &covered);
    }
}

static int read_past_end(FileIo *io)
{
    bdrv_iov_memset(io->iov, io->iov_offset + io->done, 0, io->bytes - io->done);
    io->done = io->bytes;
    return 0;
}

int file_io_advance(FileIo *io, ssize_t result)
{
    if (result == -EOPNOTSUPP && io->rw_flags & RWF_DONTCACHE) {
        atomic_store_explicit(&io->s->no_dontcache, true, memory_order_relaxed);
        io->rw_flags &= ~RWF_DONTCACHE;
        return 1;
    }
    if (result < 0) {
        return result == -EINTR ? 1 : result;
    }
    if (io->kind == FILE_IO_FLUSH) {
        return 0;
    }
    io->done += result;
    if (io->done >= io->bytes) {
        return 0;
    }

    /* With O_DIRECT only the end of the file makes a count that is no multiple of the alignment. */
    size_t odd = result % io->s->h.request_alignment;
    if (io->kind == FILE_IO_READ) {
        return result == 0 || odd ? read_past_end(io) : 1;
    }
    io->done -= odd;
    return result - odd == 0 ? -ENOSPC : 1;
}

/* One-step engines (rings) in a loop; a ring that says EAGAIN leaves the rest to a worker. */
static int coroutine_fn run_steps(FileIo *io, int (*engine)(FileIo *io))
{
    int ret;

    do {
        if (io->kind != FILE_IO_FLUSH) {
            file_io_step(io);
        }
        ret = file_io_advance(io, engine(io));
    } while (ret > 0);
    return ret == -EAGAIN && io->kind != FILE_IO_FLUSH ? file_worker_io(io) : ret;
}

/* A direct write past the end of the file allocates and changes the inode under its lock: it blocks the submitter. */
static bool is_extending(const BlockDriverState *bs, const FileIo *io)
{
    return io->kind == FILE_IO_WRITE &&
           io->offset + (int64_t)io->bytes > atomic_load_explicit(&bs->length, memory_order_relaxed);
}

static int coroutine_fn dispatch(BlockDriverState *bs, FileIo *io)
{
    FileState *s = io->s;

    switch (s->aio) {
    case FILE_AIO_THREADS:
        return file_worker_io(io);
    case FILE_AIO_NATIVE:
        return !is_extending(bs, io) && file_libaio_ready() ? run_steps(io, file_libaio_io) : file_worker_io(io);
    case FILE_AIO_IO_URING:
        return file_uring_ready() ? run_steps(io, file_uring_io) : file_worker_io(io);
    case FILE_AIO_AUTO:
        break;
    }

    if (!s->h.direct) {
        if (io->kind == FILE_IO_READ && !atomic_load_explicit(&s->no_nowait, memory_order_relaxed)) {
            int ret = file_nowait_read(io);
            if (ret != -EAGAIN) {
                return ret;
            }
        }
        return file_uring_ready() ? run_steps(io, file_uring_io) : file_worker_io(io);
    }
    if (is_extending(bs, io)) {
        return file_worker_io(io);
    }
    if (file_uring_ready()) {
        return run_steps(io, file_uring_io);
    }
    return file_libaio_ready() ? run_steps(io, file_libaio_io) : file_worker_io(io);
}

#define DROP_UNIT 4096

/* Of whole pages only: the rest of a page would have to be read again for what comes next. */
static bool may_drop(const FileState *s, int64_t offset, int64_t bytes)
{
    return G_UNLIKELY(s->drop.mode != FILE_DROP_OFF) && !s->h.direct && ((offset | bytes) & (DROP_UNIT - 1)) == 0 &&
           !atomic_load_explicit(&s->no_dontcache, memory_order_relaxed);
}

/* Not an initialiser: that would clear the arrays too, for every request. */
static void io_init(FileIo *io, FileState *s, FileIoKind kind, int64_t offset, int64_t bytes, const BdrvIov *iov,
                    size_t iov_offset)
{
    io->s = s;
    io->kind = kind;
    io->rw_flags = may_drop(s, offset, bytes) && file_drop_way(&s->drop) == FILE_DROP_PAGES ? RWF_DONTCACHE : 0;
    io->offset = offset;
    io->bytes = bytes;
    io->iov = iov;
    io->iov_offset = iov_offset;
    io->done = 0;
}

int coroutine_fn file_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                               size_t iov_offset, BdrvRequestFlags flags)
{
    FileIo io;

    io_init(&io, file_state(bs), FILE_IO_READ, offset, bytes, iov, iov_offset);
    return dispatch(bs, &io);
}

/* Carries out a write and notes what it took, for cache.drop-behind=auto. */
static int coroutine_fn dispatch_timed(BlockDriverState *bs, FileIo *io)
{
    AioContext *ctx = aio_context_current();
    FileDropWay way = io->rw_flags & RWF_DONTCACHE ? FILE_DROP_PAGES : FILE_KEEP_PAGES;
    int64_t began_ns = aio_clock_ns(ctx);
    int ret = dispatch(bs, io);

    if (ret == 0) {
        file_drop_note(&io->s->drop, way, io->bytes, aio_clock_ns(ctx) - began_ns);
    }
    return ret;
}

int coroutine_fn file_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                size_t iov_offset, BdrvRequestFlags flags)
{
    FileState *s = file_state(bs);
    bool fua = flags & BDRV_REQ_FUA && !(bs->open_flags & BDRV_O_NO_FLUSH);
    FileIo io;

    io_init(&io, s, FILE_IO_WRITE, offset, bytes, iov, iov_offset);
    if (fua && s->h.direct) {
        io.rw_flags = RWF_DSYNC;
    }
    bool timed = s->drop.mode == FILE_DROP_AUTO && may_drop(s, offset, bytes);
    int ret = G_UNLIKELY(timed) ? dispatch_timed(bs, &io) : dispatch(bs, &io);

    /*
     * Through the page cache RWF_DSYNC would not tell whether writing or write-back failed, and only
     * the second must make later flushes fail. So the two are separate calls.
     */
    return ret == 0 && fua && !s->h.direct ? file_co_flush(bs) : ret;
}

/* The kernel reports a lost page once and then forgets it: a second fdatasync would lie. */
static void note_flush_error(FileState *s, int ret)
{
    if (ret < 0 && ret != -EAGAIN && !s->h.direct) {
        int none = 0;
        atomic_compare_exchange_strong(&s->flush_error, &none, ret);
    }
}

int file_sync(FileState *s)
{
    int ret;

    do {
        ret = s->calls->fdatasync(s->h.fd);
    } while (ret < 0 && errno == EINTR);
    ret = ret < 0 ? -errno : 0;
    note_flush_error(s, ret);
    return ret;
}

static int flush_job(void *opaque)
{
    return file_sync(opaque);
}

static int coroutine_fn flush_once(FileState *s)
{
    if (s->aio == FILE_AIO_IO_URING && file_uring_ready()) {
        FileIo io;
        io_init(&io, s, FILE_IO_FLUSH, 0, 0, NULL, 0);
        int ret = run_steps(&io, file_uring_io);
        if (ret != -EAGAIN) {
            note_flush_error(s, ret);
            return ret;
        }
    }
    return file_run(flush_job, s);
}

int coroutine_fn file_co_flush(BlockDriverState *bs)
{
    FileState *s = file_state(bs);
    int error = atomic_load(&s->flush_error);

    return error ? error : flush_once(s);
}
