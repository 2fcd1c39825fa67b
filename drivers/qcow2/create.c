/* SPDX-License-Identifier: MIT */
/*
 * Create an image. The tables are written first, then flushed, then the header: a half-made image is
 * never taken for a good one, and an older header in the same place is wiped before anything else.
 */

#include "drivers/qcow2/create.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/open/open.h"
#include "block/registry/registry.h"
#include "drivers/qcow2/callbacks.h"
#include "block/util/bytes.h"

/* Tables are written in pieces of this size, or of a cluster. */
#define CHUNK_BYTES (256u << 10)

typedef struct Creating {
    const char *filename;
    BdrvChild *file;
    Qcow2CreateParams params;
    Qcow2Layout layout;
    uint64_t old_length; /* of the file before we began; what lies below may be anything */
} Creating;

static bool fail(int ret, const char *what, uint64_t offset, uint64_t bytes, GError **errp)
{
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot %s (%" PRIu64 " bytes at offset %" PRIu64 "): %s", what,
                    bytes, offset, g_strerror(-ret));
    }
    return ret >= 0;
}

static bool coroutine_fn zero_range(Creating *c, uint64_t offset, uint64_t end, GError **errp)
{
    if (end <= offset) {
        return true;
    }
    int ret = bdrv_co_pwrite_zeroes(c->file, (int64_t)offset, (int64_t)(end - offset), 0);
    return fail(ret, "zero the image file", offset, end - offset, errp);
}

static bool coroutine_fn flush(Creating *c, GError **errp)
{
    return fail(bdrv_co_flush(c->file), "flush the image file", 0, c->layout.end, errp);
}

static bool coroutine_fn grow(Creating *c, uint64_t length, BdrvPrealloc prealloc, GError **errp)
{
    int64_t now = bdrv_co_getlength(c->file);
    if (now < 0) {
        return fail((int)now, "get the length of the image file", 0, 0, errp);
    }
    return (uint64_t)now >= length || bdrv_co_truncate(c->file, (int64_t)length, false, prealloc, 0, errp);
}

/* An empty place for the metadata, with no header in front. */
static bool coroutine_fn clear_place(Creating *c, GError **errp)
{
    int64_t length = bdrv_co_getlength(c->file);
    if (length < 0) {
        return fail((int)length, "get the length of the image file", 0, 0, errp);
    }
    c->old_length = (uint64_t)length;
    if (c->old_length > 0 &&
        (!zero_range(c, 0, MIN(c->old_length, c->layout.cluster_size), errp) || !flush(c, errp))) {
        return false;
    }
    return grow(c, c->layout.metadata_end, BDRV_PREALLOC_OFF, errp) &&
           zero_range(c, c->layout.cluster_size, MIN(c->old_length, c->layout.metadata_end), errp);
}

/* Writes a table of @entries 8-byte entries at @offset; @value gives entry @n. */
static bool coroutine_fn write_entries(Creating *c, uint64_t offset, uint64_t entries,
                                       uint64_t (*value)(const Creating *c, uint64_t n), const char *what,
                                       GError **errp)
{
    uint8_t *buf = g_try_malloc(CHUNK_BYTES);
    bool ok = buf || fail(-ENOMEM, what, offset, CHUNK_BYTES, errp);
    for (uint64_t done = 0; ok && done < entries;) {
        uint64_t n = MIN(entries - done, CHUNK_BYTES / 8);
        for (uint64_t i = 0; i < n; i++) {
            store_be64(buf + 8 * i, value(c, done + i));
        }
        ok = fail(bdrv_co_pwrite(c->file, (int64_t)(offset + done * 8), (int64_t)n * 8, buf, 0), what,
                  offset + done * 8, n * 8, errp);
        done += n;
    }
    g_free(buf);
    return ok;
}

static uint64_t refcount_table_entry(const Creating *c, uint64_t n)
{
    return c->layout.refblocks_offset + n * c->layout.cluster_size;
}

static uint64_t l1_entry(const Creating *c, uint64_t n)
{
    return QCOW2_COPIED | (c->layout.l2_offset + n * c->layout.cluster_size);
}

/*
 * Word @n of the L2 tables. Of an extended entry the second one is 0: the backing file shows in preallocated space. A
 * raw data file shows what it has.
 */
static uint64_t l2_word(const Creating *c, uint64_t n)
{
    if (c->params.extended_l2 && n % 2) {
        return c->params.data_file_raw ? UINT32_MAX : 0;
    }
    n /= c->params.extended_l2 ? 2 : 1;
    /* What is in the file reads as noise if it is encrypted: as zeroes, until the guest writes there. */
    uint64_t zero = c->params.crypt_method && !c->params.extended_l2 ? QCOW2_L2_ZERO : 0;
    return QCOW2_COPIED | zero | (c->layout.data_offset + n * c->layout.cluster_size);
}

