/* SPDX-License-Identifier: MIT */
#include "tests/faults/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <libaio.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <bdrv/coroutine.h>

#include "config.h"
#include "drivers/file-posix/engine.h"

#ifdef CONFIG_LIBURING
#include <liburing.h>
#endif

/* ---- the rule ---- */

static _Atomic unsigned armed; /* kinds; 0: nothing is */
static _Atomic bool no_idle_workers;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    unsigned skip;
    int count, error;
    unsigned failed, failed_kinds;
} rule; /* lock */

void hooks_arm(unsigned kinds, unsigned nth, int count, int error)
{
    pthread_mutex_lock(&lock);
    rule.skip = nth - 1;
    rule.count = count;
    rule.error = error;
    rule.failed = rule.failed_kinds = 0;
    pthread_mutex_unlock(&lock);
    atomic_store(&armed, kinds);
}

void hooks_disarm(void)
{
    atomic_store(&armed, 0);
}

unsigned hooks_failed(void)
{
    pthread_mutex_lock(&lock);
    unsigned failed = rule.failed;
    pthread_mutex_unlock(&lock);
    return failed;
}

unsigned hooks_failed_kinds(void)
{
    pthread_mutex_lock(&lock);
    unsigned kinds = rule.failed_kinds;
    pthread_mutex_unlock(&lock);
    return kinds;
}

void hooks_end_idle_workers(bool on)
{
    atomic_store(&no_idle_workers, on);
}

