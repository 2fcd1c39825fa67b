/* SPDX-License-Identifier: MIT */
/* Options of a new image: names, help texts and defaults as qemu-img create has them. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/crypto/luks.h"
#include "block/open/open.h"
#include "config.h"
#include "drivers/qcow2/create.h"

#define DEFAULT_CLUSTER_SIZE 65536
#define SECTOR_BYTES 512

static const char *const prealloc_choices[] = { "off", "metadata", "falloc", "full", NULL };

/* In the order in which qemu-img tells what it formats. */
const BdrvOptionSpec qcow2_create_options[] = {
    { "encryption", BDRV_OPTION_BOOL,
      "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)", NULL, NULL },
    { "encrypt.format", BDRV_OPTION_STRING, "Encrypt the image, format choices: 'aes', 'luks'", NULL, NULL },
    { "encrypt.key-secret", BDRV_OPTION_STRING, "ID of secret providing qcow AES key or LUKS passphrase",
      NULL, NULL },
    BDRV_LUKS_CIPHER_OPTIONS("encrypt."),
    { "cluster_size", BDRV_OPTION_SIZE, "qcow2 cluster size", "65536", NULL },
    { "extended_l2", BDRV_OPTION_BOOL, "Extended L2 tables", "off", NULL },
    { "preallocation", BDRV_OPTION_STRING, "Preallocation mode (allowed values: off, metadata, falloc, full)",
      NULL, prealloc_choices },
    { "compression_type", BDRV_OPTION_STRING, "Compression method used for image cluster compression", "zlib",
      NULL },
    { "size", BDRV_OPTION_SIZE, "Virtual disk size", NULL, NULL },
    { "compat", BDRV_OPTION_STRING, "Compatibility level (v2 [0.10] or v3 [1.1])", NULL, NULL },
    { "backing_file", BDRV_OPTION_STRING, "File name of a base image", NULL, NULL },
    { "backing_fmt", BDRV_OPTION_STRING, "Image format of the base image", NULL, NULL },
    { "data_file", BDRV_OPTION_STRING, "File name of an external data file", NULL, NULL },
    { "data_file_raw", BDRV_OPTION_BOOL, "The external data file must stay valid as a raw image", NULL,
      NULL },
    { "lazy_refcounts", BDRV_OPTION_BOOL, "Postpone refcount updates", "off", NULL },
    { "refcount_bits", BDRV_OPTION_INT, "Width of a reference count entry in bits", "16", NULL },
    { NULL },
};

/* LUKS takes the options of a luks image; AES takes none but its key. */
static bool parse_luks(const BdrvOptions *encrypt, Qcow2CreateParams *p, GError **errp)
{
    p->crypt_method = QCOW2_CRYPT_LUKS;
    return bdrv_luks_create_parse(encrypt, &p->luks, errp);
}

static bool parse_aes(const BdrvOptions *encrypt, Qcow2CreateParams *p, GError **errp)
{
    p->crypt_method = QCOW2_CRYPT_AES;
    for (unsigned i = 0; i < bdrv_options_count(encrypt); i++) {
        const char *key;
        bdrv_options_nth(encrypt, i, &key, NULL, NULL);
        if (!g_str_equal(key, "key-secret") && !g_str_equal(key, "format")) {
            g_set_error(errp, BDRV_ERROR, EINVAL, "Parameter 'encrypt.%s' is unexpected: 'aes' leaves no choice", key);
            return false;
        }
    }
    return true;
}

/* The format, by its name or by the older alias for AES. */
static bool find_encryption(const BdrvOptions *options, const BdrvOptions *encrypt, const char **format, GError **errp)
{
    bool alias = bdrv_options_get_bool(options, "encryption", false);

    *format = bdrv_options_get_string(encrypt, "format", alias ? "aes" : NULL);
    if (alias && bdrv_options_has(encrypt, "format")) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "'encrypt.format' and its alias 'encryption' can't be used at the same time");
        return false;
    }
    if (!*format && bdrv_options_count(encrypt)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "Parameter 'encrypt.format' is missing");
        return false;
    }
    return true;
}

static bool parse_encryption(const BdrvOptions *options, Qcow2CreateParams *p, GError **errp)
{
    g_autoptr(BdrvOptions) copy = bdrv_options_copy(options);
    g_autoptr(BdrvOptions) encrypt = bdrv_options_take_subtree(copy, "encrypt");
    const char *format;

    if (!find_encryption(options, encrypt, &format, errp)) {
        return false;
    }
    if (!format) {
        return true;
    }
    p->key_secret = bdrv_options_get_string(options, "encrypt.key-secret", NULL);
    bool luks = g_str_equal(format, "luks");
    if (!luks && !g_str_equal(format, "aes")) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "encrypt.format '%s' is unknown; 'aes' and 'luks' are supported", format);
        return false;
    }
    if (!p->key_secret) {
        g_set_error(errp, BDRV_ERROR, ENOKEY, "Parameter 'encrypt.key-secret' is required for cipher");
        return false;
    }
    return luks ? parse_luks(encrypt, p, errp) : parse_aes(encrypt, p, errp);
}

