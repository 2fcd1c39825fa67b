/* SPDX-License-Identifier: MIT */
/*
 * Open an image. An image is hostile input: each step judges one thing before the next one uses it,
 * and says which field has which value and what would be right. Nothing is written before every
 * step has passed.
 *
 * qcow2_open() at the end reads as the list of steps. Tables are validated before the caches are
 * made from them, so that meta/ starts from facts only.
 */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "config.h"
#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/compressed.h"
#include "drivers/qcow2/crypto.h"
#include "drivers/qcow2/data_file.h"
#include "drivers/qcow2/open.h"
#include "drivers/qcow2/repair.h"

#define KNOWN_INCOMPATIBLE                                                                                   \
    (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT | QCOW2_INCOMPAT_DATA_FILE | QCOW2_INCOMPAT_COMPRESSION | \
     QCOW2_INCOMPAT_EXTENDED_L2)

/* Read of the header cluster when cluster_bits is nonsense: enough for the feature name table. */
#define FALLBACK_HEAD_BYTES (64u << 10)

/* What the steps share. */
typedef struct Opening {
    BlockDriverState *bs;
    Qcow2State *s;
    const BdrvOptions *options; /* NULL: once more, as the state has been set by those of then */
    BdrvOpenFlags flags;
    Qcow2Crypto *crypto; /* once more: with the key of then; NULL: it was not encrypted */
    bool writable;  /* the image will be written to */
    bool check;     /* opened for check: tolerate what a check reports */
    bool info_only; /* BDRV_O_NO_IO: nothing but the header's facts is wanted */
    int64_t file_length;
    uint8_t *head; /* the header cluster, or what the file has of it */
    size_t head_bytes;
} Opening;

static bool coroutine_fn read_bytes(Opening *o, uint64_t offset, size_t bytes, void *buf, const char *what,
                                    GError **errp)
{
    int ret = bdrv_co_pread(o->bs->file, (int64_t)offset, (int64_t)bytes, buf, 0);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot read %s (%zu bytes at offset %" PRIu64 "): %s", what,
                    bytes, offset, g_strerror(-ret));
    }
    return ret >= 0;
}

static bool coroutine_fn load_header(Opening *o, GError **errp)
{
    int64_t length = bdrv_co_getlength(o->bs->file);
    if (length < 0) {
        g_set_error(errp, BDRV_ERROR, (int)-length, "cannot get the length of the image file: %s",
                    g_strerror((int)-length));
        return false;
    }
    o->file_length = length;
    uint8_t fixed[QCOW2_HEADER_SIZE_NEW];
    size_t bytes = (size_t)MIN(length, (int64_t)sizeof(fixed));
    return read_bytes(o, 0, bytes, fixed, "the header", errp) &&
           qcow2_header_decode(fixed, bytes, &o->s->header, errp);
}

/* The header cluster, and from it the header fields that are unknown to us. */
static bool coroutine_fn keep_unknown_header(Opening *o, GError **errp)
{
    const Qcow2Header *h = &o->s->header;
    bool sane = h->cluster_bits >= QCOW2_MIN_CLUSTER_BITS && h->cluster_bits <= QCOW2_MAX_CLUSTER_BITS;
    uint64_t want = sane ? UINT64_C(1) << h->cluster_bits : FALLBACK_HEAD_BYTES;
    o->head_bytes = (size_t)MIN(want, (uint64_t)o->file_length);
    if (h->header_length > o->head_bytes) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "header_length %" PRIu32 " is larger than the header cluster (%zu bytes)",
                    h->header_length, o->head_bytes);
        return false;
    }
    o->head = g_try_malloc(o->head_bytes);
    if (!o->head) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for the header cluster of %zu bytes", o->head_bytes);
        return false;
    }
    if (!read_bytes(o, 0, o->head_bytes, o->head, "the header cluster", errp)) {
        return false;
    }
    if (h->header_length > QCOW2_HEADER_KNOWN_BYTES) {
        uint32_t bytes = h->header_length - QCOW2_HEADER_KNOWN_BYTES;
        o->s->extensions.unknown_header = g_memdup2(o->head + QCOW2_HEADER_KNOWN_BYTES, bytes);
        o->s->extensions.unknown_header_bytes = bytes;
    }
    return true;
}

/* Where header extensions must end: at the backing file name, or with the header cluster. */
static size_t extension_area(const Opening *o)
{
    const Qcow2Header *h = &o->s->header;
    size_t end = o->head_bytes;
    if (h->backing_file_offset >= h->header_length && h->backing_file_offset < end) {
        end = (size_t)h->backing_file_offset;
    }
    return MIN(end - h->header_length, (size_t)QCOW2_MAX_EXTENSIONS_BYTES);
}

