/* SPDX-License-Identifier: MIT */
#ifndef BDRV_FILE_POSIX_FILE_H
#define BDRV_FILE_POSIX_FILE_H

/*
 * Protocol drivers "file" (regular files) and "host_device" (block devices).
 *
 *     file.c     the tables            open.c    open, reopen, close
 *     engine.c   which engine a request takes; short transfers
 *     worker.c, nowait.c, libaio.c, io_uring.c   the engines
 *     align.c    what O_DIRECT wants   lock.c    rights as file locks
 *     space.c    truncate, zero, discard, preallocation, copy
 *     status.c   SEEK_DATA/SEEK_HOLE   holder.c  who holds a lock
 *     create.c   create and delete     drop.c    whether pages stay in the page cache
 *     pinned.c   memory of the embedder as registered buffers of io_uring
 *
 * What may block goes to a worker thread. A request runs in the thread that submitted it; nothing
 * here has a home thread. Sources: open(2), preadv2(2), fallocate(2), fcntl(2), statx(2), io_submit(2),
 * io_uring(7).
 */

#include "drivers/file-posix/drop.h"

#include <bdrv/driver.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>

/* What the option "aio" says. */
typedef enum FileAio {
    FILE_AIO_AUTO,
    FILE_AIO_THREADS,
    FILE_AIO_NATIVE,
    FILE_AIO_IO_URING,
} FileAio;

typedef enum FileLocking {
    FILE_LOCKING_AUTO, /* lock, but go on where the file system has no such locks */
    FILE_LOCKING_ON,
    FILE_LOCKING_OFF,
} FileLocking;

/* System calls of the data path, replaceable for one node so that tests can make them fail. */
typedef struct FileCalls {
    ssize_t (*preadv2)(int fd, const struct iovec *vec, int count, off_t offset, int flags);
    ssize_t (*pwritev2)(int fd, const struct iovec *vec, int count, off_t offset, int flags);
    int (*fdatasync)(int fd);
    int (*close)(int fd);
    int (*fallocate)(int fd, int mode, off_t offset, off_t bytes);
    int (*posix_fallocate)(int fd, off_t offset, off_t bytes); /* returns the error */
    int (*ftruncate)(int fd, off_t length);
    off_t (*lseek)(int fd, off_t offset, int whence);
    int (*lock)(int fd, int command, struct flock *lock); /* fcntl(2) */
    ssize_t (*copy_file_range)(int in, off_t *in_offset, int out, off_t *out_offset, size_t bytes, unsigned flags);
} FileCalls;

extern const FileCalls file_system_calls;

/*
 * The kernel cuts longer transfers short, at a multiple of its page size: that must not be taken for the end
 * of a file whose blocks are larger than pages.
 */
#define FILE_TRANSFER_MAX (INT64_C(1) << 30)

/* What a file descriptor was opened with, and what was found out about it. Swapped whole by reopen. */
typedef struct FileHandle {
    int fd;
    bool writable;
    bool direct;                /* O_DIRECT */
    uint32_t request_alignment; /* 1 if not direct */
    uint32_t mem_alignment;     /* 1 if not direct */
} FileHandle;

/* bs->opaque. Fields without a comment on concurrency change only while the node is drained. */
typedef struct FileState {
    FileHandle h;
    char *path; /* NULL: opened by descriptor */
    bool is_device;
    uint32_t block_size; /* of a device: logical block; of a file: 1 */
    FileAio aio;
    FileDrop drop;
    const FileCalls *calls;

    /* The open file description that holds the locks: h.fd's own, or one that a reopen left behind. */
    FileLocking locking;
    int lock_fd;
    unsigned locked_used, locked_unshared; /* BdrvRight masks; serialised by the graph's edit lock */

    /* Learnt by trying; only ever set. Any thread. */
    _Atomic bool no_nowait;
    _Atomic bool no_dontcache;
    _Atomic bool no_punch;
    _Atomic bool no_zero_range;
    _Atomic bool no_falloc;
    _Atomic bool no_discard;
    _Atomic bool no_blkzeroout;
    _Atomic bool no_seek_data;

    /* First error of a flush of the page cache: what it lost is unknown, so no later flush may succeed. Any thread. */
    _Atomic int flush_error;

    /* The last data extent that SEEK_HOLE told of. */
    pthread_mutex_t extent_lock;       /* protects the next three; never held over a call */
    int64_t extent_start, extent_end;  /* empty: start == end */
    uint64_t extent_gen;               /* bumped by every punch, so that a query under way does not store what it undid */
} FileState;

static inline FileState *file_state(const BlockDriverState *bs)
{
    return bs->opaque;
}