/* Encrypted space reads as noise, not as zeroes. */
static bool check_encrypted_space(const Qcow2CreateParams *p, GError **errp)
{
    if (p->crypt_method && p->prealloc != BDRV_PREALLOC_OFF && p->version == 2) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "preallocation and encryption together need compat=1.1: version 2 cannot say that space reads as "
                    "zeroes");
        return false;
    }
    if (p->crypt_method && p->data_file_raw) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "data_file_raw=on contradicts encryption: what is encrypted is no raw image");
        return false;
    }
    return true;
}

bool qcow2_parse_compat(const char *compat, unsigned *version, GError **errp)
{
    static const struct {
        const char *name;
        unsigned version;
    } levels[] = { { "0.10", 2 }, { "v2", 2 }, { "1.1", 3 }, { "v3", 3 } };
    for (unsigned i = 0; i < G_N_ELEMENTS(levels); i++) {
        if (g_str_equal(compat, levels[i].name)) {
            *version = levels[i].version;
            return true;
        }
    }
    g_set_error(errp, BDRV_ERROR, EINVAL, "compat '%s' is unknown; '0.10' (v2) and '1.1' (v3) are supported",
                compat);
    return false;
}

static bool parse_cluster_size(const BdrvOptions *options, Qcow2CreateParams *p, GError **errp)
{
    int64_t size = bdrv_options_get_int(options, "cluster_size", DEFAULT_CLUSTER_SIZE);
    for (unsigned bits = QCOW2_MIN_CLUSTER_BITS; bits <= QCOW2_MAX_CLUSTER_BITS; bits++) {
        if (size == INT64_C(1) << bits) {
            p->cluster_bits = bits;
            return true;
        }
    }
    g_set_error(errp, BDRV_ERROR, EINVAL,
                "cluster_size %" PRId64 " is wrong: Cluster size must be a power of two between %d and %dk",
                size, 1 << QCOW2_MIN_CLUSTER_BITS, 1 << (QCOW2_MAX_CLUSTER_BITS - 10));
    return false;
}

static bool parse_extended_l2(const BdrvOptions *options, Qcow2CreateParams *p, GError **errp)
{
    p->extended_l2 = bdrv_options_get_bool(options, "extended_l2", false);
    if (p->extended_l2 && p->version == 2) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "Extended L2 entries are only supported with compatibility level 1.1 and above (use compat=1.1)");
        return false;
    }
    if (p->extended_l2 && p->cluster_bits < QCOW2_MIN_CLUSTER_BITS_EXTENDED) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "Extended L2 entries are only supported with cluster sizes of at least %u bytes, not %u",
                    1u << QCOW2_MIN_CLUSTER_BITS_EXTENDED, 1u << p->cluster_bits);
        return false;
    }
    return true;
}

bool qcow2_parse_refcount_bits(int64_t bits, unsigned *order, GError **errp)
{
    *order = 0;
    while (*order <= QCOW2_MAX_REFCOUNT_ORDER && bits != INT64_C(1) << *order) {
        ++*order;
    }
    if (*order > QCOW2_MAX_REFCOUNT_ORDER) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "refcount_bits %" PRId64
                    " is wrong: Refcount width must be a power of two and may not exceed 64 "
                    "bits",
                    bits);
        return false;
    }
    return true;
}

static bool parse_refcount_bits(const BdrvOptions *options, Qcow2CreateParams *p, GError **errp)
{
    unsigned order;
    if (!qcow2_parse_refcount_bits(bdrv_options_get_int(options, "refcount_bits", 16), &order, errp)) {
        return false;
    }
    if (p->version == 2 && order != 4) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "Different refcount widths than 16 bits require compatibility level 1.1 or above (use "
                    "compat=1.1)");
        return false;
    }
    p->refcount_order = order;
    return true;
}

static bool parse_lazy_refcounts(const BdrvOptions *options, Qcow2CreateParams *p, GError **errp)
{
    p->lazy_refcounts = bdrv_options_get_bool(options, "lazy_refcounts", false);
    if (p->lazy_refcounts && p->version == 2) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1)");
        return false;
    }
    return true;
}

static bool parse_compression(const BdrvOptions *options, Qcow2CreateParams *p, GError **errp)
{
    const char *type = bdrv_options_get_string(options, "compression_type", "zlib");
    if (g_str_equal(type, "zlib")) {
        p->compression_type = 0;
        return true;
    }
    if (!g_str_equal(type, "zstd")) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "compression_type '%s' is unknown; 'zlib' and 'zstd' are supported", type);
        return false;
    }
