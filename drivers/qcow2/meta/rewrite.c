/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/meta/rewrite.h"

#include <errno.h>

#include "drivers/qcow2/meta/meta_int.h"

static int coroutine_fn barrier(Qcow2Rewrite *rewrite)
{
    if (!rewrite->unflushed) {
        return 0;
    }
    int ret = bdrv_co_flush(rewrite->bs->file);
    rewrite->unflushed = ret < 0;
    return ret < 0 ? ret : 0;
}

int coroutine_fn qcow2_rewrite(Qcow2Rewrite *rewrite, Qcow2RewritePhase phase, uint64_t host_offset, uint64_t bytes,
                               const void *buf)
{
    if (phase < rewrite->phase) {
        return -EINVAL; /* what the later phase relies on would change under it */
    }
    int ret = phase > rewrite->phase ? barrier(rewrite) : 0;
    if (ret < 0) {
        return ret;
    }
    rewrite->phase = phase;
    rewrite->unflushed = rewrite->written = true;
    ret = bdrv_co_pwrite(rewrite->bs->file, (int64_t)host_offset, (int64_t)bytes, buf, 0);
    return ret < 0 ? ret : 0;
}

static int coroutine_fn write_sector(Qcow2Rewrite *rewrite, const Qcow2Header *header, uint8_t *sector)
{
    BdrvChild *file = rewrite->bs->file;
    qcow2_header_encode(header, sector, QCOW2_SECTOR);
    int ret = bdrv_co_pwrite(file, 0, QCOW2_SECTOR, sector, 0);
    return ret < 0 ? ret : bdrv_co_flush(file);
}

int coroutine_fn qcow2_rewrite_header(Qcow2Rewrite *rewrite, const Qcow2Header *wanted)
{
    Qcow2State *s = qcow2_state(rewrite->bs);
    int ret = barrier(rewrite);
    if (ret < 0) {
        return ret;
    }
    uint8_t *sector = bdrv_try_blockalign(rewrite->bs->file->bs, QCOW2_SECTOR);
    ret = sector ? bdrv_co_pread(rewrite->bs->file, 0, QCOW2_SECTOR, sector, 0) : -ENOMEM;
    if (ret >= 0) {
        rewrite->written = true;
        ret = write_sector(rewrite, wanted, sector);
        if (ret < 0) {
            rewrite->in_doubt = write_sector(rewrite, &s->header, sector) < 0;
        } else {
            s->header = *wanted;
            rewrite->phase = QCOW2_REWRITE_NEW;
        }
    }
    bdrv_vfree(sector);
    return ret < 0 ? ret : 0;
}
