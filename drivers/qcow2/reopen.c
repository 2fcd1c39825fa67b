/* SPDX-License-Identifier: MIT */
/*
 * Reopening between read-only and read-write. The caches stay: nobody else could write the image
 * meanwhile. What would need a write before the file is writable (clearing autoclear bits), or caches
 * of another size, is refused; closing and opening does that.
 */

#include <errno.h>

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/open.h"

static bool same_caches(const Qcow2State *s, const BdrvOptions *options, GError **errp)
{
    Qcow2MetaConfig config;
    if (!qcow2_cache_config(s, options, &config, errp)) {
        return false;
    }
    if (config.l2_cache_bytes != s->cache.l2_bytes ||
        config.refcount_cache_bytes != s->cache.refcount_bytes ||
        config.slice_bytes != s->cache.slice_bytes) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "cache sizes cannot be changed by reopening; close the image and open it");
        return false;
    }
    return true;
}

/* What reopening changes. */
typedef struct Reopening {
    Qcow2DiscardConfig discard;
    bool lazy_refcounts;
    unsigned overlap_checks;
} Reopening;

static bool read_options(const Qcow2State *s, const BdrvOptions *options, BdrvOpenFlags flags, Reopening *r,
                         GError **errp)
{
    return qcow2_overlap_config(options, &r->overlap_checks, errp) && same_caches(s, options, errp) &&
           qcow2_lazy_config(s, options, &r->lazy_refcounts, errp) &&
           qcow2_discard_config(s, options, flags, &r->discard, errp);
}

static bool coroutine_fn prepare_writable(BlockDriverState *bs, BdrvOpenFlags flags, GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    if (bs->open_flags & BDRV_O_FORCE_SHARE) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "the image was opened beside possible writers (force-share) and may have changed; close "
                    "it and open "
                    "it read-write");
        return false;
    }
    if (s->header.autoclear_features & ~(qcow2_kept_autoclear(s) | QCOW2_AUTOCLEAR_BITMAPS)) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "autoclear features 0x%" G_GINT64_MODIFIER
                    "x must be cleared before writing; close the image and "
                    "open it read-write",
                    s->header.autoclear_features);
        return false;
    }
    if (s->dirty_at_open) {
        g_set_error(errp, BDRV_ERROR, EACCES,
                    "the image was not closed cleanly (dirty bit): its refcounts must be repaired before it is written; "
                    "close the image and open it read-write");
        return false;
    }
    return qcow2_check_writable(s, flags & BDRV_O_CHECK, errp);
}

bool coroutine_fn qcow2_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                       void **state, GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    bool writable = flags & BDRV_O_RDWR;
    if (!s->meta) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "the image was opened for information or check only; close it and open it again");
        return false;
    }
    Reopening r;
    if (!read_options(s, options, flags, &r, errp)) {
        return false;
    }
    if (writable && bs->read_only && !prepare_writable(bs, flags, errp)) {
        return false;
    }
    if (writable && !qcow2_meta_prepare_writable(bs, r.overlap_checks, errp)) {
        return false;
    }
    bool clean = !bs->read_only && (!writable || (s->lazy_refcounts && !r.lazy_refcounts));
    int ret = clean ? qcow2_meta_clean(bs) : 0;
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot write metadata before the image becomes %s: %s",
                    writable ? "one without lazy refcounts" : "read-only", g_strerror(-ret));
    }
    if (ret >= 0) {
        *state = g_memdup2(&r, sizeof(r));
    }
    return ret >= 0;
}

void qcow2_reopen_abort(BlockDriverState *bs, void *state)
{
    g_free(state);
}

void qcow2_reopen_commit(BlockDriverState *bs, void *state)
{
    const Reopening *r = state;
    qcow2_state(bs)->discard = r->discard;
    qcow2_state(bs)->lazy_refcounts = r->lazy_refcounts;
    qcow2_state(bs)->overlap_checks = r->overlap_checks;
    g_free(state);
    qcow2_meta_set_writable(bs, !bs->read_only);
}
