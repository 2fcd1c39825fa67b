/* SPDX-License-Identifier: MIT */
/*
 * Open, reopen, close.
 *
 * A file is opened by name, or by a descriptor that the embedder passes as "fd": it is duplicated
 * (close-on-exec), the embedder's own stays untouched. A duplicate shares its status flags and locks
 * with the original; if another access mode or O_DIRECT is wanted, the file is opened anew through
 * /proc/self/fd instead, which leaves the original alone.
 */

#include "drivers/file-posix/engine.h"

#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <limits.h>
#include <sys/ioctl.h>
#include <unistd.h>

const char *file_strip_prefix(const char *filename, const char *prefix)
{
    return g_str_has_prefix(filename, prefix) ? filename + strlen(prefix) : filename;
}

/* ---- options ---- */

static FileAio parse_aio(const char *text)
{
    return strcmp(text, "threads") == 0    ? FILE_AIO_THREADS
           : strcmp(text, "native") == 0   ? FILE_AIO_NATIVE
           : strcmp(text, "io_uring") == 0 ? FILE_AIO_IO_URING
                                           : FILE_AIO_AUTO;
}

static FileLocking parse_locking(const char *text)
{
    return strcmp(text, "on") == 0 ? FILE_LOCKING_ON : strcmp(text, "off") == 0 ? FILE_LOCKING_OFF : FILE_LOCKING_AUTO;
}

/* An engine that the user names must work; the choice of "auto" falls back in silence. */
static bool check_aio(FileAio aio, bool direct, GError **errp)
{
    int ret = 0;

    if (aio == FILE_AIO_NATIVE && !direct) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "aio=native was specified, but it requires cache.direct=on, which was not specified; set it, or "
                    "use aio=threads, io_uring or auto");
        return false;
    }
    if (aio == FILE_AIO_NATIVE) {
        ret = file_libaio_error();
    } else if (aio == FILE_AIO_IO_URING) {
        ret = file_uring_error();
    }
    if (ret == -ENOSYS && aio == FILE_AIO_IO_URING) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "aio=io_uring is not available: the library was built without liburing, or the kernel has no "
                    "io_uring; use aio=threads, native or auto");
        return false;
    }
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "aio=%s cannot be set up: %s; use aio=threads or auto",
                    aio == FILE_AIO_NATIVE ? "native" : "io_uring", g_strerror(-ret));
        return false;
    }
    return true;
}

/* ---- handles: blocking, run in a worker ---- */

static int open_flags(bool writable, bool direct)
{
    return (writable ? O_RDWR : O_RDONLY) | (direct ? O_DIRECT : 0) | O_CLOEXEC | O_NOCTTY;
}

static void set_open_error(const char *name, bool direct, int error, GError **errp)
{
    if (direct && error == EINVAL) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "file system of '%s' does not support O_DIRECT; use cache.direct=off",
                    name);
        return;
    }
    g_set_error(errp, BDRV_ERROR, error, "Could not open '%s': %s", name, g_strerror(error));
}

static const char *describe_type(mode_t mode)
{
    return S_ISDIR(mode)    ? "a directory"
           : S_ISCHR(mode)  ? "a character device"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISSOCK(mode) ? "a socket"
           : S_ISBLK(mode)  ? "a block device"
                            : "a regular file";
}

static bool check_type(const struct stat *st, bool is_device, const char *name, GError **errp)
{
    if (is_device ? S_ISBLK(st->st_mode) : S_ISREG(st->st_mode)) {
        return true;
    }
    bool other = S_ISBLK(st->st_mode) || S_ISREG(st->st_mode);
    g_set_error(errp, BDRV_ERROR, S_ISDIR(st->st_mode) ? EISDIR : EINVAL,
                "'%s' is %s; driver '%s' needs %s%s", name, describe_type(st->st_mode),
                is_device ? "host_device" : "file", is_device ? "a block device" : "a regular file",
                !other        ? ""
                : is_device   ? "; use driver=file"
                              : "; use driver=host_device");
    return false;
}

static int open_again(int fd, int flags)
{
    char path[32];

    g_snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, flags);
}

static int open_descriptor(int fd, bool writable, bool direct)
{
    int now = fcntl(fd, F_GETFL);

    if (now < 0) {
        return -1;
    }
    bool mode_ok = (now & O_ACCMODE) == O_RDWR || ((now & O_ACCMODE) == O_RDONLY && !writable);
    /* O_APPEND would send every write to the end of the file, wherever it was meant for. */
    if (mode_ok && !(now & O_DIRECT) == !direct && !(now & (O_APPEND | O_PATH))) {
        return fcntl(fd, F_DUPFD_CLOEXEC, 0);
    }
    return open_again(fd, open_flags(writable, direct));
}

typedef struct OpenJob {
    FileState *s;
    int passed_fd; /* -1: by name */
    const char *name;
    bool writable, direct;
    GError *error;
} OpenJob;

