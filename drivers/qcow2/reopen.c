/* SPDX-License-Identifier: MIT */
/*
 * Reopening: read-only or read-write, with other options. What is cached stays: nobody else could write the image
 * meanwhile. What has to be written before anything else (clearing autoclear bits) is, when the file is writable.
 */

#include <errno.h>

#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/crypto.h"
#include "drivers/qcow2/open.h"

/* What reopening changes. */
typedef struct Reopening {
    Qcow2DiscardConfig discard;
    bool lazy_refcounts;
    int compression_level;
    unsigned overlap_checks;
    Qcow2MetaConfig caches;
    Qcow2NewCaches *new_caches; /* NULL: their sizes stay */
    BdrvKey key;                /* empty: it stays */
} Reopening;

static bool same_sizes(const Qcow2State *s, const Qcow2MetaConfig *config)
{
    return config->l2_cache_bytes == s->cache.l2_bytes && config->refcount_cache_bytes == s->cache.refcount_bytes &&
           config->slice_bytes == s->cache.slice_bytes;
}

static bool read_options(const Qcow2State *s, const BdrvOptions *options, BdrvOpenFlags flags, Reopening *r,
                         GError **errp)
{
    return qcow2_overlap_config(options, &r->overlap_checks, errp) &&
           qcow2_cache_config(s, options, &r->caches, errp) &&
           qcow2_lazy_config(s, options, &r->lazy_refcounts, errp) &&
           qcow2_discard_config(s, options, flags, &r->discard, errp) &&
           qcow2_compression_config(s, options, &r->compression_level, errp);
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
    if (s->snapshot_loaded) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "the image shows one of its snapshots; close it and open it read-write");
        return false;
    }
    if (s->dirty_at_open) {
        g_set_error(errp, BDRV_ERROR, EACCES,
                    "the image was not closed cleanly (dirty bit): its refcounts must be repaired before it is written; "
                    "close the image and open it read-write");
        return false;
    }
    return qcow2_check_writable(s, flags & BDRV_O_CHECK, errp) && qcow2_bitmaps_track(bs, errp);
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
    Reopening r = { 0 };
    if (!read_options(s, options, flags, &r, errp)) {
        return false;
    }
    if (writable && bs->read_only && !prepare_writable(bs, flags, errp)) {
        return false;
    }
    if (writable && !qcow2_meta_prepare_writable(bs, r.overlap_checks, errp)) {
        return false;
    }
    if (!writable && !qcow2_bitmaps_settle(bs, errp)) {
        return false;
    }
    bool clean = !bs->read_only && (!writable || (s->lazy_refcounts && !r.lazy_refcounts));
    int ret = clean ? qcow2_meta_clean(bs) : 0;
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot write metadata before the image becomes %s: %s",
                    writable ? "one without lazy refcounts" : "read-only", g_strerror(-ret));
        return false;
    }
    if (!same_sizes(s, &r.caches)) {
        r.new_caches = qcow2_meta_prepare_caches(bs, &r.caches, errp);
        if (!r.new_caches) {
            return false;
        }
    }
    if (!qcow2_crypto_reopen(bs, options, &r.key, errp)) {
        qcow2_meta_abort_caches(r.new_caches);
        return false;
    }
    *state = g_memdup2(&r, sizeof(r));
    return true;
}

static void keep_cache_config(Qcow2State *s, const Qcow2MetaConfig *config)
{
    s->cache.l2_bytes = config->l2_cache_bytes;
    s->cache.refcount_bytes = config->refcount_cache_bytes;
    s->cache.slice_bytes = config->slice_bytes;
    s->cache.clean = config->clean;
}

void qcow2_reopen_abort(BlockDriverState *bs, void *state)
{
    Reopening *r = state;
    bdrv_key_clear(&r->key);
    qcow2_meta_abort_caches(r->new_caches);
    g_free(r);
}

void qcow2_reopen_commit(BlockDriverState *bs, void *state)
{
    Reopening *r = state;
    qcow2_state(bs)->discard = r->discard;
    qcow2_state(bs)->lazy_refcounts = r->lazy_refcounts;
    qcow2_state(bs)->compression_level = r->compression_level;
    qcow2_state(bs)->overlap_checks = r->overlap_checks;
    keep_cache_config(qcow2_state(bs), &r->caches);
    qcow2_meta_commit_caches(bs, r->new_caches, &r->caches);
    if (qcow2_state(bs)->crypto) {
        bdrv_key_replace(&qcow2_state(bs)->crypto->key, &r->key);
    }
    g_free(r);
    qcow2_meta_set_writable(bs, !bs->read_only);
}

bool coroutine_fn qcow2_reopen_finish(BlockDriverState *bs, GError **errp)
{
    bool ok = qcow2_clear_autoclear(bs, errp);
    if (!ok) {
        qcow2_meta_set_writable(bs, false);
    }
    return ok;
}
