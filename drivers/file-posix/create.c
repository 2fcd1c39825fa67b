/* SPDX-License-Identifier: MIT */
/* Making and deleting files. */

#include "drivers/file-posix/file.h"

#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PROBED_BYTES 4096

static const char *const prealloc_choices[] = { "off", "falloc", "full", NULL };

const BdrvOptionSpec file_create_options[] = {
    { "preallocation", BDRV_OPTION_STRING, "Preallocation mode (allowed values: off, falloc, full)", NULL,
      prealloc_choices },
    { "nocow", BDRV_OPTION_BOOL, "Turn off copy-on-write (valid only on btrfs)", "off" },
    { "extent_size_hint", BDRV_OPTION_SIZE, "Extent size hint for the image file, 0 to disable", "1M" },
    { NULL },
};

typedef struct CreateJob {
    const char *path;
    int64_t size;
    BdrvPrealloc prealloc;
    bool nocow;
    int64_t extent_size_hint;
    FileState s;  /* of the file while it is made */
    bool created; /* it was not there before */
    GError *error;
} CreateJob;

/* Both are hints to the file system, for performance only; where they are not known nothing is lost. */
static void apply_hints(int fd, const CreateJob *job)
{
    struct fsxattr attr;
    int inode_flags;

    if (job->nocow && ioctl(fd, FS_IOC_GETFLAGS, &inode_flags) == 0) {
        inode_flags |= FS_NOCOW_FL;
        (void)ioctl(fd, FS_IOC_SETFLAGS, &inode_flags);
    }
    if (job->extent_size_hint > 0 && ioctl(fd, FS_IOC_FSGETXATTR, &attr) == 0) {
        attr.fsx_xflags |= FS_XFLAG_EXTSIZE;
        attr.fsx_extsize = job->extent_size_hint;
        (void)ioctl(fd, FS_IOC_FSSETXATTR, &attr);
    }
}

/*
 * Emptying a file that somebody uses is the worst that can be done to it. Needs the rights to write
 * and resize; the locks go with the descriptor.
 */
static bool refuse_if_in_use(int fd, const char *path, GError **errp)
{
    FileState s = { .lock_fd = fd, .locking = FILE_LOCKING_AUTO, .calls = &file_system_calls };

    return file_locks_set(&s, path, BDRV_RIGHT_WRITE | BDRV_RIGHT_RESIZE, BDRV_RIGHT_RESIZE, errp);
}

/* Zeroes over what probing looks at. */
static int clear_start(int fd, int64_t length)
{
    static const uint8_t zeroes[PROBED_BYTES];

    for (size_t done = 0, wanted = MIN(length, PROBED_BYTES); done < wanted;) {
        ssize_t n = pwrite(fd, zeroes + done, wanted - done, done);

        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        done += MAX(n, 0);
    }
    return 0;
}

static int open_job(void *opaque)
{
    CreateJob *job = opaque;
    struct stat st;

    job->created = true;
    int fd = open(job->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 && errno == EEXIST) {
        job->created = false;
        fd = stat(job->path, &st) == 0 && !S_ISREG(st.st_mode) ? (errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL, -1)
                                                              : open(job->path, O_RDWR | O_CLOEXEC);
    }
    if (fd < 0) {
        int error = errno;
        g_set_error(&job->error, BDRV_ERROR, error, "cannot create '%s': %s", job->path,
                    error == EINVAL ? "it exists and is not a regular file" : g_strerror(error));
        return -error;
    }
    job->s.h.fd = fd;
    return 0;
}

static int resize_job(void *opaque)
{
    CreateJob *job = opaque;
    int ret;

    if (!refuse_if_in_use(job->s.h.fd, job->path, &job->error)) {
        return -bdrv_error_code(job->error);
    }
    ret = file_set_length(job->s.calls, job->s.h.fd, 0);
    if (ret < 0) {
        g_set_error(&job->error, BDRV_ERROR, -ret, "cannot empty '%s': %s", job->path, g_strerror(-ret));
        return ret;
    }
    apply_hints(job->s.h.fd, job);
    return file_resize(&job->s, 0, job->size, job->prealloc, &job->error) ? 0 : -bdrv_error_code(job->error);
}

/*
 * The first block of a new file is written, as qemu-img does: on some file systems a hole can be read at any
 * alignment, and who probes there for what O_DIRECT needs would take a hole's word for it.
 */
static int finish_job(void *opaque)
{
    CreateJob *job = opaque;
    int ret;

    if (!job->error) {
        ret = clear_start(job->s.h.fd, job->size);
        if (ret < 0) {
            g_set_error(&job->error, BDRV_ERROR, -ret, "cannot write to '%s': %s", job->path, g_strerror(-ret));
        }
    }
    if (close(job->s.h.fd) < 0 && !job->error) {
        g_set_error(&job->error, BDRV_ERROR, errno, "cannot close '%s': %s", job->path, g_strerror(errno));
    }
    if (job->error && job->created) {
        unlink(job->path);
    }
    return 0;
}

