/* SPDX-License-Identifier: MIT */
#ifndef BDRV_CRYPTO_VOLUME_H
#define BDRV_CRYPTO_VOLUME_H

/*
 * The encrypted payload of a disk: sectors of 512 bytes, each with an initialization vector made from its
 * number. What the number counts from, the disk's start or the file's, is the caller's affair.
 */

#include <bdrv/driver.h>

#include "block/crypto/cipher.h"
#include "block/crypto/hash.h"

#define BDRV_VOLUME_SECTOR 512u

/* How the vector comes from the sector's number. */
typedef enum BdrvIvgen {
    BDRV_IVGEN_PLAIN,   /* its low 32 bits, little-endian */
    BDRV_IVGEN_PLAIN64, /* 64 bits, little-endian */
    BDRV_IVGEN_ESSIV,   /* those, encrypted with a hash of the key */
} BdrvIvgen;

typedef struct BdrvVolumeSpec {
    const BdrvCipherAlgorithm *algorithm;
    BdrvCipherMode mode;
    BdrvIvgen ivgen;
    const BdrvHash *ivgen_hash; /* of essiv; others may name one that has no effect, or NULL */
} BdrvVolumeSpec;

typedef struct BdrvVolume BdrvVolume;

/** bdrv_ivgen_find() - "plain", "plain64", "essiv"; ENOTSUP */
bool bdrv_ivgen_find(const char *name, BdrvIvgen *ivgen, GError **errp);
const char *bdrv_ivgen_name(BdrvIvgen ivgen);

/** bdrv_volume_spec_parse() - from a LUKS header's cipher name and mode, as "aes" and "cbc-essiv:sha256"
 * @key_bytes: of the whole key. ENOTSUP, EINVAL name the part that is unknown. */
bool bdrv_volume_spec_parse(const char *cipher_name, const char *cipher_mode, size_t key_bytes, BdrvVolumeSpec *spec,
                            GError **errp);

/** bdrv_volume_spec_mode_text() - the second of the two; caller frees */
char *bdrv_volume_spec_mode_text(const BdrvVolumeSpec *spec);

/** bdrv_volume_spec_check() - whether its parts go together; ENOTSUP */
bool bdrv_volume_spec_check(const BdrvVolumeSpec *spec, GError **errp);

/** bdrv_volume_new() - @key: bdrv_cipher_key_bytes() of the cipher; not kept but as key schedules */
BdrvVolume *bdrv_volume_new(const BdrvVolumeSpec *spec, const uint8_t *key, GError **errp);
void bdrv_volume_free(BdrvVolume *volume); /* wipes; NULL is allowed */

/**
 * bdrv_volume_crypt() - encrypt or decrypt whole sectors in this thread
 * @offset: bytes, where @in lies for the vectors; it and @bytes are multiples of BDRV_VOLUME_SECTOR
 * @out: may be @in
 * Any thread, many at once. Returns: 0, -ENOMEM, -EIO.
 */
int bdrv_volume_crypt(BdrvVolume *volume, bool encrypt, uint64_t offset, const uint8_t *in, uint8_t *out,
                      size_t bytes);

/** bdrv_volume_co_decrypt() - decrypt a part of a buffer in place; in a CPU worker, yields. 0 or -errno */
int coroutine_fn bdrv_volume_co_decrypt(BdrvVolume *volume, uint64_t offset, const BdrvIov *iov, size_t iov_offset,
                                        size_t bytes);

/** bdrv_volume_co_encrypt() - encrypt a part of a buffer to @out, @bytes long; in a CPU worker, yields. 0 or -errno */
int coroutine_fn bdrv_volume_co_encrypt(BdrvVolume *volume, uint64_t offset, const BdrvIov *iov, size_t iov_offset,
                                        size_t bytes, uint8_t *out);

/**
 * bdrv_volume_co_preadv() - read from a child and decrypt, in the caller's buffer
 * @offset: in @child; it, @iv_offset and @bytes are multiples of BDRV_VOLUME_SECTOR
 * @iv_offset: where the vectors count it
 */
int coroutine_fn bdrv_volume_co_preadv(BdrvVolume *volume, BdrvChild *child, int64_t offset, uint64_t iv_offset,
                                       int64_t bytes, const BdrvIov *iov, size_t iov_offset);

/** bdrv_volume_co_pwritev() - encrypt and write; the caller's buffer stays as it is. @flags as of bdrv_co_pwritev() */
int coroutine_fn bdrv_volume_co_pwritev(BdrvVolume *volume, BdrvChild *child, int64_t offset, uint64_t iv_offset,
                                        int64_t bytes, const BdrvIov *iov, size_t iov_offset, BdrvRequestFlags flags);

#endif
