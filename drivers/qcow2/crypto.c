/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/crypto.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <string.h>

#define AES_KEY_BYTES 16u /* AES-128, whatever the passphrase's length */

const char *qcow2_crypto_name(uint32_t method)
{
    static const char *const names[] = { NULL, "aes", "luks" };
    return method < G_N_ELEMENTS(names) ? names[method] : NULL;
}

/* ---- the encryption header of LUKS ---- */

/* A part of the image file. */
typedef struct Area {
    BdrvChild *file;
    uint64_t offset, length;
} Area;

static bool is_inside(const Area *area, uint64_t offset, size_t bytes)
{
    return offset <= area->length && bytes <= area->length - offset;
}

static int coroutine_fn read_area(void *opaque, uint64_t offset, void *buf, size_t bytes)
{
    const Area *area = opaque;
    return is_inside(area, offset, bytes)
               ? bdrv_co_pread(area->file, (int64_t)(area->offset + offset), (int64_t)bytes, buf, 0)
               : -EINVAL;
}

static int coroutine_fn write_area(void *opaque, uint64_t offset, const void *buf, size_t bytes)
{
    const Area *area = opaque;
    return is_inside(area, offset, bytes)
               ? bdrv_co_pwrite(area->file, (int64_t)(area->offset + offset), (int64_t)bytes, buf, 0)
               : -EINVAL;
}

static int coroutine_fn flush_area(void *opaque)
{
    const Area *area = opaque;
    return bdrv_co_flush(area->file);
}

static BdrvLuksIo area_io(Area *area)
{
    return (BdrvLuksIo){ .read = read_area, .write = write_area, .flush = flush_area, .opaque = area };
}

static Area area_of(BlockDriverState *bs, const Qcow2Crypto *crypto)
{
    return (Area){ bs->file, crypto->offset, crypto->length };
}

/* @load: bdrv_luks_load() or bdrv_luks_load_again() */
static bool coroutine_fn load_luks(BlockDriverState *bs, Qcow2Crypto *crypto, int64_t file_length,
                                   bool (*load)(BdrvLuks *luks, const BdrvLuksIo *io, GError **errp), GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    Qcow2CryptoExtension ext;

    if (!qcow2_crypto_extension_decode(s->extensions.crypto, s->extensions.crypto_bytes, &ext, errp)) {
        return false;
    }
    if (ext.offset & (s->geometry.cluster_size - 1)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "encryption header offset %" PRIu64 " is not a multiple of the cluster size (%u)", ext.offset,
                    s->geometry.cluster_size);
        return false;
    }
    if (ext.length < BDRV_LUKS_HEADER_BYTES || ext.length > QCOW2_MAX_CRYPTO_BYTES) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "encryption header length %" PRIu64 " is out of range; %u to %" PRIu64 " bytes are supported",
                    ext.length, BDRV_LUKS_HEADER_BYTES, QCOW2_MAX_CRYPTO_BYTES);
        return false;
    }
    if (ext.offset > (uint64_t)file_length || ext.length > (uint64_t)file_length - ext.offset) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the encryption header at %" PRIu64 " (%" PRIu64 " bytes) lies past the end of the file (%" PRId64
                    ")",
                    ext.offset, ext.length, file_length);
        return false;
    }
    crypto->offset = ext.offset;
    crypto->length = ext.length;
    Area area = area_of(bs, crypto);
    BdrvLuksIo io = area_io(&area);
    if (!load(&crypto->luks, &io, errp)) {
        g_prefix_error(errp, "encryption header at offset %" PRIu64 ": ", ext.offset);
        return false;
    }
    uint64_t needed = (uint64_t)crypto->luks.header.payload_sector * BDRV_LUKS_SECTOR;
    if (needed > ext.length) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "encryption header length %" PRIu64 " is too short for the key slots, which take %" PRIu64 " bytes",
                    ext.length, needed);
        return false;
    }
    return true;
}