#ifndef CONFIG_LIBZSTD
    g_set_error(errp, BDRV_ERROR, ENOTSUP, "compression_type 'zstd' is not supported: built without libzstd");
    return false;
#else
    if (p->version == 2) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "Non-zlib compression type is only supported with compatibility level 1.1 and above "
                    "(use compat=1.1)");
        return false;
    }
    p->compression_type = 1;
    return true;
#endif
}

static bool parse_backing(const BdrvOptions *options, Qcow2CreateParams *p, GError **errp)
{
    p->backing_file = bdrv_options_get_string(options, "backing_file", NULL);
    p->backing_format = bdrv_options_get_string(options, "backing_fmt", NULL);
    if (p->backing_file && *p->backing_file == '\0') {
        p->backing_file = NULL;
    }
    if (!p->backing_file && p->backing_format) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "backing_fmt cannot be used without backing_file");
        return false;
    }
    if (p->backing_file && !p->backing_format) {
        g_set_error(
            errp, BDRV_ERROR, EINVAL,
            "backing file '%s' specified without backing format: say backing_fmt, it is not guessed later",
            p->backing_file);
        return false;
    }
    if (p->backing_file && strlen(p->backing_file) > QCOW2_MAX_BACKING_NAME) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the backing file name has %zu bytes; at most %u are allowed",
                    strlen(p->backing_file), QCOW2_MAX_BACKING_NAME);
        return false;
    }
    return true;
}

static bool parse_data_file(const BdrvOptions *options, Qcow2CreateParams *p, GError **errp)
{
    p->data_file = bdrv_options_get_string(options, "data_file", NULL);
    p->data_file_raw = bdrv_options_get_bool(options, "data_file_raw", false);
    if (p->data_file && p->version == 2) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "External data files are only supported with compatibility level 1.1 and above (use compat=1.1)");
        return false;
    }
    if (p->data_file_raw && !p->data_file) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "data_file_raw=on requires data_file: give its name");
        return false;
    }
    if (p->data_file_raw && p->backing_file) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "backing_file and data_file_raw=on cannot be used at the same time: the data file alone would not "
                    "show what the backing file has");
        return false;
    }
    return !p->data_file || bdrv_check_data_filename(p->data_file, errp);
}

static bool parse_prealloc(const BdrvOptions *options, Qcow2CreateParams *p, GError **errp)
{
    const char *mode = bdrv_options_get_string(options, "preallocation", "off");
    unsigned n = 0;
    while (prealloc_choices[n] && !g_str_equal(prealloc_choices[n], mode)) {
        n++;
    }
    if (!prealloc_choices[n]) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "preallocation '%s' is unknown; off, metadata, falloc, full are supported", mode);
        return false;
    }
    p->prealloc = (BdrvPrealloc)n;
    if (p->data_file_raw && p->prealloc == BDRV_PREALLOC_OFF) {
        p->prealloc = BDRV_PREALLOC_METADATA; /* what is not mapped need not be zeroes there */
    }
    if (p->backing_file && p->prealloc != BDRV_PREALLOC_OFF && !p->extended_l2) {
        g_set_error(
            errp, BDRV_ERROR, EINVAL,
            "backing_file and preallocation=%s can only be used together if extended_l2 is on: allocated clusters "
            "would hide the backing file",
            mode);
        return false;
    }
    return true;
}

static bool parse_size(const BdrvOptions *options, Qcow2CreateParams *p, GError **errp)
{
    if (!bdrv_options_has(options, "size")) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "Image creation needs a size parameter");
        return false;
    }
    int64_t size = bdrv_options_get_int(options, "size", 0);
    if (size < 0 || size > INT64_MAX - (SECTOR_BYTES - 1)) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "size %" PRId64 " is not between 0 and %" PRId64, size,
                    INT64_MAX - (SECTOR_BYTES - 1));
        return false;
    }
    p->size = ((uint64_t)size + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
    return true;
}

bool qcow2_create_params(const BdrvOptions *options, Qcow2CreateParams *params, GError **errp)
{
    Qcow2CreateParams p = { 0 };
    if (!parse_encryption(options, &p, errp) ||
        !qcow2_parse_compat(bdrv_options_get_string(options, "compat", "1.1"), &p.version, errp) ||
        !parse_cluster_size(options, &p, errp) || !parse_extended_l2(options, &p, errp) ||
        !parse_refcount_bits(options, &p, errp) || !parse_lazy_refcounts(options, &p, errp) ||
        !parse_compression(options, &p, errp) || !parse_backing(options, &p, errp) ||
        !parse_data_file(options, &p, errp) || !parse_prealloc(options, &p, errp) || !parse_size(options, &p, errp) ||
        !check_encrypted_space(&p, errp)) {
        return false;
    }
    *params = p;
    return true;
}
