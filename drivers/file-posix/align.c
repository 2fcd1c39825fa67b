/* SPDX-License-Identifier: MIT */
/*
 * What O_DIRECT wants of offsets, lengths and buffers. Asked in this order: statx(STATX_DIOALIGN),
 * the logical block size of a device, then reads that succeed or fail.
 */

#include "drivers/file-posix/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ALIGN_MAX 65536u
#define ALIGN_SAFE 4096u

/* Returns 1 known, 0 not known, -1 the file has no direct I/O. */
static int ask_statx(FileHandle *handle)
{
#ifdef STATX_DIOALIGN
    struct statx stx;

    if (statx(handle->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) < 0 || !(stx.stx_mask & STATX_DIOALIGN)) {
        return 0;
    }
    if (stx.stx_dio_offset_align == 0) {
        return -1;
    }
    handle->request_alignment = stx.stx_dio_offset_align;
    handle->mem_alignment = MAX(stx.stx_dio_mem_align, 1u);
    return 1;
#else
    return 0;
#endif
}

static bool try_read(int fd, void *buf, size_t bytes)
{
    ssize_t ret;

    do {
        ret = pread(fd, buf, bytes, 0);
    } while (ret < 0 && errno == EINTR);
    /* Only EINVAL speaks of alignment; a bad sector at 0 must not keep the file from being opened. */
    return ret >= 0 || errno != EINVAL;
}

/* The smallest power of two for which a read does not fail; 0 if there is none. An empty file answers anything. */
static uint32_t try_alignments(int fd, char *buf, bool of_memory, uint32_t request_alignment)
{
    for (uint32_t align = 512; align <= ALIGN_MAX; align *= 2) {
        if (of_memory ? try_read(fd, buf + align, MAX(request_alignment, align)) : try_read(fd, buf, align)) {
            return align;
        }
    }
    return 0;
}

static bool probe_by_reading(FileHandle *handle)
{
    struct stat st;
    void *buf;

    if (fstat(handle->fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0) {
        handle->request_alignment = handle->mem_alignment = ALIGN_SAFE; /* a read at the end proves nothing */
        return true;
    }
    if (posix_memalign(&buf, 2 * ALIGN_MAX, 2 * ALIGN_MAX) != 0) {
        return false;
    }
    if (!handle->request_alignment) {
        handle->request_alignment = try_alignments(handle->fd, buf, false, 0);
    }
    if (handle->request_alignment) {
        handle->mem_alignment = try_alignments(handle->fd, buf, true, handle->request_alignment);
    }
    free(buf);
    return handle->request_alignment && handle->mem_alignment;
}

static bool is_sane(uint32_t align)
{
    return align && align <= ALIGN_MAX && (align & (align - 1)) == 0;
}

bool file_probe_alignment(FileHandle *handle, bool is_device, const char *name, GError **errp)
{
    handle->request_alignment = handle->mem_alignment = 1;
    if (!handle->direct) {
        return true;
    }
    int known = ask_statx(handle);
    if (known == 0) {
        int sector = 0;
        handle->request_alignment = handle->mem_alignment = 0;
        if (is_device && ioctl(handle->fd, BLKSSZGET, &sector) == 0 && sector > 0) {
            handle->request_alignment = sector;
        }
        known = probe_by_reading(handle) ? 1 : -1;
    }
    if (known < 0 || !is_sane(handle->request_alignment) || !is_sane(handle->mem_alignment)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "'%s' cannot be used with direct I/O: no alignment of requests works; use cache.direct=off", name);
        return false;
    }
    return true;
}
