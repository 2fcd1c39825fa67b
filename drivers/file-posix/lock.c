/* SPDX-License-Identifier: MIT */
/*
 * Rights as file locks, so that processes see each other's: QEMU's scheme, compatible with its tools.
 *
 * Right n in use: a read lock on byte 100 + n. Right n not shared: a read lock on byte 200 + n. Read
 * locks never exclude each other, so taking one always works; then the opposite byte is tested, as
 * if for a write lock: 200 + n for a right used, 100 + n for a right not shared. Of two processes
 * that do this at the same time at least one sees the other. Locks are those of open file
 * descriptions (F_OFD_SETLK): threads and descriptors of one process count as strangers.
 */

#include "drivers/file-posix/file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define BYTE_USED 100
#define BYTE_UNSHARED 200
#define RIGHTS 4

static const char *const right_names[RIGHTS] = { "consistent read", "write", "write unchanged", "resize" };

static int lock_call(const FileState *s, int fd, int command, struct flock *lock)
{
    int ret;

    do {
        ret = s->calls->lock(fd, command, lock);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

static int set_byte(const FileState *s, int fd, off_t byte, short type)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

    return lock_call(s, fd, F_OFD_SETLK, &lock);
}

/* 1 if another open file description has a lock on the byte, 0 if not, -errno. */
static int test_byte(const FileState *s, int fd, off_t byte)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
    int ret = lock_call(s, fd, F_OFD_GETLK, &lock);

    return ret < 0 ? ret : lock.l_type != F_UNLCK;
}

static void unlock_mask(const FileState *s, int fd, int base, unsigned mask)
{
    for (int n = 0; n < RIGHTS; n++) {
        if (mask & 1u << n) {
            set_byte(s, fd, base + n, F_UNLCK);
        }
    }
}

/* Locks the bytes of @mask; on failure none of them stays locked. */
static int lock_mask(const FileState *s, int fd, int base, unsigned mask)
{
    for (int n = 0; n < RIGHTS; n++) {
        int ret = mask & 1u << n ? set_byte(s, fd, base + n, F_RDLCK) : 0;
        if (ret < 0) {
            unlock_mask(s, fd, base, mask & ((1u << n) - 1));
            return ret;
        }
    }
    return 0;
}

/* 0; -EBUSY with @errp set; another -errno if there is no telling. */
static int check_conflicts(const FileState *s, const char *name, unsigned used, unsigned unshared, GError **errp)
{
    for (int n = 0; n < RIGHTS; n++) {
        int ret = used & 1u << n ? test_byte(s, s->lock_fd, BYTE_UNSHARED + n) : 0;
        if (ret > 0) {
            g_set_error(errp, BDRV_ERROR, EBUSY,
                        "'%s' is in use: this open needs the right '%s', which another user of the file does not "
                        "share; close it there%s",
                        name, right_names[n], n ? ", or open read-only with force-share=on (-U)" : "");
            return -EBUSY;
        }
        if (ret == 0 && unshared & 1u << n) {
            ret = test_byte(s, s->lock_fd, BYTE_USED + n);
        }
        if (ret > 0) {
            g_set_error(errp, BDRV_ERROR, EBUSY,
                        "'%s' is in use: another user of the file has the right '%s', which this open does not "
                        "share; close it there, or open read-only with force-share=on (-U)",
                        name, right_names[n]);
            return -EBUSY;
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static void set_lock_error(const char *name, int error, GError **errp)
{
    /* Somebody holds a write lock, which is no part of the scheme but means "keep out". */
    if (error == EAGAIN || error == EACCES) {
        g_set_error(errp, BDRV_ERROR, EBUSY, "'%s' is locked by another program; close it there", name);
    } else {
        g_set_error(errp, BDRV_ERROR, error,
                    "'%s' cannot be locked: %s; use locking=off if nobody else can open it", name,
                    g_strerror(error));
    }
}

/*
 * What a kernel (EINVAL: before 3.15) or a file system without such locks answers. Not ENOLCK: that is also
 * a lock server that cannot be reached, behind which others may hold locks.
 */
static bool has_no_locks(int error)
{
    return error == ENOSYS || error == EOPNOTSUPP || error == EINVAL;
}

static int lock_both(const FileState *s, int fd, unsigned used, unsigned unshared)
{
    int ret = lock_mask(s, fd, BYTE_USED, used);

    if (ret == 0) {
        ret = lock_mask(s, fd, BYTE_UNSHARED, unshared);
        if (ret < 0) {
            unlock_mask(s, fd, BYTE_USED, used);
        }
    }
    return ret;
}

static void unlock_both(const FileState *s, int fd, unsigned used, unsigned unshared)
{
    unlock_mask(s, fd, BYTE_USED, used);
    unlock_mask(s, fd, BYTE_UNSHARED, unshared);
}

/* On top of what is held already. 0; -EBUSY with @errp set; another -errno */
static int lock_more(const FileState *s, const char *name, unsigned used, unsigned unshared, GError **errp)
{
    int ret = lock_both(s, s->lock_fd, used, unshared);

    if (ret == 0) {
        ret = check_conflicts(s, name, used, unshared, errp);
        if (ret < 0) {
            unlock_both(s, s->lock_fd, used, unshared);
        }
    }
    return ret;
}

bool file_locks_set(FileState *s, const char *name, unsigned used, unsigned unshared, GError **errp)
{
    GError *conflict = NULL;
    int ret;

    if (s->locking == FILE_LOCKING_OFF) {
        return true;
    }
    ret = lock_more(s, name, used & ~s->locked_used, unshared & ~s->locked_unshared, &conflict);
    if (conflict) {
        g_propagate_error(errp, conflict);
        return false;
    }
    if (ret < 0 && s->locking == FILE_LOCKING_AUTO && has_no_locks(-ret)) {
        s->locking = FILE_LOCKING_OFF;
        used = unshared = 0;
    } else if (ret < 0) {
        set_lock_error(name, -ret, errp);
        return false;
    }
    unlock_both(s, s->lock_fd, s->locked_used & ~used, s->locked_unshared & ~unshared);
    s->locked_used = used;
    s->locked_unshared = unshared;
    return true;
}

typedef struct RightsJob {
    FileState *s;
    const char *name;
    unsigned used, unshared;
    GError *error;
} RightsJob;

static int rights_job(void *opaque)
{
    RightsJob *job = opaque;

    return file_locks_set(job->s, job->name, job->used, job->unshared, &job->error)
               ? 0 : -bdrv_error_code(job->error);
}

bool coroutine_fn file_co_set_rights(BlockDriverState *bs, unsigned used, unsigned unshared, GError **errp)
{
    FileState *s = file_state(bs);
    RightsJob job = { .s = s, .name = s->path ? s->path : bs->filename, .used = used, .unshared = unshared };

    if (s->locking == FILE_LOCKING_OFF || (used == s->locked_used && unshared == s->locked_unshared)) {
        return true;
    }
    int ret = file_run(rights_job, &job);
    if (ret == -EAGAIN && !job.error) {
        ret = rights_job(&job); /* no worker to be had, and giving up rights must not fail */
    }
    if (ret < 0) {
        g_propagate_error(errp, job.error);
        return false;
    }
    return true;
}

bool file_locks_copy(const FileState *s, int fd)
{
    return lock_both(s, fd, s->locked_used, s->locked_unshared) == 0;
}

void file_locks_release(const FileState *s, int fd)
{
    unlock_both(s, fd, s->locked_used, s->locked_unshared);
}
