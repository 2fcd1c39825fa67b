/* SPDX-License-Identifier: MIT */
/* AES by libcrypto. Setting a key is slow, setting an IV is not: the contexts of both directions are kept. */

#include <errno.h>
#include <openssl/evp.h>

#include "block/crypto/cipher.h"

typedef struct OpensslCipher {
    EVP_CIPHER_CTX *encrypt, *decrypt;
} OpensslCipher;

static const EVP_CIPHER *evp_cipher(unsigned key_bytes, BdrvCipherMode mode)
{
    static const EVP_CIPHER *(*const table[][4])(void) = {
        [2] = { EVP_aes_128_ecb, EVP_aes_128_cbc, EVP_aes_128_xts, EVP_aes_128_ctr },
        [3] = { EVP_aes_192_ecb, EVP_aes_192_cbc, NULL, EVP_aes_192_ctr },
        [4] = { EVP_aes_256_ecb, EVP_aes_256_cbc, EVP_aes_256_xts, EVP_aes_256_ctr },
    };
    return table[key_bytes / 8][mode]();
}

static EVP_CIPHER_CTX *new_context(const EVP_CIPHER *cipher, const uint8_t *key, bool encrypt)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    if (ctx && !(EVP_CipherInit_ex(ctx, cipher, NULL, key, NULL, encrypt) && EVP_CIPHER_CTX_set_padding(ctx, 0))) {
        EVP_CIPHER_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

static void openssl_free(void *state)
{
    OpensslCipher *c = state;
    EVP_CIPHER_CTX_free(c->encrypt);
    EVP_CIPHER_CTX_free(c->decrypt);
    g_free(c);
}

static void *openssl_new(const BdrvCipherAlgorithm *algorithm, BdrvCipherMode mode, const uint8_t *key)
{
    OpensslCipher *c = g_try_new0(OpensslCipher, 1);
    if (!c) {
        return NULL;
    }
    const EVP_CIPHER *cipher = evp_cipher(algorithm->key_bytes, mode);
    c->encrypt = new_context(cipher, key, true);
    c->decrypt = new_context(cipher, key, false);
    if (!c->encrypt || !c->decrypt) {
        openssl_free(c);
        return NULL;
    }
    return c;
}

static int openssl_crypt(void *state, bool encrypt, const uint8_t *iv, const uint8_t *in, uint8_t *out, size_t bytes)
{
    OpensslCipher *c = state;
    EVP_CIPHER_CTX *ctx = encrypt ? c->encrypt : c->decrypt;
    int done;

    if (bytes > INT_MAX || !EVP_CipherInit_ex(ctx, NULL, NULL, NULL, iv, -1) ||
        !EVP_CipherUpdate(ctx, out, &done, in, (int)bytes)) {
        return -EIO;
    }
    return (size_t)done == bytes ? 0 : -EIO;
}

const BdrvCipherOps bdrv_cipher_openssl = {
    .new = openssl_new,
    .crypt = openssl_crypt,
    .free = openssl_free,
};
