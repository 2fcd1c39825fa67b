/* SPDX-License-Identifier: MIT */

/*
 * The guard of guessed raw images. Whoever may write to a raw image decides what the next probe finds
 * in it: a guest could write a qcow2 header that names a host file as backing file. A node whose raw
 * format was guessed therefore refuses every change after which its first bytes would be recognised
 * as something else. An image opened with format=raw takes any content.
 *
 * The check is made on the bytes as they will be, with a lock held over the write, so that two
 * harmless halves cannot make a header together.
 */

#include <string.h>

#include "block/io/request.h"
#include "block/registry/registry.h"

bool bdrv_guard_wanted(const BlockDriverState *bs)
{
    return g_str_equal(bs->drv->format_name, "raw");
}

/* The first min(@length, window) bytes as they are now; past the end they are zero. */
static uint8_t *coroutine_fn read_window(BlockDriverState *bs, int64_t length, int *ret)
{
    uint8_t *window = bdrv_try_blockalign(bs, BDRV_PROBE_WINDOW);
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, window, BDRV_PROBE_WINDOW);

    if (!window) {
        *ret = -ENOMEM;
        return NULL;
    }
    *ret = bdrv_read_node(bs, 0, BDRV_PROBE_WINDOW, &iov, 0, 0);
    if (*ret < 0) {
        bdrv_vfree(window);
        return NULL;
    }
    if (length < BDRV_PROBE_WINDOW) {
        memset(window + length, 0, BDRV_PROBE_WINDOW - length);
    }
    return window;
}

static bool stays_raw(const BlockDriverState *bs, const uint8_t *window, int64_t length)
{
    const BlockDriver *found =
        bdrv_probe_format(window, MIN(length, BDRV_PROBE_WINDOW), bs->filename ? bs->filename : "", NULL);

    return found && g_str_equal(found->format_name, bs->drv->format_name);
}

int coroutine_fn bdrv_guard_begin(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                  size_t iov_offset)
{
    BdrvIoState *io = bdrv_io(bs);
    int64_t length, inside = MIN(bytes, BDRV_PROBE_WINDOW - offset); /* <= 0: behind the window */
    uint8_t *window;
    int ret;

    co_mutex_lock(&io->guard_lock);
    length = MAX(atomic_load(&bs->length), offset + bytes);
    window = read_window(bs, length, &ret);
    if (window) {
        if (inside > 0 && iov) {
            bdrv_iov_to_buf(iov, iov_offset, window + offset, inside);
        } else if (inside > 0) {
            memset(window + offset, 0, inside);
        }
        ret = stays_raw(bs, window, length) ? 0 : -EPERM;
        bdrv_vfree(window);
    }
    if (ret < 0) {
        co_mutex_unlock(&io->guard_lock);
    }
    return ret;
}

int coroutine_fn bdrv_guard_begin_resize(BlockDriverState *bs, int64_t length)
{
    BdrvIoState *io = bdrv_io(bs);
    uint8_t *window;
    int ret;

    co_mutex_lock(&io->guard_lock);
    window = read_window(bs, length, &ret);
    if (window) {
        ret = stays_raw(bs, window, length) ? 0 : -EPERM;
        bdrv_vfree(window);
    }
    if (ret < 0) {
        co_mutex_unlock(&io->guard_lock);
    }
    return ret;
}

void coroutine_fn bdrv_guard_end(BlockDriverState *bs)
{
    co_mutex_unlock(&bdrv_io(bs)->guard_lock);
}