/* 0: the call passes; an errno value; HOOK_SHORT, only if it @can_be_short. */
static int take(HookKind kind, bool can_be_short)
{
    int error = 0;

    if (G_LIKELY(!(atomic_load_explicit(&armed, memory_order_relaxed) & kind))) {
        return 0;
    }
    pthread_mutex_lock(&lock);
    if (rule.error == HOOK_SHORT && !can_be_short) {
        error = 0;
    } else if (rule.skip > 0) {
        rule.skip--;
    } else if (rule.count != 0) {
        rule.count -= rule.count > 0;
        rule.failed++;
        rule.failed_kinds |= kind;
        error = rule.error;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

/* For calls that answer -1 with errno. */
static bool fails(HookKind kind)
{
    int error = take(kind, false);
    if (error) {
        errno = error;
    }
    return error != 0;
}

/* ---- memory ---- */

#define WRAP(type, name, ...)         \
    type __real_##name(__VA_ARGS__);  \
    type __wrap_##name(__VA_ARGS__);  \
    type __wrap_##name(__VA_ARGS__)

WRAP(gpointer, g_try_malloc, gsize bytes)
{
    return take(HOOK_ALLOC, false) ? NULL : __real_g_try_malloc(bytes);
}

WRAP(gpointer, g_try_malloc0, gsize bytes)
{
    return take(HOOK_ALLOC, false) ? NULL : __real_g_try_malloc0(bytes);
}

WRAP(gpointer, g_try_malloc_n, gsize count, gsize bytes)
{
    return take(HOOK_ALLOC, false) ? NULL : __real_g_try_malloc_n(count, bytes);
}

WRAP(gpointer, g_try_malloc0_n, gsize count, gsize bytes)
{
    return take(HOOK_ALLOC, false) ? NULL : __real_g_try_malloc0_n(count, bytes);
}

WRAP(gpointer, g_try_realloc_n, gpointer old, gsize count, gsize bytes)
{
    return take(HOOK_ALLOC, false) ? NULL : __real_g_try_realloc_n(old, count, bytes);
}

WRAP(int, posix_memalign, void **out, size_t alignment, size_t bytes)
{
    int error = take(HOOK_ALLOC, false);
    return error ? error : __real_posix_memalign(out, alignment, bytes);
}

WRAP(void *, aligned_alloc, size_t alignment, size_t bytes)
{
    return take(HOOK_ALLOC, false) ? NULL : __real_aligned_alloc(alignment, bytes);
}

/* ---- threads and coroutines ---- */

WRAP(int, pthread_create, pthread_t *thread, const pthread_attr_t *attr, void *(*entry)(void *), void *opaque)
{
    int error = take(HOOK_THREAD, false);
    return error ? error : __real_pthread_create(thread, attr, entry, opaque);
}

WRAP(Coroutine *, co_try_new, CoroutineEntry *entry, void *opaque)
{
    return take(HOOK_COROUTINE, false) ? NULL : __real_co_try_new(entry, opaque);
}

WRAP(void *, mmap64, void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    return fails(HOOK_STACK) ? MAP_FAILED : __real_mmap64(at, bytes, protection, flags, fd, offset);
}

WRAP(int, mprotect, void *at, size_t bytes, int protection)
{
    return fails(HOOK_STACK) ? -1 : __real_mprotect(at, bytes, protection);
}

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    va_list list;
    long a[6];

    va_start(list, number);
    for (unsigned i = 0; i < G_N_ELEMENTS(a); i++) {
        a[i] = va_arg(list, long);
    }
    va_end(list);
    /* An idle worker waits for a job with a time limit: say that the time is up. */
    if (number == SYS_futex && a[3] && atomic_load_explicit(&no_idle_workers, memory_order_relaxed)) {
        errno = ETIMEDOUT;
        return -1;
    }
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- short transfers ---- */

static size_t half(size_t bytes, size_t align)
{
    return bytes / 2 / align * align;
}

static size_t alignment_of(int fd)
{
    return fcntl(fd, F_GETFL) & O_DIRECT ? 4096 : 1;
}

static size_t total(const struct iovec *vec, int count)
{
    size_t bytes = 0;
    for (int i = 0; i < count; i++) {
        bytes += vec[i].iov_len;
    }
    return bytes;
}

/* The first @bytes of the view; returns how many elements. */
static int cut(const struct iovec *vec, struct iovec *out, size_t bytes)
{
    int n = 0;
    for (; bytes; n++) {
        out[n] = (struct iovec){ vec[n].iov_base, MIN(vec[n].iov_len, bytes) };
        bytes -= out[n].iov_len;
    }
    return n;
}

typedef ssize_t VectorCall(int fd, const struct iovec *vec, int count, off_t offset, int flags);

static ssize_t transfer(HookKind kind, VectorCall *real, int fd, const struct iovec *vec, int count, off_t offset,
                        int flags)
{
    size_t most = half(total(vec, count), alignment_of(fd));
    int error = take(kind, most > 0);
    if (error > 0) {
        errno = error;
        return -1;
    }
    if (error == HOOK_SHORT) {
        struct iovec part[IOV_MAX];
        return real(fd, part, cut(vec, part, most), offset, flags);
    }
    return real(fd, vec, count, offset, flags);
}

WRAP(ssize_t, preadv64v2, int fd, const struct iovec *vec, int count, off_t offset, int flags)
{
    return transfer(HOOK_READ, __real_preadv64v2, fd, vec, count, offset, flags);
}

WRAP(ssize_t, pwritev64v2, int fd, const struct iovec *vec, int count, off_t offset, int flags)
{
    return transfer(HOOK_WRITE, __real_pwritev64v2, fd, vec, count, offset, flags);
}

WRAP(ssize_t, pread64, int fd, void *buf, size_t bytes, off_t offset)
{
    return fails(HOOK_READ) ? -1 : __real_pread64(fd, buf, bytes, offset);
}

WRAP(ssize_t, copy_file_range, int in, off_t *in_offset, int out, off_t *out_offset, size_t bytes, unsigned flags)
{
    int error = take(HOOK_COPY, bytes > 1);
    if (error > 0) {
        errno = error;
        return -1;
    }
    return __real_copy_file_range(in, in_offset, out, out_offset, error ? half(bytes, 1) : bytes, flags);
}

/* ---- other system calls ---- */

/* Nobody cuts the power here: what is real about it is the time it takes. */
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    return fails(HOOK_SYNC) ? -1 : 0;
}

WRAP(int, fallocate64, int fd, int mode, off_t offset, off_t bytes)
{
    return fails(HOOK_SPACE) ? -1 : __real_fallocate64(fd, mode, offset, bytes);
}

WRAP(int, posix_fallocate64, int fd, off_t offset, off_t bytes)
{
    int error = take(HOOK_SPACE, false);
    return error ? error : __real_posix_fallocate64(fd, offset, bytes);
}

WRAP(int, ftruncate64, int fd, off_t length)
{
    return fails(HOOK_SPACE) ? -1 : __real_ftruncate64(fd, length);
}

WRAP(off_t, lseek64, int fd, off_t offset, int whence)
{
    return fails(HOOK_SEEK) ? -1 : __real_lseek64(fd, offset, whence);
}

int __real_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    bool of_locks = command == F_OFD_SETLK || command == F_OFD_GETLK;
    return of_locks && fails(HOOK_LOCK) ? -1 : __real_fcntl64(fd, command, argument);
}

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
    va_end(list);
    return fails(HOOK_OPEN) ? -1 : __real_open64(path, flags, mode);
}

