/* SPDX-License-Identifier: MIT */
/*
 * Space: length, resizing, preallocation, zeroes, discard, copying inside of file systems. Every call
 * may block and runs in a worker. What a file system does not know is tried once and remembered.
 */

#include "drivers/file-posix/file.h"

#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ZERO_BUFFER_SIZE (1 << 20)

static bool is_set(_Atomic bool *flag)
{
    return atomic_load_explicit(flag, memory_order_relaxed);
}

static void set(_Atomic bool *flag)
{
    atomic_store_explicit(flag, true, memory_order_relaxed);
}

/* ENOTTY and ENOSYS: an ioctl, a system call that the kernel does not have. */
static bool is_unsupported(int error)
{
    return error == EOPNOTSUPP || error == ENOTTY || error == ENOSYS || error == ENOTSUP;
}

/* One fallocate() mode; @known is set once it turns out that the file system lacks it. */
static int try_fallocate(FileState *s, _Atomic bool *lacking, int mode, int64_t offset, int64_t bytes)
{
    int ret;

    if (is_set(lacking)) {
        return -ENOTSUP;
    }
    do {
        ret = s->calls->fallocate(s->h.fd, mode, offset, bytes);
    } while (ret < 0 && errno == EINTR);
    if (ret < 0 && is_unsupported(errno)) {
        set(lacking);
        return -ENOTSUP;
    }
    return ret < 0 ? -errno : 0;
}

/* ---- length ---- */

int64_t file_length(int fd, bool is_device)
{
    struct stat st;
    uint64_t bytes;

    if (is_device) {
        return ioctl(fd, BLKGETSIZE64, &bytes) < 0 ? -errno : (int64_t)bytes;
    }
    return fstat(fd, &st) < 0 ? -errno : st.st_size;
}

typedef struct LengthJob {
    const FileState *s;
    int64_t result;
} LengthJob;

static int length_job(void *opaque)
{
    LengthJob *job = opaque;

    job->result = file_length(job->s->h.fd, job->s->is_device);
    return job->result < 0 ? job->result : 0;
}

int64_t coroutine_fn file_co_getlength(BlockDriverState *bs)
{
    LengthJob job = { .s = file_state(bs) };
    int ret = file_run(length_job, &job);

    return ret < 0 ? ret : job.result;
}

static int allocated_job(void *opaque)
{
    LengthJob *job = opaque;
    struct stat st;

    if (fstat(job->s->h.fd, &st) < 0) {
        return -errno;
    }
    job->result = (int64_t)st.st_blocks * 512;
    return 0;
}

int64_t coroutine_fn file_co_get_allocated_file_size(BlockDriverState *bs)
{
    LengthJob job = { .s = file_state(bs) };
    int ret = file_run(allocated_job, &job);

    return ret < 0 ? ret : job.result;
}

/* ---- resizing ---- */

#define FULL_STEP (INT64_C(64) << 20) /* zeroes that a worker writes before it is asked whether to go on */

static int write_zero_buffers(const FileCalls *calls, int fd, int64_t from, int64_t to)
{
    void *buf; /* aligned for any O_DIRECT descriptor */
    int ret = 0;

    if (posix_memalign(&buf, 65536, ZERO_BUFFER_SIZE) != 0) {
        return -ENOMEM;
    }
    memset(buf, 0, ZERO_BUFFER_SIZE);
    while (from < to) {
        struct iovec vec = { .iov_base = buf, .iov_len = MIN(to - from, ZERO_BUFFER_SIZE) };
        ssize_t done = calls->pwritev2(fd, &vec, 1, from, 0);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            ret = done < 0 ? -errno : -ENOSPC;
            break;
        }
        from += done;
    }
    free(buf);
    return ret;
}

/* Returns the error, 0: none. */
static int allocate(const FileCalls *calls, int fd, int64_t from, int64_t to)
{
    int ret;

    do {
        ret = calls->posix_fallocate(fd, from, to - from);
    } while (ret == EINTR);
    return ret;
}