bool coroutine_fn qcow2_crypto_create(BdrvChild *file, uint64_t offset, const BdrvLuksCreate *create, const char *secret,
                                      GError **errp)
{
    Area area = { file, offset, bdrv_luks_area_bytes(create) };
    BdrvLuksIo io = area_io(&area);
    GBytes *bytes = bdrv_passphrase_get(file->bs->graph, secret, errp);

    if (!bytes) {
        return false;
    }
    bool created = bdrv_luks_create(&io, create, bdrv_passphrase_of(bytes), errp);
    g_bytes_unref(bytes);
    return created;
}

/* ---- keys ---- */

/* AES-128 in CBC mode; its key is the passphrase itself, cut or filled up with zeroes. Any key is taken. */
static BdrvVolume *aes_volume(BdrvPassphrase passphrase, GError **errp)
{
    uint8_t key[AES_KEY_BYTES] = { 0 };
    BdrvVolumeSpec spec;

    if (!bdrv_volume_spec_parse("aes", "cbc-plain64", sizeof(key), &spec, errp)) {
        return NULL;
    }
    memcpy(key, passphrase.data, MIN(passphrase.bytes, sizeof(key)));
    BdrvVolume *volume = bdrv_volume_new(&spec, key, errp);
    OPENSSL_cleanse(key, sizeof(key));
    return volume;
}

static BdrvVolume *coroutine_fn open_volume(BlockDriverState *bs, BdrvPassphrase passphrase, GError **errp)
{
    const Qcow2Crypto *crypto = qcow2_state(bs)->crypto;
    Area area = area_of(bs, crypto);
    BdrvLuksIo io = area_io(&area);
    return crypto->method == QCOW2_CRYPT_AES ? aes_volume(passphrase, errp)
                                             : bdrv_luks_unlock(&crypto->luks, &io, passphrase, errp);
}

/* ---- open ---- */

/* The options may name the format, which then must be the image's. */
static bool check_format(uint32_t method, const BdrvOptions *options, GError **errp)
{
    const char *given = bdrv_options_get_string(options, "encrypt.format", NULL), *found = qcow2_crypto_name(method);

    if (!given || g_strcmp0(given, found) == 0) {
        return true;
    }
    if (found) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "Header reported '%s' encryption format but options specify '%s'", found,
                    given);
    } else {
        g_set_error(errp, BDRV_ERROR, EINVAL, "No encryption in image header, but options specified format '%s'", given);
    }
    return false;
}

static bool check_size(const Qcow2State *s, GError **errp)
{
    if (s->header.size % BDRV_VOLUME_SECTOR) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "size %" PRIu64 " of an encrypted image is not a multiple of %u",
                    s->header.size, BDRV_VOLUME_SECTOR);
        return false;
    }
    return true;
}

bool coroutine_fn qcow2_crypto_open(BlockDriverState *bs, const BdrvOptions *options, int64_t file_length,
                                    Qcow2KeyNeed need, GError **errp)
{
    Qcow2State *s = qcow2_state(bs);
    const char *secret = bdrv_options_get_string(options, "encrypt.key-secret", NULL);
    uint32_t method = s->header.crypt_method;

    if (!check_format(method, options, errp)) {
        return false;
    }
    if (method == QCOW2_CRYPT_NONE) {
        return true;
    }
    if (!check_size(s, errp)) {
        return false;
    }
    s->crypto = g_new0(Qcow2Crypto, 1);
    s->crypto->method = method;
    if (method == QCOW2_CRYPT_LUKS && !load_luks(bs, s->crypto, file_length, bdrv_luks_load, errp)) {
        return false;
    }
    if (need == QCOW2_KEY_UNUSED) {
        return true;
    }
    if (!secret && need == QCOW2_KEY_REQUIRED) {
        g_set_error(errp, BDRV_ERROR, ENOKEY, "Parameter 'encrypt.key-secret' is required for cipher");
        return false;
    }
    return !secret || bdrv_key_open(&s->crypto->key, bs, open_volume, secret, errp);
}

