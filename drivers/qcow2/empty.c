/* SPDX-License-Identifier: MIT */
/*
 * Make an image empty: the backing file shows everywhere. Drained.
 *
 * Where nothing but the disk uses clusters no table is read: an empty L1 table and refcount structures that count only
 * header and themselves are written behind all that is in use, and one sector of header leads to them. The image is
 * the old one or an empty one. Then the same once more at the front of the file, which is free by now, and the rest of
 * it is cut off.
 *
 * Otherwise (snapshots, bitmaps, encryption, an external data file) each cluster is dropped as by a discard. A power
 * loss leaves some of them.
 */

#include <errno.h>

#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/compressed.h"
#include "drivers/qcow2/meta/meta.h"
#include "drivers/qcow2/resize.h"

/* Whether no one but the disk uses clusters. */
static bool is_disk_only(const Qcow2State *s)
{
    return s->header.nb_snapshots == 0 && !s->extensions.bitmaps && s->header.crypt_method == 0 &&
           !(s->header.incompatible_features & QCOW2_INCOMPAT_DATA_FILE);
}

/* Settled. -errno: the image is as it was. */
static int coroutine_fn replace_tables(BlockDriverState *bs)
{
    unsigned bits = qcow2_state(bs)->geometry.cluster_bits;
    int64_t used_bytes = qcow2_meta_used_end(bs);
    if (used_bytes < 0) {
        return (int)used_bytes;
    }
    uint64_t used = MAX((uint64_t)used_bytes >> bits, 1), end;
    int ret = qcow2_meta_empty(bs, used, used, &end);
    if (ret < 0) {
        return ret;
    }
    qcow2_compressed_forget(bs, 0, INT64_MAX);
    /* It is empty. That the file becomes shorter, too, is a present. */
    uint64_t front_end;
    if (qcow2_meta_empty(bs, 1, used, &front_end) >= 0) {
        end = front_end;
    }
    if (bdrv_co_getlength(bs->file) > (int64_t)(end << bits)) {
        bdrv_co_truncate(bs->file, (int64_t)(end << bits), false, BDRV_PREALLOC_OFF, 0, NULL);
    }
    return 0;
}

int coroutine_fn qcow2_make_empty(BlockDriverState *bs)
{
    const Qcow2State *s = qcow2_state(bs);
    if (!s->meta || atomic_load(&s->corrupt)) {
        return -EIO;
    }
    if (s->header.autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW) {
        return -ENOTSUP; /* the data file is the disk */
    }
    int ret = qcow2_note_change(bs, 0, atomic_load(&bs->length));
    ret = ret < 0 ? ret : qcow2_meta_settle(bs);
    if (ret < 0 || (is_disk_only(s) && replace_tables(bs) >= 0)) {
        return ret;
    }
    return qcow2_forget_from(bs, 0);
}