/* What is smaller than a block of direct I/O: the file reads as zeroes there, all it needs is space. */
static int allocate_edge(const FileCalls *calls, int fd, int64_t from, int64_t to)
{
    int ret = to > from ? allocate(calls, fd, from, to) : 0;

    return ret == ENOSPC || ret == EDQUOT || ret == EIO ? -ret : 0;
}

static int write_full(const FileCalls *calls, int fd, int64_t from, int64_t to, uint32_t align)
{
    int64_t first = MIN((from + align - 1) / align * align, to);
    int64_t last = MAX(to / align * align, first);
    int ret = allocate_edge(calls, fd, from, first);

    if (ret == 0) {
        ret = write_zero_buffers(calls, fd, first, last);
    }
    return ret == 0 ? allocate_edge(calls, fd, last, to) : ret;
}

int file_set_length(const FileCalls *calls, int fd, int64_t length)
{
    int ret;

    do {
        ret = calls->ftruncate(fd, length);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

/* With BDRV_PREALLOC_FULL the length goes first: it says ENOSPC or EFBIG before anything is written where it can. */
static int grow(FileState *s, int64_t from, int64_t to, BdrvPrealloc prealloc)
{
    return prealloc == BDRV_PREALLOC_FALLOC ? -allocate(s->calls, s->h.fd, from, to)
                                            : file_set_length(s->calls, s->h.fd, to);
}

static void set_resize_error(int64_t from, int64_t to, int ret, GError **errp)
{
    g_set_error(errp, BDRV_ERROR, -ret, "cannot resize from %" PRId64 " to %" PRId64 " bytes: %s", from, to,
                g_strerror(-ret));
}

static void restore_length(FileState *s, int64_t length, GError **errp)
{
    if (file_set_length(s->calls, s->h.fd, length) < 0) {
        g_prefix_error(errp, "the old length could not be restored; ");
    }
}

bool file_resize(FileState *s, int64_t from, int64_t to, BdrvPrealloc prealloc, GError **errp)
{
    int ret = 0;

    if (prealloc == BDRV_PREALLOC_METADATA) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "preallocation=metadata has no meaning for a plain file; use off, falloc or full");
        return false;
    }
    if (to < from && prealloc != BDRV_PREALLOC_OFF) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "preallocation cannot be used when shrinking; use preallocation=off");
        return false;
    }
    if (to != from) {
        ret = to > from ? grow(s, from, to, prealloc) : file_set_length(s->calls, s->h.fd, to);
    }
    if (ret == 0) {
        return true;
    }
    set_resize_error(from, to, ret, errp);
    if (to > from) {
        restore_length(s, from, errp);
    }
    return false;
}

typedef struct FullJob {
    FileState *s;
    int64_t from, to;
    GError **errp;
} FullJob;

static int write_full_job(void *opaque)
{
    FullJob *job = opaque;

    return write_full(job->s->calls, job->s->h.fd, job->from, job->to, job->s->h.request_alignment);
}

static int sync_job(void *opaque)
{
    FullJob *job = opaque;

    return file_sync(job->s);
}

static int restore_length_job(void *opaque)
{
    FullJob *job = opaque;

    restore_length(job->s, job->from, job->errp);
    return 0;
}

static bool coroutine_fn write_full_in_steps(FileState *s, int64_t from, int64_t to, GError **errp)
{
    FullJob job = { .s = s, .from = from };
    int ret = 0;

    for (; ret == 0 && job.from < to; job.from = job.to) {
        job.to = MIN(to, (job.from / FULL_STEP + 1) * FULL_STEP);
        ret = file_run(write_full_job, &job);
        if (ret == 0 && !bdrv_co_goes_on(job.to - from, to - from, errp)) {
            return false;
        }
    }
    if (ret == 0) {
        ret = file_run(sync_job, &job);
    }
    if (ret < 0) {
        set_resize_error(from, to, ret, errp);
    }
    return ret == 0;
}

