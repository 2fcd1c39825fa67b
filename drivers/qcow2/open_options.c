/* SPDX-License-Identifier: MIT */
/* Options of an open qcow2 node. */

#include <errno.h>
#include <inttypes.h>

#include "drivers/qcow2/compress.h"
#include "drivers/qcow2/open.h"

#define DEFAULT_L2_CACHE_BYTES (INT64_C(32) << 20)
#define DEFAULT_SLICE_BYTES 4096u
#define MIN_SLICE_BYTES 512u
#define MIN_SLICES 2
/* As the documentation says: a refcount cache of 4 clusters is enough, refcounts are used in order. */
#define DEFAULT_REFCOUNT_CLUSTERS 4
#define DEFAULT_CLEAN_S 600

const BdrvOptionSpec qcow2_open_options[] = {
    { "l2-cache-size", BDRV_OPTION_SIZE, "Maximum size of the L2 table cache", NULL, NULL },
    { "refcount-cache-size", BDRV_OPTION_SIZE, "Maximum size of the refcount block cache", NULL, NULL },
    { "cache-size", BDRV_OPTION_SIZE, "Maximum combined size of the L2 and refcount block caches", NULL,
      NULL },
    { "l2-cache-entry-size", BDRV_OPTION_SIZE, "Size of each entry in the L2 cache", "4k", NULL },
    { "cache-clean-interval", BDRV_OPTION_INT, "Clean unused cache entries after this time (in seconds)", "600", NULL },
    { "lazy-refcounts", BDRV_OPTION_BOOL, "Postpone refcount updates", NULL, NULL },
    QCOW2_OVERLAP_OPTIONS,
    { "encrypt.format", BDRV_OPTION_STRING, "Encryption of the image: aes or luks", NULL,
      (const char *const[]){ "aes", "luks", NULL } },
    { "encrypt.key-secret", BDRV_OPTION_STRING, "ID of secret providing qcow2 AES key or LUKS passphrase", NULL, NULL },
    { "pass-discard-request", BDRV_OPTION_BOOL, "Pass guest discard requests to the layer below", NULL, NULL },
    { "pass-discard-snapshot", BDRV_OPTION_BOOL,
      "Generate discard requests when snapshot related space is freed", "on", NULL },
    { "pass-discard-other", BDRV_OPTION_BOOL, "Generate discard requests when other clusters are freed", "off",
      NULL },
    { "compression-level", BDRV_OPTION_INT, "How well compressed writes compress: 1 (fast) to 9, zstd: to 22", NULL, NULL },
    { "discard-no-unref", BDRV_OPTION_BOOL, "Do not unreference discarded clusters", "off", NULL },
    { NULL },
};

bool qcow2_discard_config(const Qcow2State *s, const BdrvOptions *options, BdrvOpenFlags flags,
                          Qcow2DiscardConfig *config, GError **errp)
{
    Qcow2DiscardConfig c = {
        .pass[QCOW2_DISCARD_REQUEST] = bdrv_options_get_bool(options, "pass-discard-request", flags & BDRV_O_UNMAP),
        .pass[QCOW2_DISCARD_SNAPSHOT] = bdrv_options_get_bool(options, "pass-discard-snapshot", true),
        .pass[QCOW2_DISCARD_OTHER] = bdrv_options_get_bool(options, "pass-discard-other", false),
        .no_unref = bdrv_options_get_bool(options, "discard-no-unref", false),
    };
    if (c.no_unref && s->geometry.version < 3) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "discard-no-unref=on needs a version 3 image (compat=1.1), which can keep space for zeroes");
        return false;
    }
    *config = c;
    return true;
}

bool qcow2_lazy_config(const Qcow2State *s, const BdrvOptions *options, bool *lazy, GError **errp)
{
    bool by_header = s->header.compatible_features & QCOW2_COMPAT_LAZY_REFCOUNTS;
    bool wanted = bdrv_options_get_bool(options, "lazy-refcounts", by_header);
    if (wanted && s->geometry.version < 3) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level (compat=1.1): "
                    "version 2 has no dirty bit");
        return false;
    }
    *lazy = wanted;
    return true;
}

bool qcow2_compression_config(const Qcow2State *s, const BdrvOptions *options, int *level, GError **errp)
{
    int64_t wanted = bdrv_options_get_int(options, "compression-level", 0), most;
    *level = 0;
    if (!bdrv_options_has(options, "compression-level")) {
        return true;
    }
    most = qcow2_compression_levels(s->geometry.compression_type);
    if (wanted < 1 || wanted > most) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "compression-level %" PRId64 " is wrong: %s has levels from 1 to %" PRId64,
                    wanted, s->geometry.compression_type ? "zstd" : "zlib", most);
        return false;
    }
    *level = (int)wanted;
    return true;
}