/** file_run() - run a blocking job in a worker; 0 or -errno. Context: coroutine; yields. */
int coroutine_fn file_run(int (*job)(void *opaque), void *opaque);

/* ---- open.c ---- */

bool coroutine_fn file_co_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp);
int coroutine_fn file_co_close(BlockDriverState *bs);
bool coroutine_fn file_co_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                         void **state, GError **errp);
void file_reopen_commit(BlockDriverState *bs, void *state);
void file_reopen_abort(BlockDriverState *bs, void *state);
void file_refresh_limits(BlockDriverState *bs);
char *file_refresh_filename(BlockDriverState *bs);

/** file_strip_prefix() - "file:a.img" or "a.img" to "a.img" */
const char *file_strip_prefix(const char *filename, const char *prefix);

/* ---- engine.c ---- */

int coroutine_fn file_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                               size_t iov_offset, BdrvRequestFlags flags);
int coroutine_fn file_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                size_t iov_offset, BdrvRequestFlags flags);
int coroutine_fn file_co_flush(BlockDriverState *bs);

/** file_sync() - fdatasync; blocking. An error of a cached file is remembered: see flush_error. 0 or -errno */
int file_sync(FileState *s);

/* ---- align.c: blocking, run in a worker ---- */

/** file_probe_alignment() - fill the alignments of a handle that is open */
bool file_probe_alignment(FileHandle *handle, bool is_device, const char *name, GError **errp);

/* ---- lock.c ---- */

bool coroutine_fn file_co_set_rights(BlockDriverState *bs, unsigned used, unsigned unshared, GError **errp);

/** file_locks_set() - hold exactly the locks of the two masks, or fail (EBUSY) and hold what was held; blocking */
bool file_locks_set(FileState *s, const char *name, unsigned used, unsigned unshared, GError **errp);

/** file_locks_copy() - take what @s holds on @fd too; false if that cannot be had */
bool file_locks_copy(const FileState *s, int fd);

/** file_locks_release() - let go on @fd; it may be a duplicate of the embedder's, so that closing is not enough */
void file_locks_release(const FileState *s, int fd);

/* ---- holder.c ---- */

/**
 * file_lock_holders() - who has a lock on one of the bytes @first .. @last of the file that @s has locks on
 * @write_only: only locks for writing count
 *
 * Context: blocking; for error messages only, as it goes through all processes.
 * Returns: "process 12 (qemu-io), process 15 (qemu-nbd)", to be freed; NULL: none that may be looked at.
 */
char *file_lock_holders(const FileState *s, off_t first, off_t last, bool write_only);

/* ---- space.c ---- */

int coroutine_fn file_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags);
int coroutine_fn file_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes);
bool coroutine_fn file_co_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                   BdrvRequestFlags flags, GError **errp);
int coroutine_fn file_co_copy_range(BlockDriverState *bs, BlockDriverState *src, int64_t src_offset,
                                    int64_t dst_offset, int64_t bytes, BdrvRequestFlags flags);
int64_t coroutine_fn file_co_getlength(BlockDriverState *bs);
int64_t coroutine_fn file_co_get_allocated_file_size(BlockDriverState *bs);

/** file_length() - bytes of a file or device, or -errno; blocking */
int64_t file_length(int fd, bool is_device);

/** file_set_length() - of a regular file; blocking. 0 or -errno */
int file_set_length(const FileCalls *calls, int fd, int64_t length);

/**
 * file_resize() - set a regular file's length, from @from to @to
 * BDRV_PREALLOC_FULL wants file_co_write_full() to follow. Blocking. On failure the old length is restored.
 */
bool file_resize(FileState *s, int64_t from, int64_t to, BdrvPrealloc prealloc, GError **errp);

/**
 * file_co_write_full() - write zeroes where a regular file has grown, from @from to @to, and make them durable
 * Tells how far it is. On failure, and if nobody wants it any more (ECANCELED), the old length is restored.
 */
bool coroutine_fn file_co_write_full(FileState *s, int64_t from, int64_t to, GError **errp);

/* ---- status.c ---- */

int coroutine_fn file_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes, BlockExtent *extent);

/** file_forget_extent() - the allocation changed by more than writes. Any thread. */
void file_forget_extent(FileState *s);

/* ---- create.c ---- */

bool coroutine_fn file_co_create(const char *filename, BdrvChild *file, const BdrvOptions *options, GError **errp);
/** host_device_co_create() - make an existing device ready for a new image: it must be large enough */
bool coroutine_fn host_device_co_create(const char *filename, BdrvChild *file, const BdrvOptions *options,
                                        GError **errp);
bool coroutine_fn file_co_delete(const char *filename, GError **errp);
extern const BdrvOptionSpec file_create_options[];

#endif