/* Every cluster up to the end has refcount 1. All blocks but the last are alike. */
static bool coroutine_fn write_refblocks(Creating *c, GError **errp)
{
    const Qcow2Layout *l = &c->layout;
    unsigned order = c->params.refcount_order;
    uint64_t per_block = ((uint64_t)l->cluster_size * 8) >> order;
    uint64_t clusters = l->end >> c->params.cluster_bits;
    uint8_t *block = g_try_malloc0(l->cluster_size);
    bool ok = block || fail(-ENOMEM, "write refcount blocks", l->refblocks_offset, l->cluster_size, errp);
    uint64_t filled = 0;
    for (uint64_t n = 0; ok && n < l->refblocks; n++) {
        uint64_t first = n * per_block;
        uint64_t used = clusters > first ? MIN(clusters - first, per_block) : 0;
        for (; filled < used; filled++) {
            qcow2_refcount_set(block, filled, order, 1);
        }
        while (filled > used) {
            qcow2_refcount_set(block, --filled, order, 0);
        }
        uint64_t at = l->refblocks_offset + n * l->cluster_size;
        ok = fail(bdrv_co_pwrite(c->file, (int64_t)at, l->cluster_size, block, 0), "write refcount blocks",
                  at, l->cluster_size, errp);
    }
    g_free(block);
    return ok;
}

static bool coroutine_fn write_tables(Creating *c, GError **errp)
{
    const Qcow2Layout *l = &c->layout;
    return write_entries(c, l->refcount_table_offset, l->refblocks, refcount_table_entry,
                         "write the refcount table", errp) &&
           write_refblocks(c, errp) &&
           write_entries(c, l->l1_offset, l->l2_tables, l1_entry, "write the L1 table", errp) &&
           write_entries(c, l->l2_offset, l->data_clusters * (c->params.extended_l2 ? 2 : 1), l2_word,
                         "write the L2 tables", errp);
}

static bool coroutine_fn write_crypto(Creating *c, GError **errp)
{
    return c->params.crypt_method != QCOW2_CRYPT_LUKS ||
           qcow2_crypto_create(c->file, c->layout.crypto_offset, &c->params.luks, c->params.key_secret, errp);
}

/* Found out before anything is overwritten. */
static bool check_secret(const Creating *c, GError **errp)
{
    GBytes *secret = c->params.crypt_method ? bdrv_passphrase_get(c->file->bs->graph, c->params.key_secret, errp) : NULL;
    g_bytes_unref(secret);
    return secret || !c->params.crypt_method;
}

/* A new file, as long as the disk and reading as zeroes; so no device, which has what was on it. */
static bool coroutine_fn create_data_file(Creating *c, BdrvPrealloc mode, GError **errp)
{
    g_autofree char *full = bdrv_full_backing_filename(c->filename, c->params.data_file, errp);
    const BlockDriver *protocol = full ? bdrv_find_protocol(full, errp) : NULL;
    if (!protocol) {
        return false;
    }
    if (g_str_equal(protocol->format_name, "host_device")) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "'%s' is a device; the data file of a new image can only be a new file",
                    full);
        return false;
    }
    BdrvOptions *options = bdrv_options_new();
    bdrv_options_set_int(options, "size", (int64_t)c->params.size);
    if (mode != BDRV_PREALLOC_OFF) {
        bdrv_options_set_string(options, "preallocation", mode == BDRV_PREALLOC_FULL ? "full" : "falloc");
    }
    return bdrv_co_create_image(c->file->bs->graph, "raw", full, options, errp);
}

/* Data clusters read as zeroes: the file grows by them, and what was there before is zeroed. */
static bool coroutine_fn reserve_data(Creating *c, GError **errp)
{
    const Qcow2Layout *l = &c->layout;
    BdrvPrealloc mode = c->params.prealloc == BDRV_PREALLOC_METADATA ? BDRV_PREALLOC_OFF : c->params.prealloc;
    if (c->params.data_file) {
        return create_data_file(c, mode, errp);
    }
    if (l->data_clusters == 0) {
        return true;
    }
    return zero_range(c, l->data_offset, MIN(c->old_length, l->end), errp) && grow(c, l->end, mode, errp);
}

/* But for the feature names. Strings and @crypto stay the caller's. */
static Qcow2HeaderExtensions new_extensions(const Creating *c, uint8_t *crypto)
{
    Qcow2HeaderExtensions ext = {
        .backing_format = (char *)c->params.backing_format,
        .data_file = (char *)c->params.data_file,
    };
    if (c->layout.crypto_bytes) {
        qcow2_crypto_extension_encode(
            &(Qcow2CryptoExtension){ .offset = c->layout.crypto_offset, .length = c->layout.crypto_bytes }, crypto);
        ext.crypto = crypto;
        ext.crypto_bytes = QCOW2_CRYPTO_EXTENSION_BYTES;
    }
    return ext;
}