static bool refuse_unknown_features(Opening *o, uint64_t unknown, GError **errp)
{
    /* A damaged extension area only costs the names. */
    Qcow2HeaderExtensions ext = { 0 };
    qcow2_extensions_decode(o->head + o->s->header.header_length, extension_area(o),
                            o->s->header.header_length, &ext, NULL);
    g_autofree char *names =
        qcow2_feature_list(ext.feature_names, ext.feature_names_bytes, QCOW2_FEATURE_INCOMPATIBLE, unknown);
    qcow2_extensions_clear(&ext);
    g_set_error(errp, BDRV_ERROR, ENOTSUP, "unsupported qcow2 feature(s): %s; a newer version may know them",
                names);
    return false;
}

static bool check_compression_type(const Qcow2Header *h, GError **errp)
{
    bool bit = h->incompatible_features & QCOW2_INCOMPAT_COMPRESSION;
    if (bit != (h->compression_type != 0)) {
        g_set_error(
            errp, BDRV_ERROR, EINVAL,
            "compression_type %u contradicts the compression type feature bit (%s): the bit must be set if "
            "and only if the type is not 0",
            h->compression_type, bit ? "set" : "clear");
        return false;
    }
    if (h->compression_type > 1) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "compression_type %u is unknown; 0 (zlib) and 1 (zstd) are supported",
                    h->compression_type);
        return false;
    }
#ifndef CONFIG_LIBZSTD
    if (h->compression_type == 1) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "compression_type 1 (zstd) is not supported: built without libzstd");
        return false;
    }
#endif
    return true;
}

static bool check_features(Opening *o, GError **errp)
{
    Qcow2State *s = o->s;
    uint64_t bits = s->header.incompatible_features;
    if (bits & ~KNOWN_INCOMPATIBLE) {
        return refuse_unknown_features(o, bits & ~KNOWN_INCOMPATIBLE, errp);
    }
    if (!check_compression_type(&s->header, errp)) {
        return false;
    }
    s->dirty_at_open = bits & QCOW2_INCOMPAT_DIRTY;
    s->corrupt = bits & QCOW2_INCOMPAT_CORRUPT;
    return true;
}

static bool check_refcount_order(Opening *o, GError **errp)
{
    if (o->s->header.refcount_order > QCOW2_MAX_REFCOUNT_ORDER) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "refcount_order %" PRIu32 " is larger than %u (64-bit refcounts)",
                    o->s->header.refcount_order, QCOW2_MAX_REFCOUNT_ORDER);
        return false;
    }
    return true;
}

static bool check_cluster_bits(Opening *o, GError **errp)
{
    const Qcow2Header *h = &o->s->header;
    bool extended = h->incompatible_features & QCOW2_INCOMPAT_EXTENDED_L2;
    unsigned least = extended ? QCOW2_MIN_CLUSTER_BITS_EXTENDED : QCOW2_MIN_CLUSTER_BITS;
    if (h->cluster_bits < least || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "cluster_bits %" PRIu32 " is out of range; %u to %u are supported%s", h->cluster_bits,
                    least, QCOW2_MAX_CLUSTER_BITS, extended ? " with extended L2 entries" : "");
        return false;
    }
    return true;
}

static bool check_encryption(Opening *o, GError **errp)
{
    uint32_t method = o->s->header.crypt_method;
    if (method > QCOW2_CRYPT_LUKS) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "crypt_method %" PRIu32 " is unknown; 0 (none), 1 (AES) and 2 (LUKS) are "
                    "defined",
                    method);
        return false;
    }
    o->bs->encrypted = method != 0;
    return true;
}

static bool set_geometry(Opening *o, GError **errp)
{
    const Qcow2Header *h = &o->s->header;
    if (h->size > INT64_MAX) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "a disk of %" PRIu64 " bytes is larger than %" PRId64, h->size,
                    INT64_MAX);
        return false;
    }
    qcow2_geometry_init(&o->s->geometry, h);
    o->bs->length = (int64_t)h->size;
    return true;
}