bool coroutine_fn file_co_write_full(FileState *s, int64_t from, int64_t to, GError **errp)
{
    FullJob undo = { .s = s, .from = from, .errp = errp };

    if (to == from || write_full_in_steps(s, from, to, errp)) {
        return true;
    }
    if (file_run(restore_length_job, &undo) < 0) {
        restore_length_job(&undo); /* no worker to be had */
    }
    return false;
}

typedef struct TruncateJob {
    FileState *s;
    int64_t before, length; /* before: set by the job */
    bool exact;
    BdrvPrealloc prealloc;
    GError *error;
} TruncateJob;

static bool truncate_device(TruncateJob *job, int64_t now)
{
    if (job->prealloc != BDRV_PREALLOC_OFF) {
        g_set_error(&job->error, BDRV_ERROR, ENOTSUP, "a block device has no preallocation; use preallocation=off");
        return false;
    }
    if (job->length > now || (job->exact && job->length != now)) {
        g_set_error(&job->error, BDRV_ERROR, job->length > now ? EINVAL : ENOTSUP,
                    "a block device of %" PRId64 " bytes cannot be resized to %" PRId64, now, job->length);
        return false;
    }
    return true;
}

static int truncate_job(void *opaque)
{
    TruncateJob *job = opaque;
    FileState *s = job->s;
    int64_t now = file_length(s->h.fd, s->is_device);
    bool ok;

    if (now < 0) {
        g_set_error(&job->error, BDRV_ERROR, -now, "cannot read the length: %s", g_strerror(-now));
        return now;
    }
    job->before = now;
    ok = s->is_device ? truncate_device(job, now)
                      : file_resize(s, now, job->length, job->prealloc, &job->error);
    return ok ? 0 : -bdrv_error_code(job->error);
}

bool coroutine_fn file_co_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                   BdrvRequestFlags flags, GError **errp)
{
    FileState *s = file_state(bs);
    TruncateJob job = { .s = s, .length = length, .exact = exact, .prealloc = prealloc };
    int ret = file_run(truncate_job, &job);

    file_forget_extent(s);
    if (ret < 0) {
        if (!job.error) {
            g_set_error(&job.error, BDRV_ERROR, -ret, "cannot resize: %s", g_strerror(-ret));
        }
        g_propagate_error(errp, job.error);
        return false;
    }
    return prealloc != BDRV_PREALLOC_FULL || file_co_write_full(s, job.before, length, errp);
}

/* ---- zeroes and discard ---- */

typedef struct SpaceJob {
    FileState *s;
    int64_t offset, bytes;
    BdrvRequestFlags flags;
} SpaceJob;

/*
 * Make the file reach @end, if it does not. Never by ftruncate(): another thread may have grown the
 * file further since its length was read, and what it wrote would be cut off.
 */
static int extend_to(FileState *s, int64_t end)
{
    int64_t length = file_length(s->h.fd, false);

    if (length < 0 || length >= end) {
        return MIN(length, 0);
    }
    int ret = try_fallocate(s, &s->no_falloc, 0, end - 1, 1);
    return ret == -ENOTSUP ? write_zero_buffers(s->calls, s->h.fd, end - s->h.request_alignment, end) : ret;
}

