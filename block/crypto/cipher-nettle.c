/* SPDX-License-Identifier: MIT */
/* What libcrypto lacks, by nettle: any of its ciphers in any of our modes. */

#include <errno.h>
#include <nettle/cbc.h>
#include <nettle/ctr.h>
#include <nettle/nettle-meta.h>
#include <nettle/xts.h>
#include <openssl/crypto.h>
#include <string.h>

#include "block/crypto/cipher.h"

typedef struct NettleCipher {
    const struct nettle_cipher *cipher;
    BdrvCipherMode mode;
    size_t bytes;                  /* of all this */
    void *encrypt, *decrypt, *tweak; /* key schedules, behind the struct */
} NettleCipher;

#define SCHEDULE_ALIGN 16u
#define ROUND_UP(bytes) (((bytes) + SCHEDULE_ALIGN - 1) / SCHEDULE_ALIGN * SCHEDULE_ALIGN)

static void *nettle_new(const BdrvCipherAlgorithm *algorithm, BdrvCipherMode mode, const uint8_t *key)
{
    const struct nettle_cipher *cipher = algorithm->detail;
    size_t schedule = ROUND_UP(cipher->context_size);
    size_t bytes = ROUND_UP(sizeof(NettleCipher)) + 3 * schedule;
    NettleCipher *c = g_try_malloc0(bytes);

    if (!c) {
        return NULL;
    }
    uint8_t *schedules = (uint8_t *)c + ROUND_UP(sizeof(*c));
    *c = (NettleCipher){ .cipher = cipher,
                         .mode = mode,
                         .bytes = bytes,
                         .encrypt = schedules,
                         .decrypt = schedules + schedule,
                         .tweak = schedules + 2 * schedule };
    cipher->set_encrypt_key(c->encrypt, key);
    cipher->set_decrypt_key(c->decrypt, key);
    if (mode == BDRV_CIPHER_XTS) {
        cipher->set_encrypt_key(c->tweak, key + algorithm->key_bytes);
    }
    return c;
}

static void nettle_free(void *state)
{
    NettleCipher *c = state;
    OPENSSL_cleanse(c, c->bytes);
    g_free(c);
}

static int nettle_crypt(void *state, bool encrypt, const uint8_t *iv, const uint8_t *in, uint8_t *out, size_t bytes)
{
    NettleCipher *c = state;
    const struct nettle_cipher *cipher = c->cipher;
    uint8_t vector[BDRV_CIPHER_MAX_BLOCK];

    if (iv) {
        memcpy(vector, iv, cipher->block_size);
    }
    switch (c->mode) {
    case BDRV_CIPHER_ECB:
        (encrypt ? cipher->encrypt : cipher->decrypt)(encrypt ? c->encrypt : c->decrypt, bytes, out, in);
        return 0;
    case BDRV_CIPHER_CBC:
        if (encrypt) {
            cbc_encrypt(c->encrypt, cipher->encrypt, cipher->block_size, vector, bytes, out, in);
        } else {
            cbc_decrypt(c->decrypt, cipher->decrypt, cipher->block_size, vector, bytes, out, in);
        }
        return 0;
    case BDRV_CIPHER_XTS:
        if (encrypt) {
            xts_encrypt_message(c->encrypt, c->tweak, cipher->encrypt, vector, bytes, out, in);
        } else {
            xts_decrypt_message(c->decrypt, c->tweak, cipher->decrypt, cipher->encrypt, vector, bytes, out, in);
        }
        return 0;
    case BDRV_CIPHER_CTR:
        ctr_crypt(c->encrypt, cipher->encrypt, cipher->block_size, vector, bytes, out, in);
        return 0;
    }
    return -EIO;
}

const BdrvCipherOps bdrv_cipher_nettle = {
    .new = nettle_new,
    .crypt = nettle_crypt,
    .free = nettle_free,
};