static bool load_extensions(Opening *o, GError **errp)
{
    Qcow2State *s = o->s;
    uint32_t start = s->header.header_length;
    if (!qcow2_extensions_decode(o->head + start, extension_area(o), start, &s->extensions, errp)) {
        return false;
    }
    if (s->extensions.data_file && !(s->header.incompatible_features & QCOW2_INCOMPAT_DATA_FILE)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the header names the data file '%s' but the external data file feature bit is not set",
                    s->extensions.data_file);
        return false;
    }
    if (s->extensions.bitmaps && s->extensions.bitmaps_bytes != QCOW2_BITMAPS_EXTENSION_BYTES) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the bitmaps extension has %" PRIu32 " bytes; it must have %u",
                    s->extensions.bitmaps_bytes, QCOW2_BITMAPS_EXTENSION_BYTES);
        return false;
    }
    if (s->header.autoclear_features & QCOW2_AUTOCLEAR_BITMAPS) {
        if (!s->extensions.bitmaps) {
            g_set_error(errp, BDRV_ERROR, EINVAL,
                        "the bitmaps feature bit is set but the image has no bitmaps extension");
            return false;
        }
        if (!o->check && !qcow2_check_bitmaps_extension(s, o->file_length, errp)) {
            return false;
        }
    } else {
        /* Somebody has written who does not know bitmaps: they mean nothing, and are not written again. */
        g_clear_pointer(&s->extensions.bitmaps, g_free);
        s->extensions.bitmaps_bytes = 0;
    }
    if ((s->header.crypt_method == 2) != (s->extensions.crypto != NULL)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "crypt_method %" PRIu32 " contradicts the encryption header extension, which is %s",
                    s->header.crypt_method, s->extensions.crypto ? "there" : "missing");
        return false;
    }
    return true;
}

static bool load_backing_name(Opening *o, GError **errp)
{
    const Qcow2Header *h = &o->s->header;
    if (h->backing_file_offset == 0) {
        return true;
    }
    if (h->backing_file_size > QCOW2_MAX_BACKING_NAME) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "backing_file_size %" PRIu32 " is larger than %u",
                    h->backing_file_size, QCOW2_MAX_BACKING_NAME);
        return false;
    }
    if (h->backing_file_offset < h->header_length || h->backing_file_offset > o->head_bytes ||
        h->backing_file_size > o->head_bytes - h->backing_file_offset) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the backing file name (%" PRIu32 " bytes at offset %" PRIu64
                    ") is not inside the header cluster, between %" PRIu32 " and %zu",
                    h->backing_file_size, h->backing_file_offset, h->header_length, o->head_bytes);
        return false;
    }
    if (h->backing_file_size) {
        o->bs->backing_filename = g_strndup((char *)o->head + h->backing_file_offset, h->backing_file_size);
        o->bs->backing_format = g_strdup(o->s->extensions.backing_format);
    }
    return true;
}

/* A check reads no guest data and needs no key, but it must know which clusters the key slots have. */
static bool coroutine_fn open_crypto(Opening *o, GError **errp)
{
    Qcow2KeyNeed need = o->info_only                               ? QCOW2_KEY_UNUSED
                        : o->check || (o->flags & BDRV_O_NO_KEY) ? QCOW2_KEY_OPTIONAL
                                                                 : QCOW2_KEY_REQUIRED;
    return o->options ? qcow2_crypto_open(o->bs, o->options, o->file_length, need, errp)
                      : qcow2_crypto_open_again(o->bs, o->crypto, o->file_length, errp);
}

static bool coroutine_fn load_snapshots(Opening *o, GError **errp)
{
    Qcow2State *s = o->s;
    if (!qcow2_load_snapshots(o->bs, o->file_length, &s->snapshots, o->check ? &s->snapshot_damage : NULL, errp)) {
        return false;
    }
    for (unsigned n = 0; n < s->snapshots.count && !o->check; n++) {
        if (!qcow2_check_snapshot_l1(s, n, o->file_length, errp)) {
            return false;
        }
    }
    return o->check || qcow2_check_overlaps(s, errp);
}

bool qcow2_check_writable(const Qcow2State *s, bool check, GError **errp)
{
    if (s->corrupt && !check) {
        g_set_error(
            errp, BDRV_ERROR, EACCES,
            "the image is marked corrupt and cannot be opened read/write; open it read-only, or repair it "
            "first");
        return false;
    }
    return true;
}

static bool check_writable(Opening *o, GError **errp)
{
    return !o->writable || qcow2_check_writable(o->s, o->check, errp);
}

/* Refcounts that were written lazily are behind after a crash. Who only reads does not need them. */
static bool coroutine_fn repair_dirty(Opening *o, GError **errp)
{
    bool wanted = o->writable && o->s->dirty_at_open && !o->s->metadata_only;
    return !wanted || qcow2_repair_dirty(o->bs, errp);
}