static int punch(FileState *s, int64_t offset, int64_t bytes)
{
    return try_fallocate(s, &s->no_punch, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
}

static int zero_file(const SpaceJob *job)
{
    FileState *s = job->s;
    int64_t end = job->offset + job->bytes;
    int ret;

    if (job->flags & BDRV_REQ_MAY_UNMAP) {
        ret = punch(s, job->offset, job->bytes);
        if (ret == 0) {
            return extend_to(s, end);
        }
        if (ret != -ENOTSUP) {
            return ret;
        }
    }
    ret = try_fallocate(s, &s->no_zero_range, FALLOC_FL_ZERO_RANGE, job->offset, job->bytes);
    if (ret != -ENOTSUP) {
        return ret;
    }
    /* A hole, then space for it; tmpfs for one has no ZERO_RANGE. */
    ret = punch(s, job->offset, job->bytes);
    if (ret == 0) {
        ret = try_fallocate(s, &s->no_falloc, 0, job->offset, job->bytes);
        return ret == -ENOTSUP ? extend_to(s, end) : ret;
    }
    return ret;
}

/* The kernel writes zeroes itself where the device cannot, unless it is asked not to. */
static int zero_device(const SpaceJob *job)
{
    FileState *s = job->s;

    if ((job->offset | job->bytes) & (s->block_size - 1)) {
        return -ENOTSUP;
    }
    if (job->flags & (BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK)) {
        int ret = punch(s, job->offset, job->bytes);
        if (ret != -ENOTSUP || job->flags & BDRV_REQ_NO_FALLBACK) {
            return ret;
        }
    }
    if (!is_set(&s->no_blkzeroout)) {
        uint64_t range[2] = { job->offset, job->bytes };
        if (ioctl(s->h.fd, BLKZEROOUT, range) == 0) {
            return 0;
        }
        if (!is_unsupported(errno)) {
            return -errno;
        }
        set(&s->no_blkzeroout);
    }
    return -ENOTSUP;
}

static int zero_job(void *opaque)
{
    const SpaceJob *job = opaque;

    return job->s->is_device ? zero_device(job) : zero_file(job);
}

int coroutine_fn file_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    FileState *s = file_state(bs);
    SpaceJob job = { .s = s, .offset = offset, .bytes = bytes, .flags = flags };
    int ret = file_run(zero_job, &job);

    file_forget_extent(s);
    return ret;
}

static int discard_job(void *opaque)
{
    const SpaceJob *job = opaque;
    FileState *s = job->s;
    uint64_t range[2] = { job->offset, job->bytes };

    if (!s->is_device) {
        return punch(s, job->offset, job->bytes);
    }
    if (is_set(&s->no_discard)) {
        return -ENOTSUP;
    }
    if (ioctl(s->h.fd, BLKDISCARD, range) < 0) {
        if (!is_unsupported(errno)) {
            return errno == EINVAL ? -ENOTSUP : -errno; /* EINVAL: not whole blocks */
        }
        set(&s->no_discard);
        return -ENOTSUP;
    }
    return 0;
}

int coroutine_fn file_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    FileState *s = file_state(bs);
    SpaceJob job = { .s = s, .offset = offset, .bytes = bytes };

    if (!(bs->open_flags & BDRV_O_UNMAP)) {
        return -ENOTSUP;
    }
    int ret = file_run(discard_job, &job);
    file_forget_extent(s);
    return ret;
}

/* ---- copying ---- */

typedef struct CopyJob {
    FileState *dst, *src;
    int64_t src_offset, dst_offset, bytes;
} CopyJob;

static int copy_job(void *opaque)
{
    CopyJob *job = opaque;
    off_t in = job->src_offset, out = job->dst_offset;
    int64_t left = job->bytes;

    while (left > 0) {
        ssize_t done = job->dst->calls->copy_file_range(job->src->h.fd, &in, job->dst->h.fd, &out,
                                                        MIN(left, 1 << 30), 0);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done == 0) {
            return -ENOTSUP; /* at the end of the source, or a file system that answers 0: let the core copy */
        }
        if (done < 0) {
            return errno == EXDEV || errno == EINVAL || errno == EBADF || is_unsupported(errno) ? -ENOTSUP : -errno;
        }
        left -= done;
    }
    return 0;
}

int coroutine_fn file_co_copy_range(BlockDriverState *bs, BlockDriverState *src, int64_t src_offset,
                                    int64_t dst_offset, int64_t bytes, BdrvRequestFlags flags)
{
    if (src->drv != bs->drv || file_state(src)->is_device || file_state(bs)->is_device) {
        return -ENOTSUP;
    }
    CopyJob job = { .dst = file_state(bs), .src = file_state(src), .src_offset = src_offset,
                    .dst_offset = dst_offset, .bytes = bytes };
    int ret = file_run(copy_job, &job);

    file_forget_extent(job.dst);
    bool fua = flags & BDRV_REQ_FUA && !(bs->open_flags & BDRV_O_NO_FLUSH);
    return ret == 0 && fua ? file_co_flush(bs) : ret;
}
