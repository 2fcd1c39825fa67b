/* SPDX-License-Identifier: MIT */
#include "block/crypto/cipher.h"

#include <bdrv/error.h>
#include <errno.h>
#include <string.h>

#include "config.h"
#ifdef CONFIG_NETTLE
#include <nettle/nettle-meta.h>
#define NETTLE(detail_) .ops = &bdrv_cipher_nettle, .xts_ops = &bdrv_cipher_nettle, .detail = &(detail_)
#define XTS_NETTLE(detail_) .xts_ops = &bdrv_cipher_nettle, .detail = &(detail_)
#else
#define NETTLE(detail_) .ops = NULL
#define XTS_NETTLE(detail_) .xts_ops = NULL
#endif
#define OPENSSL .ops = &bdrv_cipher_openssl

static const BdrvCipherAlgorithm algorithms[] = {
    { "aes-128", "aes", 16, 16, OPENSSL, .xts_ops = &bdrv_cipher_openssl },
    { "aes-192", "aes", 24, 16, OPENSSL, XTS_NETTLE(nettle_aes192) }, /* IEEE 1619 has no such key length */
    { "aes-256", "aes", 32, 16, OPENSSL, .xts_ops = &bdrv_cipher_openssl },
    { "cast5-128", "cast5", 16, 8, NETTLE(nettle_cast128) },
    { "serpent-128", "serpent", 16, 16, NETTLE(nettle_serpent128) },
    { "serpent-192", "serpent", 24, 16, NETTLE(nettle_serpent192) },
    { "serpent-256", "serpent", 32, 16, NETTLE(nettle_serpent256) },
    { "twofish-128", "twofish", 16, 16, NETTLE(nettle_twofish128) },
    { "twofish-192", "twofish", 24, 16, NETTLE(nettle_twofish192) },
    { "twofish-256", "twofish", 32, 16, NETTLE(nettle_twofish256) },
};

static const char *const mode_names[] = {
    [BDRV_CIPHER_ECB] = "ecb",
    [BDRV_CIPHER_CBC] = "cbc",
    [BDRV_CIPHER_XTS] = "xts",
    [BDRV_CIPHER_CTR] = "ctr",
};

struct BdrvCipher {
    const BdrvCipherOps *ops;
    void *state;
};

static const BdrvCipherAlgorithm *if_built(const BdrvCipherAlgorithm *algorithm, GError **errp)
{
    if (!algorithm->ops) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "cipher '%s' is not supported: built without nettle", algorithm->name);
        return NULL;
    }
    return algorithm;
}

const BdrvCipherAlgorithm *bdrv_cipher_find(const char *name, GError **errp)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(algorithms); i++) {
        if (strcmp(algorithms[i].name, name) == 0) {
            return if_built(&algorithms[i], errp);
        }
    }
    g_set_error(errp, BDRV_ERROR, ENOTSUP,
                "cipher '%s' is unknown; aes, serpent and twofish with -128, -192 or -256 and cast5-128 are known", name);
    return NULL;
}

const BdrvCipherAlgorithm *bdrv_cipher_find_luks(const char *luks_name, size_t key_bytes, GError **errp)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(algorithms); i++) {
        if (strcmp(algorithms[i].luks_name, luks_name) == 0 && algorithms[i].key_bytes == key_bytes) {
            return if_built(&algorithms[i], errp);
        }
    }
    g_set_error(errp, BDRV_ERROR, ENOTSUP, "cipher '%s' with a key of %zu bytes is unknown", luks_name, key_bytes);
    return NULL;
}

const BdrvCipherAlgorithm *bdrv_cipher_find_key(const BdrvCipherAlgorithm *algorithm, size_t key_bytes)
{
    return bdrv_cipher_find_luks(algorithm->luks_name, key_bytes, NULL);
}

bool bdrv_cipher_mode_find(const char *name, BdrvCipherMode *mode, GError **errp)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(mode_names); i++) {
        if (strcmp(mode_names[i], name) == 0) {
            *mode = (BdrvCipherMode)i;
            return true;
        }
    }
    g_set_error(errp, BDRV_ERROR, ENOTSUP, "cipher mode '%s' is unknown; ecb, cbc, xts and ctr are known", name);
    return false;
}

const char *bdrv_cipher_mode_name(BdrvCipherMode mode)
{
    return mode_names[mode];
}

size_t bdrv_cipher_key_bytes(const BdrvCipherAlgorithm *algorithm, BdrvCipherMode mode)
{
    return mode == BDRV_CIPHER_XTS ? (size_t)algorithm->key_bytes * 2 : algorithm->key_bytes;
}

bool bdrv_cipher_check(const BdrvCipherAlgorithm *algorithm, BdrvCipherMode mode, GError **errp)
{
    bool xts_block = algorithm->block_bytes == 16; /* IEEE 1619 is about blocks of 128 bits */
    if (mode == BDRV_CIPHER_XTS && !(xts_block && algorithm->xts_ops)) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "cipher '%s' cannot be used in mode 'xts': %s", algorithm->name,
                    xts_block ? "built without nettle" : "its blocks have 64 bits, not 128");
        return false;
    }
    return true;
}

BdrvCipher *bdrv_cipher_new(const BdrvCipherAlgorithm *algorithm, BdrvCipherMode mode, const uint8_t *key)
{
    BdrvCipher *cipher = g_try_new(BdrvCipher, 1);
    if (!cipher) {
        return NULL;
    }
    cipher->ops = mode == BDRV_CIPHER_XTS ? algorithm->xts_ops : algorithm->ops;
    cipher->state = cipher->ops->new(algorithm, mode, key);
    if (!cipher->state) {
        g_free(cipher);
        return NULL;
    }
    return cipher;
}

void bdrv_cipher_free(BdrvCipher *cipher)
{
    if (cipher) {
        cipher->ops->free(cipher->state);
        g_free(cipher);
    }
}

int bdrv_cipher_crypt(BdrvCipher *cipher, bool encrypt, const uint8_t *iv, const uint8_t *in, uint8_t *out, size_t bytes)
{
    return cipher->ops->crypt(cipher->state, encrypt, iv, in, out, bytes);
}
