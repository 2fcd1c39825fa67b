/* SPDX-License-Identifier: MIT */
/*
 * Amend: change what create options decided. The node is drained.
 *
 * Options come in groups, in the order in which they are applied: what needs version 3 after the upgrade, what version
 * 2 cannot have before the downgrade. Each change is one of the kind "old or new": see where it is made.
 */

#include "drivers/qcow2/amend.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/open/open.h"
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/create.h"
#include "drivers/qcow2/crypto.h"
#include "drivers/qcow2/data_file.h"
#include "drivers/qcow2/meta/meta.h"

#define SECTOR_BYTES 512

const BdrvOptionSpec qcow2_amend_options[] = {
    BDRV_LUKS_AMEND_OPTIONS("encrypt."),
    { "size", BDRV_OPTION_SIZE, "Virtual disk size", NULL, NULL },
    { "compat", BDRV_OPTION_STRING, "Compatibility level (v2 [0.10] or v3 [1.1])", NULL, NULL },
    { "backing_file", BDRV_OPTION_STRING, "File name of a base image", NULL, NULL },
    { "backing_fmt", BDRV_OPTION_STRING, "Image format of the base image", NULL, NULL },
    { "data_file", BDRV_OPTION_STRING, "File name of an external data file", NULL, NULL },
    { "data_file_raw", BDRV_OPTION_BOOL, "The external data file must stay valid as a raw image", NULL, NULL },
    { "lazy_refcounts", BDRV_OPTION_BOOL, "Postpone refcount updates", NULL, NULL },
    { "refcount_bits", BDRV_OPTION_INT, "Width of a reference count entry in bits", NULL, NULL },
    { NULL },
};

static bool refuse(int code, GError **errp, const char *text)
{
    g_set_error_literal(errp, BDRV_ERROR, code, text);
    return false;
}

/* The header as @extensions and s->header have it now, with the backing file name that it has. */
static bool coroutine_fn write_header(Qcow2Amend *a, const Qcow2Header *header, const Qcow2HeaderExtensions *extensions,
                                      GError **errp)
{
    return qcow2_replace_header(a->bs, header, extensions, a->bs->backing_filename, errp);
}

/* ---- refcount_bits ---- */

static bool check_refcount_bits(Qcow2Amend *a, GError **errp)
{
    int64_t bits = bdrv_options_get_int(a->options, "refcount_bits", a->s->geometry.refcount_bits);
    unsigned order;
    if (!qcow2_parse_refcount_bits(bits, &order, errp)) {
        return false;
    }
    a->refcount_order = order;
    if (order != 4 && a->version < 3) {
        return refuse(EINVAL, errp,
                      "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or "
                      "greater, or refcount_bits=16)");
    }
    return true;
}

static bool coroutine_fn apply_refcount_bits(Qcow2Amend *a, GError **errp)
{
    return a->refcount_order == a->s->geometry.refcount_order ||
           (qcow2_could(qcow2_meta_settle(a->bs), "write metadata", errp) &&
            qcow2_meta_set_refcount_order(a->bs, a->refcount_order, &a->progress, errp));
}

/* ---- data_file, data_file_raw ---- */

static bool check_data_file(Qcow2Amend *a, GError **errp)
{
    const char *name = bdrv_options_get_string(a->options, "data_file", NULL);
    bool is_raw = a->s->header.autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW;
    if (name && !a->s->geometry.data_file) {
        return refuse(EINVAL, errp, "data_file can only be set for images that use an external data file");
    }
    if (bdrv_options_get_bool(a->options, "data_file_raw", is_raw) && !is_raw) {
        return refuse(EINVAL, errp, "data_file_raw cannot be set on existing images");
    }
    return !name || !*name || bdrv_check_data_filename(name, errp);
}

static bool coroutine_fn apply_data_file(Qcow2Amend *a, GError **errp)
{
    Qcow2State *s = a->s;
    const char *name = bdrv_options_get_string(a->options, "data_file", s->extensions.data_file);
    Qcow2Header header = s->header;
    if (!bdrv_options_get_bool(a->options, "data_file_raw", true)) {
        header.autoclear_features &= ~QCOW2_AUTOCLEAR_DATA_FILE_RAW;
    }
    Qcow2HeaderExtensions extensions = s->extensions;
    extensions.data_file = name && *name ? (char *)name : NULL;
    if (g_strcmp0(extensions.data_file, s->extensions.data_file) == 0 &&
        header.autoclear_features == s->header.autoclear_features) {
        return true;
    }
    if (!write_header(a, &header, &extensions, errp)) {
        return false;
    }
    name = g_strdup(extensions.data_file);
    g_free(s->extensions.data_file);
    s->extensions.data_file = (char *)name;
    g_free(a->bs->data_filename);
    a->bs->data_filename = g_strdup(name);
    return true;
}

/* ---- backing_file, backing_fmt ---- */

/* What is said must be what is there: changing it is another thing, as it changes what the disk reads as. */
static bool check_backing(Qcow2Amend *a, GError **errp)
{
    const char *name = bdrv_options_get_string(a->options, "backing_file", NULL);
    const char *format = bdrv_options_get_string(a->options, "backing_fmt", NULL);
    if ((name || format) && (g_strcmp0(name, a->bs->backing_filename) || g_strcmp0(format, a->bs->backing_format))) {
        return refuse(EINVAL, errp, "Cannot amend the backing file: use blk_change_backing_file() or 'rebase' instead");
    }
    return true;
}

