/* SPDX-License-Identifier: MIT */
#ifndef BDRV_FILE_POSIX_ENGINE_H
#define BDRV_FILE_POSIX_ENGINE_H

/*
 * A request on its way through an engine. It lives on the stack of the coroutine that waits for it,
 * so no engine allocates. An engine carries out one step (one system call) at a time:
 *
 *     file_io_step() says what is left -> the engine tries it -> file_io_advance() counts what was done
 */

#include "config.h"
#include "drivers/file-posix/file.h"

#include <libaio.h>

typedef enum FileIoKind {
    FILE_IO_READ,
    FILE_IO_WRITE,
    FILE_IO_FLUSH, /* io_uring only */
} FileIoKind;

/* Elements of a part of a view that is not the whole; more are done in several steps. */
#define FILE_IO_PART 32

typedef struct FileIo {
    FileState *s;
    FileIoKind kind;
    int rw_flags; /* RWF_DSYNC, RWF_DONTCACHE */
    int64_t offset;
    size_t bytes;
    const BdrvIov *iov;
    size_t iov_offset;
    size_t done;

    /* The step under way. */
    const struct iovec *vec;
    unsigned count;

    /* For the rings. */
    Coroutine *co;
    ssize_t result;      /* of the step: bytes or -errno */
    struct FileIo *next; /* waiting to be handed over */
    struct iocb iocb;    /* libaio */
    struct iovec part[FILE_IO_PART];
} FileIo;

/* Linux 6.14: through the page cache, but the pages go once they are written, or read by nobody else. */
#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80
#endif

/** file_io_step() - set vec and count for what is left, as much as one system call can take */
void file_io_step(FileIo *io);

/**
 * file_io_advance() - take the result of a step
 * @result: bytes or -errno
 *
 * A read that meets the end of the file is filled up with zeroes.
 * Returns: 1 if there is more to do (also after EINTR, or without RWF_DONTCACHE), 0 if it is complete, -errno.
 */
int file_io_advance(FileIo *io, ssize_t result);

/* ---- engines: 0 or -errno for the rest of @io ---- */

/** file_worker_io() - in a worker thread (worker.c) */
int coroutine_fn file_worker_io(FileIo *io);

/**
 * file_nowait_read() - in this thread, what the page cache has (nowait.c)
 * Returns: 0 or -errno; -EAGAIN: what is left after io->done must go another way.
 */
int coroutine_fn file_nowait_read(FileIo *io);

/** file_libaio_ready() / file_uring_ready() - whether this thread has, or can make, a ring */
bool file_libaio_ready(void);
bool file_uring_ready(void);

/** file_libaio_error() / file_uring_error() - can a ring be made at all? 0 or -errno; -ENOSYS: not built */
int file_libaio_error(void);
int file_uring_error(void);

/** file_uring_pins_memory() - whether the memory that this thread's context knows could be pinned in a round of its
 * file_uring_pinned_requests() - requests of this thread that used it */
bool file_uring_pins_memory(void);
uint64_t file_uring_pinned_requests(void);

int coroutine_fn file_libaio_io(FileIo *io);
int coroutine_fn file_uring_io(FileIo *io);

#endif
