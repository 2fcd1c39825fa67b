/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_CRYPTO_H
#define BDRV_QCOW2_CRYPTO_H

/*
 * Encryption of guest data: AES (crypt_method 1) and LUKS (2). Metadata is never encrypted, compressed clusters are
 * not either. Guest data goes to and from its file through qcow2_read_data() and qcow2_write_data() only.
 */

#include "block/crypto/key.h"
#include "block/crypto/luks.h"
#include "drivers/qcow2/data_file.h"
#include "drivers/qcow2/qcow2.h"

#define QCOW2_CRYPT_NONE 0u
#define QCOW2_CRYPT_AES 1u
#define QCOW2_CRYPT_LUKS 2u

/* Bounds what a header may claim for its encryption header: a LUKS header of 64-byte keys takes 2 MiB. */
#define QCOW2_MAX_CRYPTO_BYTES (UINT64_C(16) << 20)

struct Qcow2Crypto {
    uint32_t method;
    BdrvLuks luks;           /* of LUKS; loaded at open */
    uint64_t offset, length; /* of LUKS: the encryption header in the file */
    BdrvKey key;
};

/** qcow2_crypto_name() - "aes", "luks", NULL for none */
const char *qcow2_crypto_name(uint32_t method);

/* How open deals with the key. */
typedef enum Qcow2KeyNeed {
    QCOW2_KEY_UNUSED,   /* no guest data is read or written */
    QCOW2_KEY_OPTIONAL, /* requests fail without */
    QCOW2_KEY_REQUIRED,
} Qcow2KeyNeed;

/** qcow2_crypto_open() - what the header says of encryption; unlock by the secret that the options name
 * Sets s->crypto if the image is encrypted. EINVAL, ENOKEY, EACCES. */
bool coroutine_fn qcow2_crypto_open(BlockDriverState *bs, const BdrvOptions *options, int64_t file_length,
                                    Qcow2KeyNeed need, GError **errp);
void qcow2_crypto_close(BlockDriverState *bs);

/** qcow2_crypto_open_again() - the header was read once more, and @crypto is what it was before
 * Sets s->crypto to it, with the key, if the image is encrypted as it was. ENOTSUP, EKEYREJECTED: it is not; EINVAL. */
bool coroutine_fn qcow2_crypto_open_again(BlockDriverState *bs, Qcow2Crypto *crypto, int64_t file_length, GError **errp);

/** qcow2_crypto_reopen() - what the options that a reopened image gets say; @fresh: for bdrv_key_replace() */
bool coroutine_fn qcow2_crypto_reopen(BlockDriverState *bs, const BdrvOptions *options, BdrvKey *fresh, GError **errp);

/** qcow2_set_key() - the driver's callback */
bool coroutine_fn qcow2_set_key(BlockDriverState *bs, const uint8_t *key, size_t bytes, GError **errp);

/** qcow2_crypto_amend() - add a key to an image encrypted by LUKS, or erase some; drained */
bool coroutine_fn qcow2_crypto_amend(BlockDriverState *bs, const BdrvLuksAmend *amend, bool force, GError **errp);

/** qcow2_crypto_create() - write the encryption header of a new image at @offset; the place reads as zeroes */
bool coroutine_fn qcow2_crypto_create(BdrvChild *file, uint64_t offset, const BdrvLuksCreate *create, const char *secret,
                                      GError **errp);

int coroutine_fn qcow2_read_encrypted(BlockDriverState *bs, uint64_t guest_offset, uint64_t host_offset, uint64_t bytes,
                                      const BdrvIov *iov, size_t iov_offset);
int coroutine_fn qcow2_write_encrypted(BlockDriverState *bs, uint64_t guest_offset, uint64_t host_offset, uint64_t bytes,
                                       const BdrvIov *iov, size_t iov_offset);

/** qcow2_read_data() - guest data from where it lies. With encryption all are multiples of 512; -ENOKEY while locked */
static inline int coroutine_fn qcow2_read_data(BlockDriverState *bs, uint64_t guest_offset, uint64_t host_offset,
                                               uint64_t bytes, const BdrvIov *iov, size_t iov_offset)
{
    if (G_UNLIKELY(qcow2_state(bs)->crypto)) {
        return qcow2_read_encrypted(bs, guest_offset, host_offset, bytes, iov, iov_offset);
    }
    return bdrv_co_preadv(qcow2_data_child(bs), (int64_t)host_offset, (int64_t)bytes, iov, iov_offset, 0);
}

/** qcow2_write_data() - and to there */
static inline int coroutine_fn qcow2_write_data(BlockDriverState *bs, uint64_t guest_offset, uint64_t host_offset,
                                                uint64_t bytes, const BdrvIov *iov, size_t iov_offset)
{
    if (G_UNLIKELY(qcow2_state(bs)->crypto)) {
        return qcow2_write_encrypted(bs, guest_offset, host_offset, bytes, iov, iov_offset);
    }
    return bdrv_co_pwritev(qcow2_data_child(bs), (int64_t)host_offset, (int64_t)bytes, iov, iov_offset, 0);
}

#endif
