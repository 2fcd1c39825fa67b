/* SPDX-License-Identifier: MIT */
#ifndef BDRV_CRYPTO_PASSPHRASE_H
#define BDRV_CRYPTO_PASSPHRASE_H

#include <bdrv/driver.h>

/* A passphrase, or another key. Not ended by a zero byte. */
typedef struct BdrvPassphrase {
    const uint8_t *data;
    size_t bytes;
} BdrvPassphrase;

/** bdrv_passphrase_get() - the secret @id of @graph, which must be UTF-8 as all passphrases; g_bytes_unref() it */
GBytes *bdrv_passphrase_get(BdrvGraph *graph, const char *id, GError **errp);
BdrvPassphrase bdrv_passphrase_of(GBytes *secret);

#endif