static bool coroutine_fn load_bitmaps(Opening *o, GError **errp)
{
    return o->check || qcow2_load_bitmaps(o->bs, o->file_length, errp);
}

/* Whoever writes sets their bits. */
static bool coroutine_fn track_bitmaps(Opening *o, GError **errp)
{
    return !o->writable || o->s->metadata_only || qcow2_bitmaps_track(o->bs, errp);
}

/* What the image is now may lack what the options of then need. */
static bool coroutine_fn open_meta_again(Opening *o, GError **errp)
{
    Qcow2State *s = o->s;
    if (s->discard.no_unref && s->geometry.version < 3) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the image has become version 2, but was opened with discard-no-unref=on; close it and open it "
                    "again");
        return false;
    }
    s->lazy_refcounts &= s->geometry.version >= 3;
    return qcow2_compressed_open(o->bs, errp) && qcow2_meta_resume(o->bs, s->drained, errp);
}

static bool coroutine_fn open_meta(Opening *o, GError **errp)
{
    Qcow2MetaConfig config;
    if (o->s->metadata_only) {
        return true;
    }
    if (!o->options) {
        return open_meta_again(o, errp);
    }
    if (!qcow2_cache_config(o->s, o->options, &config, errp)) {
        return false;
    }
    o->s->cache.l2_bytes = config.l2_cache_bytes;
    o->s->cache.refcount_bytes = config.refcount_cache_bytes;
    o->s->cache.slice_bytes = config.slice_bytes;
    o->s->cache.clean = config.clean;
    return qcow2_lazy_config(o->s, o->options, &o->s->lazy_refcounts, errp) &&
           qcow2_discard_config(o->s, o->options, o->flags, &o->s->discard, errp) &&
           qcow2_compression_config(o->s, o->options, &o->s->compression_level, errp) &&
           qcow2_compressed_open(o->bs, errp) && qcow2_meta_open(o->bs, &config, errp);
}

static void edit_autoclear(Qcow2Header *header, const void *opaque)
{
    header->autoclear_features = *(const uint64_t *)opaque;
}

uint64_t qcow2_kept_autoclear(const Qcow2State *s)
{
    return (qcow2_data_is_raw(s) ? QCOW2_AUTOCLEAR_DATA_FILE_RAW : 0) |
           (s->header.autoclear_features & QCOW2_AUTOCLEAR_BITMAPS);
}

bool coroutine_fn qcow2_clear_autoclear(BlockDriverState *bs, GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    uint64_t before = s->header.autoclear_features, kept = qcow2_kept_autoclear(s);
    int ret = before == kept ? 0 : qcow2_edit_header(bs, edit_autoclear, &kept);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret,
                    "cannot clear the autoclear features 0x%" PRIx64 " in the header: %s", before & ~kept,
                    g_strerror(-ret));
        return false;
    }
    return true;
}

static bool coroutine_fn clear_autoclear(Opening *o, GError **errp)
{
    return !o->writable || o->s->metadata_only || qcow2_clear_autoclear(o->bs, errp);
}

/* Free what the steps made; also the end of close. */
static void free_state(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    qcow2_crypto_close(bs);
    qcow2_compressed_close(bs);
    qcow2_snapshot_table_clear(&s->snapshots);
    g_clear_pointer(&s->snapshot_damage, g_free);
    g_free(atomic_exchange(&s->corrupt_message, NULL));
    qcow2_bitmaps_forget(s);
    qcow2_extensions_clear(&s->extensions);
}

static void forget_names(BlockDriverState *bs)
{
    g_clear_pointer(&bs->backing_filename, g_free);
    g_clear_pointer(&bs->backing_format, g_free);
    g_clear_pointer(&bs->data_filename, g_free);
}

static void coroutine_fn undo_open(Opening *o)
{
    BlockDriverState *bs = o->bs;
    if (o->s->meta) {
        qcow2_meta_close(bs);
    }
    free_state(bs);
    co_mutex_destroy(&o->s->bitmap_lock);
    forget_names(bs);
}