static int open_by_name_or_fd(OpenJob *job)
{
    struct stat st;
    int fd;

    /* Before open(2): that would wait for the other end of a pipe. */
    if (job->passed_fd < 0 && stat(job->s->path, &st) == 0 && !check_type(&st, job->s->is_device, job->name, &job->error)) {
        return -1;
    }
    do {
        fd = job->passed_fd < 0 ? open(job->s->path, open_flags(job->writable, job->direct))
                                : open_descriptor(job->passed_fd, job->writable, job->direct);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        set_open_error(job->name, job->direct, errno, &job->error);
    }
    return fd;
}

static uint32_t device_block_size(int fd)
{
    int bytes = 0;

    return ioctl(fd, BLKSSZGET, &bytes) == 0 && bytes >= 512 ? bytes : 512;
}

static int open_job(void *opaque)
{
    OpenJob *job = opaque;
    FileState *s = job->s;
    FileHandle handle = { .direct = job->direct };
    struct stat st;

    handle.fd = open_by_name_or_fd(job);
    if (handle.fd < 0) {
        return -bdrv_error_code(job->error);
    }
    handle.writable = job->writable;
    if (fstat(handle.fd, &st) < 0) {
        set_open_error(job->name, false, errno, &job->error);
    } else if (check_type(&st, s->is_device, job->name, &job->error)) {
        file_probe_alignment(&handle, s->is_device, job->name, &job->error);
    }
    if (job->error) {
        close(handle.fd);
        return -bdrv_error_code(job->error);
    }
    s->block_size = s->is_device ? device_block_size(handle.fd) : 1;
    s->h = handle;
    s->lock_fd = handle.fd;
    return 0;
}

/* ---- open ---- */

static bool read_names(FileState *s, const BdrvOptions *options, OpenJob *job, GError **errp)
{
    const char *filename = bdrv_options_get_string(options, "filename", NULL);
    int64_t fd = bdrv_options_get_int(options, "fd", -1);

    if (bdrv_options_has(options, "fd")) {
        if (fd < 0 || fd > INT_MAX) {
            g_set_error(errp, BDRV_ERROR, EBADF, "fd %" PRId64 " is no file descriptor number", fd);
            return false;
        }
        if (filename) {
            g_set_error(errp, BDRV_ERROR, EINVAL, "'fd' and 'filename' exclude each other; give one of them");
            return false;
        }
        job->passed_fd = fd;
        return true;
    }
    if (!filename || !*filename) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the file is not named; give 'filename' or 'fd'");
        return false;
    }
    s->path = g_strdup(filename);
    job->passed_fd = -1;
    return true;
}

bool coroutine_fn file_co_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    FileState *s = file_state(bs);
    g_autofree char *fd_name = NULL;
    OpenJob job = {
        .s = s,
        .writable = flags & BDRV_O_RDWR,
        .direct = flags & BDRV_O_NOCACHE,
    };

    s->is_device = strcmp(bs->drv->format_name, "host_device") == 0;
    s->calls = &file_system_calls;
    s->aio = parse_aio(bdrv_options_get_string(options, "aio", "auto"));
    s->locking = parse_locking(bdrv_options_get_string(options, "locking", "auto"));
    s->h.fd = s->lock_fd = -1;
    if (!read_names(s, options, &job, errp) || !check_aio(s->aio, job.direct, errp)) {
        g_clear_pointer(&s->path, g_free);
        return false;
    }
    fd_name = g_strdup_printf("fd %d", job.passed_fd);
    job.name = s->path ? s->path : fd_name;

    int ret = file_run(open_job, &job);
    if (ret < 0) {
        if (!job.error) {
            set_open_error(job.name, false, -ret, &job.error);
        }
        g_propagate_error(errp, job.error);
        g_clear_pointer(&s->path, g_free);
        return false;
    }
    bs->supported_write_flags = BDRV_REQ_FUA;
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    pthread_mutex_init(&s->extent_lock, NULL);
    file_drop_init(&s->drop, flags);
    return true;
}

/* Once: what is free may be somebody else's descriptor a moment later. */
static int close_job(void *opaque)
{
    FileState *s = opaque;
    int fd = s->h.fd;

    file_locks_release(s, s->lock_fd);
    if (s->lock_fd != fd) {
        close(s->lock_fd);
    }
    s->h.fd = s->lock_fd = -1;
    /* Linux frees the descriptor whatever close() says; EINTR is not to be repeated. */
    return s->calls->close(fd) < 0 && errno != EINTR ? -errno : 0;
}

int coroutine_fn file_co_close(BlockDriverState *bs)
{
    FileState *s = file_state(bs);
    int ret = file_run(close_job, s);

    if (s->h.fd >= 0) {
        ret = close_job(s); /* no worker to be had */
    }
    g_clear_pointer(&s->path, g_free);
    pthread_mutex_destroy(&s->extent_lock);
    file_drop_destroy(&s->drop);
    return ret;
}

/* ---- reopen ---- */

