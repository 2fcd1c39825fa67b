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

/* "held by process 12 (qemu-io)", or what can be said instead. @byte -1: any, by a lock for writing. */
static char *describe_holders(const FileState *s, off_t byte)
{
    g_autofree char *holders = byte < 0 ? file_lock_holders(s, BYTE_USED, BYTE_UNSHARED + RIGHTS - 1, true)
                                        : file_lock_holders(s, byte, byte, false);

    return holders ? g_strconcat("held by ", holders, NULL)
                   : g_strdup("held by another process, but /proc does not show which");
}

/* 0; -EBUSY with *@byte the one that somebody has; another -errno if there is no telling. */
static int check_conflicts(const FileState *s, unsigned used, unsigned unshared, off_t *byte)
{
    const unsigned wanted[] = { used, unshared };
    const off_t opposite[] = { BYTE_UNSHARED, BYTE_USED };

    for (int i = 0; i < 2 * RIGHTS; i++) {
        *byte = opposite[i % 2] + i / 2;
        int ret = wanted[i % 2] & 1u << i / 2 ? test_byte(s, s->lock_fd, *byte) : 0;
        if (ret != 0) {
            return ret < 0 ? ret : -EBUSY;
        }
    }
    return 0;
}

static void set_conflict_error(const FileState *s, const char *name, off_t byte, GError **errp)
{
    bool shared = byte < BYTE_UNSHARED; /* somebody has the right, and it is to be ours alone */
    int n = (int)(byte - (shared ? BYTE_USED : BYTE_UNSHARED));
    g_autofree char *holders = describe_holders(s, byte);

    g_set_error(errp, BDRV_ERROR, EBUSY, "Failed to get %s\"%s\" lock on '%s': %s; close the file there%s",
                shared ? "shared " : "", right_names[n], name, holders,
                n || shared ? ", or open it read-only with force-share=on (-U)" : "");
}

static void set_lock_error(const FileState *s, const char *name, int error, GError **errp)
{
    /* Somebody holds a write lock, which is no part of the scheme but means "keep out". */
    if (error == EAGAIN || error == EACCES) {
        g_autofree char *holders = describe_holders(s, -1);
        g_set_error(errp, BDRV_ERROR, EBUSY, "'%s' is locked by another program: %s; close it there", name, holders);
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

/* On top of what is held already. 0; -EBUSY with *@conflict the byte that somebody has; another -errno */
static int lock_more(const FileState *s, unsigned used, unsigned unshared, off_t *conflict)
{
    int ret = lock_both(s, s->lock_fd, used, unshared);

    if (ret == 0) {
        ret = check_conflicts(s, used, unshared, conflict);
        if (ret < 0) {
            unlock_both(s, s->lock_fd, used, unshared);
        }
    }
    return ret;
}

bool file_locks_set(FileState *s, const char *name, unsigned used, unsigned unshared, GError **errp)
{
    off_t conflict = 0;
    int ret;

    if (s->locking == FILE_LOCKING_OFF) {
        return true;
    }
    ret = lock_more(s, used & ~s->locked_used, unshared & ~s->locked_unshared, &conflict);
    if (ret == -EBUSY) {
        set_conflict_error(s, name, conflict, errp); /* takes its time: what could not be had is let go of */
        return false;
    }
    if (ret < 0 && s->locking == FILE_LOCKING_AUTO && has_no_locks(-ret)) {
        s->locking = FILE_LOCKING_OFF;
        used = unshared = 0;
    } else if (ret < 0) {
        set_lock_error(s, name, -ret, errp);
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