/* Runs a step of creating; an error that it has not put into words is "cannot create". */
static bool coroutine_fn run_create(CreateJob *job, int (*step)(void *opaque))
{
    int ret = file_run(step, job);

    if (ret < 0 && !job->error) {
        g_set_error(&job->error, BDRV_ERROR, -ret, "cannot create '%s': %s", job->path, g_strerror(-ret));
    }
    return ret == 0;
}

static bool coroutine_fn create_file(CreateJob *job, GError **errp)
{
    if (run_create(job, open_job)) {
        if (run_create(job, resize_job) && job->prealloc == BDRV_PREALLOC_FULL) {
            file_co_write_full(&job->s, 0, job->size, &job->error);
        }
        if (file_run(finish_job, job) < 0) {
            finish_job(job); /* no worker to be had */
        }
    }
    if (job->error) {
        g_propagate_error(errp, g_steal_pointer(&job->error));
        return false;
    }
    return true;
}

bool coroutine_fn file_co_create(const char *filename, BdrvChild *file, const BdrvOptions *options, GError **errp)
{
    CreateJob job = {
        .path = file_strip_prefix(filename, "file:"),
        .size = bdrv_options_get_int(options, "size", 0),
        .nocow = bdrv_options_get_bool(options, "nocow", false),
        .extent_size_hint = bdrv_options_get_int(options, "extent_size_hint", 1 << 20),
        .s = { .h = { .request_alignment = 1 }, .calls = &file_system_calls },
    };

    bdrv_prealloc_find(bdrv_options_get_string(options, "preallocation", "off"), &job.prealloc);
    if (job.size < 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "size %" PRId64 " is negative", job.size);
        return false;
    }
    if (job.extent_size_hint > UINT32_MAX || job.extent_size_hint < 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "extent_size_hint %" PRId64 " is too large; at most 4294967295",
                    job.extent_size_hint);
        return false;
    }
    return create_file(&job, errp);
}

/*
 * A device is there already, with whatever was on it. What probing looks at is cleared, so that the
 * new image is not taken for an old one of another format.
 */
static bool clear_device(int fd, const CreateJob *job, GError **errp)
{
    int64_t length = file_length(fd, true);

    if (length < 0) {
        g_set_error(errp, BDRV_ERROR, -length, "cannot read the length of '%s': %s", job->path, g_strerror(-length));
        return false;
    }
    if (job->size > length) {
        g_set_error(errp, BDRV_ERROR, ENOSPC, "'%s' has %" PRId64 " bytes, too few for %" PRId64
                    ", and a device does not grow", job->path, length, job->size);
        return false;
    }
    int ret = clear_start(fd, length);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot clear the start of '%s': %s", job->path, g_strerror(-ret));
        return false;
    }
    if (fdatasync(fd) < 0) { /* a device tells of errors late */
        g_set_error(errp, BDRV_ERROR, errno, "cannot flush '%s': %s", job->path, g_strerror(errno));
        return false;
    }
    return true;
}

static int device_job(void *opaque)
{
    CreateJob *job = opaque;
    struct stat st;
    int fd = open(job->path, O_RDWR | O_CLOEXEC);
    bool ok;

    if (fd < 0) {
        g_set_error(&job->error, BDRV_ERROR, errno, "cannot open '%s': %s", job->path, g_strerror(errno));
        return -bdrv_error_code(job->error);
    }
    ok = fstat(fd, &st) == 0 && S_ISBLK(st.st_mode);
    if (!ok) {
        g_set_error(&job->error, BDRV_ERROR, EINVAL, "'%s' is not a block device; use driver=file", job->path);
    }
    ok = ok && refuse_if_in_use(fd, job->path, &job->error) && clear_device(fd, job, &job->error);
    if (close(fd) < 0 && ok) {
        g_set_error(&job->error, BDRV_ERROR, errno, "cannot close '%s': %s", job->path, g_strerror(errno));
        ok = false;
    }
    return ok ? 0 : -bdrv_error_code(job->error);
}

bool coroutine_fn host_device_co_create(const char *filename, BdrvChild *file, const BdrvOptions *options,
                                        GError **errp)
{
    CreateJob job = {
        .path = file_strip_prefix(filename, "host_device:"),
        .size = bdrv_options_get_int(options, "size", 0),
    };
    int ret = file_run(device_job, &job);

    if (ret < 0) {
        if (!job.error) {
            g_set_error(&job.error, BDRV_ERROR, -ret, "cannot use '%s': %s", job.path, g_strerror(-ret));
        }
        g_propagate_error(errp, job.error);
        return false;
    }
    return true;
}

static int delete_job(void *opaque)
{
    const char *path = opaque;
    struct stat st;

    if (lstat(path, &st) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode)) {
        return -EINVAL;
    }
    return unlink(path) < 0 ? -errno : 0;
}

bool coroutine_fn file_co_delete(const char *filename, GError **errp)
{
    const char *path = file_strip_prefix(filename, "file:");
    int ret = file_run(delete_job, (void *)path);

    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot delete '%s': %s", path,
                    ret == -EINVAL ? "it is not a regular file" : g_strerror(-ret));
        return false;
    }
    return true;
}