bool coroutine_fn qcow2_crypto_open_again(BlockDriverState *bs, Qcow2Crypto *crypto, int64_t file_length, GError **errp)
{
    Qcow2State *s = qcow2_state(bs);
    uint32_t method = s->header.crypt_method, before = crypto ? crypto->method : QCOW2_CRYPT_NONE;

    if (method != before) {
        const char *name = qcow2_crypto_name(method);
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "the image has become one %s%s; close it and open it again",
                    name ? "encrypted by " : "without encryption", name ? name : "");
        return false;
    }
    if (crypto && (!check_size(s, errp) || (method == QCOW2_CRYPT_LUKS &&
                                            !load_luks(bs, crypto, file_length, bdrv_luks_load_again, errp)))) {
        return false;
    }
    s->crypto = crypto;
    return true;
}

bool coroutine_fn qcow2_crypto_reopen(BlockDriverState *bs, const BdrvOptions *options, BdrvKey *fresh, GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);

    return check_format(s->header.crypt_method, options, errp) &&
           (!s->crypto || bdrv_key_reopen(&s->crypto->key, fresh, bs, open_volume,
                                          bdrv_options_get_string(options, "encrypt.key-secret", NULL), errp));
}

void qcow2_crypto_close(BlockDriverState *bs)
{
    Qcow2Crypto *crypto = g_steal_pointer(&qcow2_state(bs)->crypto);
    if (crypto) {
        bdrv_key_clear(&crypto->key);
        g_free(crypto);
    }
}

bool coroutine_fn qcow2_set_key(BlockDriverState *bs, const uint8_t *key, size_t bytes, GError **errp)
{
    return bdrv_key_set(&qcow2_state(bs)->crypto->key, bs, open_volume, (BdrvPassphrase){ key, bytes }, errp);
}

bool coroutine_fn qcow2_crypto_amend(BlockDriverState *bs, const BdrvLuksAmend *amend, bool force, GError **errp)
{
    Qcow2Crypto *crypto = qcow2_state(bs)->crypto;
    Area area = area_of(bs, crypto);
    BdrvLuksIo io = area_io(&area);
    return bdrv_luks_amend(&crypto->luks, &io, bs->graph, amend, crypto->key.secret, force, errp);
}

/* ---- guest data ---- */

/* What the vectors count: the guest's sectors with AES, the file's with LUKS. */
static uint64_t iv_offset(const Qcow2Crypto *crypto, uint64_t guest_offset, uint64_t host_offset)
{
    return crypto->method == QCOW2_CRYPT_AES ? guest_offset : host_offset;
}

int coroutine_fn qcow2_read_encrypted(BlockDriverState *bs, uint64_t guest_offset, uint64_t host_offset, uint64_t bytes,
                                      const BdrvIov *iov, size_t iov_offset)
{
    const Qcow2Crypto *crypto = qcow2_state(bs)->crypto;
    return crypto->key.volume ? bdrv_volume_co_preadv(crypto->key.volume, qcow2_data_child(bs), (int64_t)host_offset,
                                                  iv_offset(crypto, guest_offset, host_offset), (int64_t)bytes, iov,
                                                  iov_offset)
                          : -ENOKEY;
}

int coroutine_fn qcow2_write_encrypted(BlockDriverState *bs, uint64_t guest_offset, uint64_t host_offset, uint64_t bytes,
                                       const BdrvIov *iov, size_t iov_offset)
{
    const Qcow2Crypto *crypto = qcow2_state(bs)->crypto;
    return crypto->key.volume ? bdrv_volume_co_pwritev(crypto->key.volume, qcow2_data_child(bs), (int64_t)host_offset,
                                                   iv_offset(crypto, guest_offset, host_offset), (int64_t)bytes, iov,
                                                   iov_offset, 0)
                          : -ENOKEY;
}