/* Slices are powers of two from 512 bytes to a cluster. */
static bool slice_size(const Qcow2State *s, const BdrvOptions *options, uint32_t *slice, GError **errp)
{
    uint32_t cluster_size = s->geometry.cluster_size;
    int64_t size =
        bdrv_options_get_int(options, "l2-cache-entry-size", MIN(DEFAULT_SLICE_BYTES, cluster_size));
    if (size < MIN_SLICE_BYTES || size > cluster_size || (size & (size - 1))) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "l2-cache-entry-size %" PRId64
                    " is wrong: it must be a power of two from %u to the cluster size "
                    "%" PRIu32,
                    size, MIN_SLICE_BYTES, cluster_size);
        return false;
    }
    *slice = (uint32_t)size;
    return true;
}

/* cache-size gives the L2 cache what it can use and the refcount cache the rest. */
static bool split_combined(const BdrvOptions *options, int64_t l2_useful, int64_t refcount_min,
                           Qcow2MetaConfig *config, GError **errp)
{
    bool has_l2 = bdrv_options_has(options, "l2-cache-size");
    bool has_refcount = bdrv_options_has(options, "refcount-cache-size");
    int64_t total = bdrv_options_get_int(options, "cache-size", 0);
    if (has_l2 && has_refcount) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time; "
                    "leave out one");
        return false;
    }
    const char *one = has_l2 ? "l2-cache-size" : "refcount-cache-size";
    int64_t part = has_l2 ? config->l2_cache_bytes : config->refcount_cache_bytes;
    if ((has_l2 || has_refcount) && part > total) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "%s %" PRId64 " is larger than cache-size %" PRId64, one, part,
                    total);
        return false;
    }
    if (has_l2) {
        config->refcount_cache_bytes = total - part;
    } else if (has_refcount) {
        config->l2_cache_bytes = total - part;
    } else if (total >= refcount_min) {
        config->l2_cache_bytes = MIN(l2_useful, total - refcount_min);
        config->refcount_cache_bytes = total - config->l2_cache_bytes;
    } else {
        config->l2_cache_bytes = 0;
        config->refcount_cache_bytes = total;
    }
    return true;
}

static bool clean_config(const BdrvOptions *options, Qcow2CleanConfig *clean, GError **errp)
{
    int64_t interval = bdrv_options_get_int(options, "cache-clean-interval", DEFAULT_CLEAN_S);
    if (interval < 0 || interval > UINT32_MAX) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "cache-clean-interval %" PRId64 " is too big: 0 (never) to %" PRIu32 " seconds are allowed",
                    interval, UINT32_MAX);
        return false;
    }
    *clean = (Qcow2CleanConfig){ interval, bdrv_options_has(options, "cache-clean-interval") };
    return true;
}

/* More entries than a cache could count. */
static bool check_size(const char *option, int64_t bytes, uint32_t slice, GError **errp)
{
    if (bytes / slice > INT32_MAX) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "%s is too big: %" PRId64 " bytes are more than %d entries of %" PRIu32,
                    option, bytes, INT32_MAX, slice);
        return false;
    }
    return true;
}

bool qcow2_cache_config(const Qcow2State *s, const BdrvOptions *options, Qcow2MetaConfig *config,
                        GError **errp)
{
    const Qcow2Geometry *g = &s->geometry;
    uint32_t slice;
    Qcow2CleanConfig clean;
    if (!slice_size(s, options, &slice, errp) || !clean_config(options, &clean, errp)) {
        return false;
    }
    /* What all L2 tables of the disk take; no cache needs more. */
    uint64_t clusters = (s->header.size >> g->cluster_bits) + 1;
    uint64_t all_l2 = MIN(clusters, (uint64_t)INT64_MAX / g->l2_entry_bytes - slice) * g->l2_entry_bytes;
    int64_t l2_useful = (int64_t)((all_l2 + slice - 1) / slice * slice);
    int64_t refcount_min = (int64_t)DEFAULT_REFCOUNT_CLUSTERS << g->cluster_bits;
    Qcow2MetaConfig c = {
        .l2_cache_bytes =
            bdrv_options_get_int(options, "l2-cache-size", MIN(DEFAULT_L2_CACHE_BYTES, l2_useful)),
        .refcount_cache_bytes = bdrv_options_get_int(options, "refcount-cache-size", refcount_min),
        .slice_bytes = slice,
        .clean = clean,
    };
    if (bdrv_options_has(options, "cache-size") &&
        !split_combined(options, l2_useful, refcount_min, &c, errp)) {
        return false;
    }
    c.l2_cache_bytes = MAX(MIN(c.l2_cache_bytes, l2_useful), (int64_t)MIN_SLICES * slice);
    c.refcount_cache_bytes = MAX(c.refcount_cache_bytes, (int64_t)MIN_SLICES * slice);
    *config = c;
    return check_size("the L2 cache", c.l2_cache_bytes, slice, errp) &&
           check_size("the refcount cache", c.refcount_cache_bytes, slice, errp);
}
