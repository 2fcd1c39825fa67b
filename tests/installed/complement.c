/* SPDX-License-Identifier: MIT */
/* A module with a driver: complement shows the complement of each byte of its file, read-only. */
#include <bdrv/driver.h>
#include <errno.h>

static const BdrvChildSpec children[] = {
    { .name = "file", .role = BDRV_CHILD_PROTOCOL },
    { .name = NULL },
};

static bool coroutine_fn complement_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                         GError **errp)
{
    int64_t length = bdrv_co_getlength(bs->file);

    (void)options;
    (void)flags;
    if (length < 0) {
        g_set_error(errp, BDRV_ERROR, (int)-length, "cannot tell the length of its file");
        return false;
    }
    bs->length = length;
    return true;
}

static int coroutine_fn complement_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                            size_t iov_offset, BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = g_try_malloc((size_t)bytes);
    int ret = buf ? bdrv_co_pread(bs->file, offset, bytes, buf, flags) : -ENOMEM;

    if (ret < 0) {
        return ret;
    }
    for (int64_t i = 0; i < bytes; i++) {
        buf[i] = (uint8_t)~buf[i];
    }
    bdrv_iov_from_buf(iov, iov_offset, buf, (size_t)bytes);
    return 0;
}

static const BlockDriver bdrv_complement = {
    .format_name = "complement",
    .children = children,
    .bdrv_open = complement_open,
    .bdrv_co_readv = complement_co_readv,
};

static bool complement_register(GError **errp)
{
    return bdrv_register_full(&bdrv_complement, BDRV_DRIVER_API, sizeof(BlockDriver), errp);
}

BDRV_MODULE(complement_register)