typedef struct FileReopen {
    const FileState *s;
    FileHandle h;
    FileAio aio;
    BdrvOpenFlags flags;
    const char *name;
    GError *error;
} FileReopen;

static int reopen_job(void *opaque)
{
    FileReopen *r = opaque;
    struct stat before, after;
    int flags = open_flags(r->h.writable, r->h.direct);

    /* The same inode even if the name means another file by now; by name where /proc is not mounted. */
    r->h.fd = open_again(r->s->h.fd, flags);
    if (r->h.fd < 0 && errno == ENOENT && r->s->path) {
        r->h.fd = open(r->s->path, flags);
        if (r->h.fd >= 0 && (fstat(r->h.fd, &after) < 0 || fstat(r->s->h.fd, &before) < 0 ||
                             before.st_dev != after.st_dev || before.st_ino != after.st_ino)) {
            g_set_error(&r->error, BDRV_ERROR, ESTALE, "'%s' is another file now; close it and open it again",
                        r->name);
        }
    }
    if (r->h.fd < 0) {
        set_open_error(r->name, r->h.direct, errno, &r->error);
    } else if (!r->error) {
        file_probe_alignment(&r->h, r->s->is_device, r->name, &r->error);
    }
    if (r->error) {
        if (r->h.fd >= 0) {
            close(r->h.fd);
            r->h.fd = -1;
        }
        return -bdrv_error_code(r->error);
    }
    return 0;
}

static bool reopen_keeps_identity(const FileState *s, const BdrvOptions *options, GError **errp)
{
    const char *filename = bdrv_options_get_string(options, "filename", NULL);
    const char *locking = bdrv_options_get_string(options, "locking", NULL);

    if (filename && s->path && strcmp(filename, s->path) != 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "'filename' cannot be changed while the file is open");
        return false;
    }
    if (locking && (parse_locking(locking) == FILE_LOCKING_OFF) != (s->locking == FILE_LOCKING_OFF) &&
        parse_locking(locking) != FILE_LOCKING_AUTO) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "'locking' cannot be changed while the file is open");
        return false;
    }
    return true;
}

bool coroutine_fn file_co_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                         void **state, GError **errp)
{
    FileState *s = file_state(bs);
    FileReopen *r;

    if (!reopen_keeps_identity(s, options, errp)) {
        return false;
    }
    r = g_new0(FileReopen, 1);
    r->s = s;
    r->name = s->path ? s->path : bs->filename;
    r->h = (FileHandle){ .fd = -1, .writable = flags & BDRV_O_RDWR, .direct = flags & BDRV_O_NOCACHE };
    r->aio = bdrv_options_has(options, "aio") ? parse_aio(bdrv_options_get_string(options, "aio", "auto")) : s->aio;
    r->flags = flags;
    if (!check_aio(r->aio, r->h.direct, errp)) {
        g_free(r);
        return false;
    }
    if (r->h.writable != s->h.writable || r->h.direct != s->h.direct) {
        int ret = file_run(reopen_job, r);
        if (ret < 0) {
            if (!r->error) {
                set_open_error(r->name, false, -ret, &r->error);
            }
            g_propagate_error(errp, r->error);
            g_free(r);
            return false;
        }
    }
    *state = r;
    return true;
}

void file_reopen_commit(BlockDriverState *bs, void *state)
{
    FileState *s = file_state(bs);
    FileReopen *r = state;

    s->aio = r->aio;
    file_drop_set_mode(&s->drop, r->flags);
    if (r->h.fd >= 0) {
        int old = s->h.fd;
        int old_lock = s->lock_fd;

        s->h = r->h;
        /* Both hold the locks before the old one lets go. If they cannot be had, the old one stays for them. */
        if (file_locks_copy(s, r->h.fd)) {
            file_locks_release(s, old_lock);
            s->lock_fd = r->h.fd;
            if (old_lock != old) {
                close(old_lock);
            }
            close(old);
        } else if (old_lock != old) {
            close(old);
        }
        atomic_store(&s->no_nowait, false);
    }
    g_free(r);
}

void file_reopen_abort(BlockDriverState *bs, void *state)
{
    FileReopen *r = state;

    if (r->h.fd >= 0) {
        close(r->h.fd);
    }
    g_free(r);
}

/* ---- what the core asks ---- */

void file_refresh_limits(BlockDriverState *bs)
{
    FileState *s = file_state(bs);

    bs->limits.request_alignment = s->h.request_alignment;
    /* So that FILE_IO_PART elements always hold at least one block; see file_io_step(). */
    bs->limits.mem_alignment = MAX(s->h.mem_alignment, s->h.request_alignment / FILE_IO_PART);
    bs->limits.max_iov = IOV_MAX;
    bs->limits.max_transfer = FILE_TRANSFER_MAX;
    if (s->is_device) {
        bs->limits.pwrite_zeroes_alignment = s->block_size;
        bs->limits.pdiscard_alignment = s->block_size;
    }
}

char *file_refresh_filename(BlockDriverState *bs)
{
    return g_strdup(file_state(bs)->path);
}