/* All steps but that of the overlap options. */
static bool coroutine_fn load(Opening *o, GError **errp)
{
    Qcow2State *s = o->s;
    /* A check reads all tables itself, so that damage cannot keep it from starting. */
    s->metadata_only = o->info_only || o->check;
    /* clang-format off */
    bool ok = load_header(o, errp) &&
              keep_unknown_header(o, errp) &&
              check_features(o, errp) &&
              check_refcount_order(o, errp) &&
              check_cluster_bits(o, errp) &&
              check_encryption(o, errp) &&
              set_geometry(o, errp) &&
              qcow2_check_l1_table(s, o->file_length, errp) &&
              (o->check || qcow2_check_refcount_table(s, o->file_length, errp)) &&
              load_extensions(o, errp) &&
              open_crypto(o, errp) &&
              qcow2_check_data_file(o->bs, !o->info_only, errp) &&
              load_backing_name(o, errp) &&
              load_snapshots(o, errp) &&
              load_bitmaps(o, errp) &&
              check_writable(o, errp) &&
              repair_dirty(o, errp) &&
              open_meta(o, errp) &&
              clear_autoclear(o, errp) &&
              track_bitmaps(o, errp);
    /* clang-format on */
    g_clear_pointer(&o->head, g_free);
    return ok;
}

static Opening opening(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags)
{
    return (Opening){
        .bs = bs,
        .s = qcow2_state(bs),
        .options = options,
        .flags = flags,
        .writable = (flags & BDRV_O_RDWR) && !bs->read_only,
        .check = flags & BDRV_O_CHECK,
        .info_only = flags & BDRV_O_NO_IO,
    };
}

bool coroutine_fn qcow2_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                             GError **errp)
{
    Opening o = opening(bs, options, flags);
    o.s->bs = bs;
    co_mutex_init(&o.s->bitmap_lock);
    bool ok = qcow2_overlap_config(options, &o.s->overlap_checks, errp) && load(&o, errp);
    if (!ok) {
        undo_open(&o);
    }
    return ok;
}

/* ---- once more ---- */

static bool coroutine_fn check_may_forget(BlockDriverState *bs, GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    if (bs->read_only || !s->meta || atomic_load(&s->corrupt)) {
        return true;
    }
    int ret = qcow2_bitmaps_settle(bs, errp) ? qcow2_meta_clean(bs) : -ECANCELED;
    if (ret < 0 && ret != -ECANCELED) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot write metadata before the image is looked at anew: %s",
                    g_strerror(-ret));
    }
    return ret >= 0;
}

static bool same_backing(const BlockDriverState *bs, const char *filename, GError **errp)
{
    if (g_strcmp0(bs->backing_filename, filename) == 0) {
        return true;
    }
    g_set_error(errp, BDRV_ERROR, ENOTSUP,
                "the image names another backing file now: '%s', not '%s'; close it and open it again",
                bs->backing_filename ? bs->backing_filename : "", filename ? filename : "");
    return false;
}

static void coroutine_fn forget(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    if (s->meta) {
        qcow2_meta_suspend(bs);
    }
    free_state(bs);
    forget_names(bs);
    s->snapshot_loaded = s->dirty_at_open = false;
    atomic_store(&s->corrupt, false);
}

bool coroutine_fn qcow2_invalidate_cache(BlockDriverState *bs, GError **errp)
{
    Qcow2State *s = qcow2_state(bs);
    Opening o = opening(bs, NULL, bs->open_flags);
    Qcow2Header header = s->header;
    Qcow2Geometry geometry = s->geometry;
    int64_t length = bs->length;
    if (!check_may_forget(bs, errp)) {
        return false;
    }
    g_autofree char *backing = g_strdup(bs->backing_filename);
    o.crypto = g_steal_pointer(&s->crypto);
    forget(bs);
    if (load(&o, errp) && same_backing(bs, backing, errp)) {
        return true;
    }
    /* Closed but for name and key: what it was last is what can be told of it. */
    s->crypto = NULL;
    forget(bs);
    s->crypto = o.crypto;
    bs->backing_filename = g_steal_pointer(&backing);
    s->header = header;
    s->header.nb_snapshots = 0;
    s->header.autoclear_features = 0;
    s->geometry = geometry;
    bs->length = length;
    s->metadata_only = true;
    return false;
}

int coroutine_fn qcow2_close(BlockDriverState *bs)
{
    GError *error = NULL;
    int ret = qcow2_bitmaps_settle(bs, &error) ? 0 : -bdrv_error_code(error);
    int meta_ret = qcow2_state(bs)->meta ? qcow2_meta_close(bs) : 0;
    g_clear_error(&error);
    free_state(bs);
    co_mutex_destroy(&qcow2_state(bs)->bitmap_lock);
    return meta_ret < 0 ? meta_ret : ret;
}