/* ---- encrypt.* ---- */

static bool check_encryption(Qcow2Amend *a, GError **errp)
{
    g_autoptr(BdrvOptions) copy = bdrv_options_copy(a->options);
    uint32_t method = a->s->header.crypt_method;

    a->encrypt = bdrv_options_take_subtree(copy, "encrypt");
    if (bdrv_options_count(a->encrypt) == 0) {
        return true;
    }
    if (method == QCOW2_CRYPT_NONE) {
        return refuse(EINVAL, errp, "Can't amend encryption options - encryption not present");
    }
    if (method != QCOW2_CRYPT_LUKS) {
        return refuse(ENOTSUP, errp, "Only LUKS encryption options can be amended");
    }
    return bdrv_luks_amend_parse(a->encrypt, &a->keys, errp);
}

static bool coroutine_fn apply_encryption(Qcow2Amend *a, GError **errp)
{
    return bdrv_options_count(a->encrypt) == 0 || qcow2_crypto_amend(a->bs, &a->keys, a->force, errp);
}

/* ---- lazy_refcounts ---- */

static bool check_lazy(Qcow2Amend *a, GError **errp)
{
    bool is_lazy = a->s->header.compatible_features & QCOW2_COMPAT_LAZY_REFCOUNTS;
    bool wanted = bdrv_options_get_bool(a->options, "lazy_refcounts", is_lazy && a->version >= 3);
    if (wanted && a->version < 3) {
        return refuse(EINVAL, errp,
                      "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or "
                      "greater)");
    }
    a->lazy_refcounts = wanted;
    return true;
}

static void edit_lazy(Qcow2Header *header, const void *opaque)
{
    header->compatible_features &= ~QCOW2_COMPAT_LAZY_REFCOUNTS;
    header->compatible_features |= *(const bool *)opaque ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0;
}

static bool coroutine_fn apply_lazy(Qcow2Amend *a, GError **errp)
{
    Qcow2State *s = a->s;
    bool was = s->lazy_refcounts;
    if (a->lazy_refcounts == (bool)(s->header.compatible_features & QCOW2_COMPAT_LAZY_REFCOUNTS)) {
        return true;
    }
    s->lazy_refcounts = a->lazy_refcounts;
    if ((a->lazy_refcounts || qcow2_could(qcow2_meta_clean(a->bs), "write refcounts", errp)) &&
        qcow2_could(qcow2_edit_header(a->bs, edit_lazy, &a->lazy_refcounts), "write the header", errp)) {
        return true;
    }
    s->lazy_refcounts = was;
    return false;
}

/* ---- size ---- */

/* 0 is no size, as for qemu-img. */
static bool check_size(Qcow2Amend *a, GError **errp)
{
    int64_t size = bdrv_options_get_int(a->options, "size", 0);
    if (size % SECTOR_BYTES) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the new size %" PRId64 " is not a multiple of %d", size, SECTOR_BYTES);
        return false;
    }
    a->size = size ? size : (int64_t)a->s->header.size;
    return true;
}

static bool coroutine_fn apply_size(Qcow2Amend *a, GError **errp)
{
    return a->size == (int64_t)a->s->header.size || qcow2_truncate(a->bs, a->size, true, BDRV_PREALLOC_OFF, 0, errp);
}

/* ---- all of them ---- */

static const Qcow2AmendGroup groups[] = {
    { check_encryption, apply_encryption }, /* may be refused by what the slots hold: before anything is written */
    { NULL, qcow2_amend_upgrade },
    { check_refcount_bits, apply_refcount_bits },
    { check_data_file, apply_data_file },
    { check_backing, NULL },
    { check_lazy, apply_lazy },
    { check_size, apply_size },
    { qcow2_amend_check_version, qcow2_amend_downgrade }, /* which looks at what the others want */
};

static bool check_possible(const Qcow2State *s, GError **errp)
{
    if (!s->meta) {
        return refuse(EIO, errp,
                      "the image was opened for information or check only, or its tables could not be loaded again; "
                      "close it and open it again");
    }
    return !atomic_load(&s->corrupt) || refuse(EIO, errp, "the image is marked corrupt; run 'bdrv-img check -r all'");
}

static bool read_version(Qcow2Amend *a, GError **errp)
{
    const char *compat = bdrv_options_get_string(a->options, "compat", NULL);
    a->version = a->s->geometry.version;
    return !compat || qcow2_parse_compat(compat, &a->version, errp);
}

bool coroutine_fn qcow2_amend(BlockDriverState *bs, const BdrvOptions *options, bool force,
                              BdrvProgressFunc *progress, void *opaque, GError **errp)
{
    Qcow2Amend a = {
        .bs = bs,
        .s = qcow2_state(bs),
        .options = options,
        .force = force,
        .progress = { .report = progress, .opaque = opaque, .parts = G_N_ELEMENTS(groups) },
    };
    bool ok = check_possible(a.s, errp) && read_version(&a, errp);
    for (unsigned i = 0; i < G_N_ELEMENTS(groups) && ok; i++) {
        ok = !groups[i].check || groups[i].check(&a, errp);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(groups) && ok; i++) {
        a.progress.part = i;
        ok = !groups[i].apply || groups[i].apply(&a, errp);
        ok = ok && qcow2_progress(&a.progress, 1, 1, errp);
    }
    bdrv_options_free(a.encrypt);
    return ok;
}
