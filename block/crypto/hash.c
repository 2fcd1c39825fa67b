/* SPDX-License-Identifier: MIT */
#include "block/crypto/hash.h"

#include <bdrv/error.h>
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

struct BdrvHash {
    const char *name;
    const EVP_MD *(*evp)(void);
    size_t bytes;
};

static const BdrvHash hashes[] = {
    { "md5", EVP_md5, 16 },       { "sha1", EVP_sha1, 20 },     { "sha224", EVP_sha224, 28 },
    { "sha256", EVP_sha256, 32 }, { "sha384", EVP_sha384, 48 }, { "sha512", EVP_sha512, 64 },
    { "ripemd160", EVP_ripemd160, 20 },
};

/* Looked up once for all uses, which costs more than hashing a few bytes. NULL: this libcrypto's providers do not offer
 * it. Kept as long as the process. */
static const EVP_MD *fetch(const BdrvHash *hash)
{
    static const EVP_MD *fetched[G_N_ELEMENTS(hashes)];
    static gsize known[G_N_ELEMENTS(hashes)];
    size_t i = (size_t)(hash - hashes);

    if (g_once_init_enter(&known[i])) {
        fetched[i] = EVP_MD_fetch(NULL, EVP_MD_get0_name(hash->evp()), NULL);
        g_once_init_leave(&known[i], 1);
    }
    return fetched[i];
}

static bool is_usable(const BdrvHash *hash)
{
    uint8_t digest[BDRV_HASH_MAX_BYTES];
    return bdrv_hash_digest(hash, NULL, 0, "", 0, digest) == 0;
}

const BdrvHash *bdrv_hash_find(const char *name, GError **errp)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(hashes); i++) {
        if (strcmp(hashes[i].name, name) != 0) {
            continue;
        }
        if (!is_usable(&hashes[i])) {
            g_set_error(errp, BDRV_ERROR, ENOTSUP, "hash '%s' is not offered by this libcrypto", name);
            return NULL;
        }
        return &hashes[i];
    }
    g_set_error(errp, BDRV_ERROR, ENOTSUP,
                "hash '%s' is unknown; md5, sha1, sha224, sha256, sha384, sha512 and ripemd160 are known", name);
    return NULL;
}

const char *bdrv_hash_name(const BdrvHash *hash)
{
    return hash->name;
}

size_t bdrv_hash_bytes(const BdrvHash *hash)
{
    return hash->bytes;
}

int bdrv_hash_digest(const BdrvHash *hash, const void *prefix, size_t prefix_bytes, const void *data, size_t bytes,
                     uint8_t *digest)
{
    const EVP_MD *md = fetch(hash);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (!ctx) {
        return -ENOMEM;
    }
    bool done = md && EVP_DigestInit_ex(ctx, md, NULL) && EVP_DigestUpdate(ctx, prefix, prefix_bytes) &&
                EVP_DigestUpdate(ctx, data, bytes) && EVP_DigestFinal_ex(ctx, digest, NULL);
    EVP_MD_CTX_free(ctx);
    return done ? 0 : -EIO;
}

int bdrv_hash_pbkdf2(const BdrvHash *hash, const void *passphrase, size_t passphrase_bytes, const void *salt,
                     size_t salt_bytes, uint32_t iterations, uint8_t *key, size_t key_bytes)
{
    if (passphrase_bytes > INT_MAX || iterations == 0 || iterations > INT_MAX) {
        return -EINVAL;
    }
    const EVP_MD *md = fetch(hash);
    return md && PKCS5_PBKDF2_HMAC(passphrase, (int)passphrase_bytes, salt, (int)salt_bytes, (int)iterations, md,
                                   (int)key_bytes, key)
               ? 0
               : -EIO;
}