static bool coroutine_fn write_header(Creating *c, GError **errp)
{
    const Qcow2CreateParams *p = &c->params;
    const Qcow2Layout *l = &c->layout;
    uint8_t crypto[QCOW2_CRYPTO_EXTENSION_BYTES];
    Qcow2Header header = {
        .version = p->version,
        .cluster_bits = p->cluster_bits,
        .size = p->size,
        .crypt_method = p->crypt_method,
        .l1_size = (uint32_t)l->l1_entries,
        .l1_table_offset = l->l1_entries ? l->l1_offset : 0,
        .refcount_table_offset = l->refcount_table_offset,
        .refcount_table_clusters = (uint32_t)l->refcount_table_clusters,
        .incompatible_features = (p->compression_type ? QCOW2_INCOMPAT_COMPRESSION : 0) |
                                 (p->extended_l2 ? QCOW2_INCOMPAT_EXTENDED_L2 : 0) |
                                 (p->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0),
        .autoclear_features = p->data_file_raw ? QCOW2_AUTOCLEAR_DATA_FILE_RAW : 0,
        .compatible_features = p->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0,
        .refcount_order = p->refcount_order,
        .header_length = p->version == 2 ? QCOW2_HEADER_SIZE_V2 : QCOW2_HEADER_SIZE_NEW,
        .compression_type = p->compression_type,
    };
    Qcow2HeaderExtensions ext = new_extensions(c, crypto);
    if (p->version >= 3 && l->cluster_size >= QCOW2_FEATURE_NAMES_MIN_CLUSTER) {
        ext.feature_names = qcow2_feature_table_new(&ext.feature_names_bytes);
    }
    uint8_t *cluster = g_try_malloc0(l->cluster_size);
    bool ok = cluster || fail(-ENOMEM, "write the header", 0, l->cluster_size, errp);
    ok = ok && qcow2_compose_header(&header, &ext, p->backing_file, 0, cluster, l->cluster_size, errp) &&
         fail(bdrv_co_pwrite(c->file, 0, l->cluster_size, cluster, 0), "write the header", 0, l->cluster_size,
              errp);
    g_free(cluster);
    g_free(ext.feature_names);
    return ok;
}

/* Does the header fit? Found out before anything is overwritten. */
static bool check_header_fits(const Creating *c, GError **errp)
{
    Qcow2Header header = {
        .version = c->params.version,
        .header_length = c->params.version == 2 ? QCOW2_HEADER_SIZE_V2 : QCOW2_HEADER_SIZE_NEW,
    };
    uint8_t crypto[QCOW2_CRYPTO_EXTENSION_BYTES];
    Qcow2HeaderExtensions ext = new_extensions(c, crypto);
    uint8_t *cluster = g_try_malloc0(c->layout.cluster_size);
    bool ok = cluster || fail(-ENOMEM, "make the header", 0, c->layout.cluster_size, errp);
    ok = ok &&
         qcow2_compose_header(&header, &ext, c->params.backing_file, 0, cluster, c->layout.cluster_size, errp);
    g_free(cluster);
    return ok;
}

/* The size of the backing file, for an image that is given none of its own. */
static bool coroutine_fn backing_size(const char *filename, BdrvGraph *graph, const BdrvOptions *options,
                                      int64_t *size, GError **errp)
{
    const char *name = bdrv_options_get_string(options, "backing_file", NULL);
    const char *format = bdrv_options_get_string(options, "backing_fmt", NULL);
    g_autofree char *full = bdrv_full_backing_filename(filename, name, errp);
    if (!full) {
        return false;
    }
    BdrvOptions *open_options = bdrv_options_new();
    bdrv_options_set_string(open_options, "driver", format);
    BlockDriverState *bs =
        bdrv_co_open_tree(graph, full, open_options, BDRV_O_NO_BACKING | BDRV_O_NO_IO, false, errp);
    if (!bs) {
        g_prefix_error(errp, "cannot get the size of backing file '%s' (give size to do without): ", name);
        return false;
    }
    *size = bs->length;
    int ret = bdrv_co_node_unref(bs);
    return fail(ret, "close the backing file", 0, 0, errp);
}

/* @options, with a size: that of the backing file if there is no other. NULL with an error. */
static BdrvOptions *coroutine_fn complete_options(const char *filename, BdrvChild *file, const BdrvOptions *options,
                                                  GError **errp)
{
    const char *backing = bdrv_options_get_string(options, "backing_file", "");
    g_autoptr(BdrvOptions) complete = bdrv_options_copy(options);
    int64_t size;

    if (!bdrv_options_has(options, "size") && *backing && bdrv_options_has(options, "backing_fmt")) {
        if (!backing_size(filename, file->bs->graph, options, &size, errp)) {
            return NULL;
        }
        bdrv_options_set_int(complete, "size", size);
    }
    return g_steal_pointer(&complete);
}

bool coroutine_fn qcow2_create(const char *filename, BdrvChild *file, const BdrvOptions *options,
                               GError **errp)
{
    g_autoptr(BdrvOptions) complete = complete_options(filename, file, options, errp); /* the parameters point there */
    Creating c = { .filename = filename, .file = file };
    /* clang-format off */
    return complete &&
           qcow2_create_params(complete, &c.params, errp) &&
           qcow2_layout(&c.params, &c.layout, errp) &&
           check_header_fits(&c, errp) &&
           check_secret(&c, errp) &&
           clear_place(&c, errp) &&
           write_tables(&c, errp) &&
           write_crypto(&c, errp) &&
           reserve_data(&c, errp) &&
           flush(&c, errp) &&
           write_header(&c, errp) &&
           flush(&c, errp);
    /* clang-format on */
}
