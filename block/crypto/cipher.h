/* SPDX-License-Identifier: MIT */
#ifndef BDRV_CRYPTO_CIPHER_H
#define BDRV_CRYPTO_CIPHER_H

/*
 * Block ciphers with a mode, as disk encryption uses them. AES comes from libcrypto; CAST5, Serpent, Twofish and what
 * libcrypto lacks of AES (xts with keys of 192 bits) from nettle, if the library was built with it.
 */

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BDRV_CIPHER_MAX_BLOCK 16u
#define BDRV_CIPHER_MAX_KEY 64u /* bytes, of the two keys of xts together */

typedef struct BdrvCipherOps BdrvCipherOps;

/* A cipher with one key length. */
typedef struct BdrvCipherAlgorithm {
    const char *name;      /* "aes-256": qemu-img's */
    const char *luks_name; /* "aes": the cipher-name of a LUKS header */
    unsigned key_bytes;
    unsigned block_bytes;
    const BdrvCipherOps *ops;     /* NULL: not built in */
    const BdrvCipherOps *xts_ops; /* for that mode; NULL: not there */
    const void *detail;           /* for nettle's */
} BdrvCipherAlgorithm;

typedef enum BdrvCipherMode {
    BDRV_CIPHER_ECB,
    BDRV_CIPHER_CBC,
    BDRV_CIPHER_XTS,
    BDRV_CIPHER_CTR,
} BdrvCipherMode;

/* A key in use. One thread at a time. */
typedef struct BdrvCipher BdrvCipher;

struct BdrvCipherOps {
    void *(*new)(const BdrvCipherAlgorithm *algorithm, BdrvCipherMode mode, const uint8_t *key);
    int (*crypt)(void *state, bool encrypt, const uint8_t *iv, const uint8_t *in, uint8_t *out, size_t bytes);
    void (*free)(void *state); /* wipes the key */
};

/** bdrv_cipher_find() - by qemu-img's name; ENOTSUP names those there are */
const BdrvCipherAlgorithm *bdrv_cipher_find(const char *name, GError **errp);

/** bdrv_cipher_find_luks() - by a LUKS header's cipher name and the bytes of one key; ENOTSUP */
const BdrvCipherAlgorithm *bdrv_cipher_find_luks(const char *luks_name, size_t key_bytes, GError **errp);

/** bdrv_cipher_find_key() - the same cipher with another key length, or NULL */
const BdrvCipherAlgorithm *bdrv_cipher_find_key(const BdrvCipherAlgorithm *algorithm, size_t key_bytes);

/** bdrv_cipher_mode_find() - "ecb", "cbc", "xts", "ctr"; ENOTSUP */
bool bdrv_cipher_mode_find(const char *name, BdrvCipherMode *mode, GError **errp);
const char *bdrv_cipher_mode_name(BdrvCipherMode mode);

/** bdrv_cipher_key_bytes() - of the whole key: xts takes two */
size_t bdrv_cipher_key_bytes(const BdrvCipherAlgorithm *algorithm, BdrvCipherMode mode);

/** bdrv_cipher_check() - whether the two go together; ENOTSUP */
bool bdrv_cipher_check(const BdrvCipherAlgorithm *algorithm, BdrvCipherMode mode, GError **errp);

/** bdrv_cipher_new() - @key has bdrv_cipher_key_bytes(); NULL: no memory, or a key that the cipher refuses */
BdrvCipher *bdrv_cipher_new(const BdrvCipherAlgorithm *algorithm, BdrvCipherMode mode, const uint8_t *key);
void bdrv_cipher_free(BdrvCipher *cipher);

/**
 * bdrv_cipher_crypt() - encrypt or decrypt @bytes of @in to @out, which may be the same
 * @iv: BDRV_CIPHER_MAX_BLOCK bytes, of which as many are used as a block has; ecb: NULL
 * @bytes: a multiple of the block
 * Returns: 0 or -EIO.
 */
int bdrv_cipher_crypt(BdrvCipher *cipher, bool encrypt, const uint8_t *iv, const uint8_t *in, uint8_t *out,
                      size_t bytes);

/* The back ends, and what of theirs an algorithm is. */
extern const BdrvCipherOps bdrv_cipher_openssl;
extern const BdrvCipherOps bdrv_cipher_nettle;

#endif