WRAP(int, fstat64, int fd, struct stat *st)
{
    return fails(HOOK_STAT) ? -1 : __real_fstat64(fd, st);
}

WRAP(int, epoll_create1, int flags)
{
    return fails(HOOK_POLL) ? -1 : __real_epoll_create1(flags);
}

/* What was added can always be taken out again. */
WRAP(int, epoll_ctl, int set, int operation, int fd, struct epoll_event *event)
{
    return operation == EPOLL_CTL_ADD && fails(HOOK_POLL) ? -1 : __real_epoll_ctl(set, operation, fd, event);
}

WRAP(int, eventfd, unsigned count, int flags)
{
    return fails(HOOK_POLL) ? -1 : __real_eventfd(count, flags);
}

WRAP(int, timerfd_create, int clock, int flags)
{
    return fails(HOOK_POLL) ? -1 : __real_timerfd_create(clock, flags);
}

/* ---- rings ---- */

WRAP(int, io_setup, int events, io_context_t *ctx)
{
    int error = take(HOOK_RING_SETUP, false);
    return error ? -error : __real_io_setup(events, ctx);
}

/* Only the first part of the first element: there is no room for another array. */
static size_t shortest(const struct iocb *iocb)
{
    const struct iovec *vec = iocb->u.c.buf;
    size_t part = half(vec->iov_len, 4096);
    return part ? part : iocb->u.c.nbytes > 1 && vec->iov_len % 4096 == 0 ? vec->iov_len : 0;
}

static void make_short(struct iocb *iocb)
{
    const struct iovec *vec = iocb->u.c.buf;
    iocb->u.c.nbytes = shortest(iocb);
    iocb->aio_lio_opcode = iocb->aio_lio_opcode == IO_CMD_PREADV ? IO_CMD_PREAD : IO_CMD_PWRITE;
    iocb->u.c.buf = vec->iov_base;
}

WRAP(int, io_submit, io_context_t ctx, long count, struct iocb **iocbs)
{
    int error = take(HOOK_RING_SUBMIT, false);
    if (error) {
        return -error;
    }
    struct iocb *first = iocbs[0];
    bool vector = first->aio_lio_opcode == IO_CMD_PREADV || first->aio_lio_opcode == IO_CMD_PWRITEV;
    if (vector) {
        error = take(first->aio_lio_opcode == IO_CMD_PREADV ? HOOK_READ : HOOK_WRITE, shortest(first) > 0);
    }
    if (error > 0) {
        return -error;
    }
    if (error == HOOK_SHORT) {
        make_short(first);
    }
    return __real_io_submit(ctx, count, iocbs);
}

#ifdef CONFIG_LIBURING
WRAP(int, io_uring_queue_init, unsigned entries, struct io_uring *ring, unsigned flags)
{
    int error = take(HOOK_RING_SETUP, false);
    return error ? -error : __real_io_uring_queue_init(entries, ring, flags);
}

/* As fdatasync above. */
static void skip_syncs(struct io_uring *ring)
{
    for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++) {
        struct io_uring_sqe *sqe = &ring->sq.sqes[i & *ring->sq.kring_mask];
        if (sqe->opcode == IORING_OP_FSYNC) {
            uint64_t data = sqe->user_data;
            io_uring_prep_nop(sqe);
            sqe->user_data = data;
        }
    }
}

WRAP(int, io_uring_submit, struct io_uring *ring)
{
    int error = take(HOOK_RING_SUBMIT, false);
    skip_syncs(ring);
    return error ? -error : __real_io_uring_submit(ring);
}

/* The kernel did it; the answer is changed. */
WRAP(unsigned, io_uring_peek_batch_cqe, struct io_uring *ring, struct io_uring_cqe **cqes, unsigned count)
{
    static const HookKind kinds[] = {
        [FILE_IO_READ] = HOOK_READ, [FILE_IO_WRITE] = HOOK_WRITE, [FILE_IO_FLUSH] = HOOK_SYNC
    };
    unsigned n = __real_io_uring_peek_batch_cqe(ring, cqes, count);
    for (unsigned i = 0; i < n; i++) {
        const FileIo *io = io_uring_cqe_get_data(cqes[i]);
        if (cqes[i]->res < 0) {
            continue;
        }
        size_t part = half((size_t)cqes[i]->res, io->s->h.request_alignment);
        int error = take(kinds[io->kind], io->kind != FILE_IO_FLUSH && part > 0);
        if (error) {
            cqes[i]->res = error == HOOK_SHORT ? (int)part : -error;
        }
    }
    return n;
}
#endif
