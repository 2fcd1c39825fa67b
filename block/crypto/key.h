/* SPDX-License-Identifier: MIT */
#ifndef BDRV_CRYPTO_KEY_H
#define BDRV_CRYPTO_KEY_H

/* What an image is unlocked with: the drivers' state of encryption that is alike in all of them. */

#include "block/crypto/passphrase.h"
#include "block/crypto/volume.h"

typedef struct BdrvKey {
    BdrvVolume *volume; /* NULL: locked, guest data cannot be read or written */
    char *secret;       /* ID of the secret that unlocked it, NULL: none */
} BdrvKey;

/** BdrvKeyOpen - the driver's: the volume that the passphrase opens, NULL with @errp set; EACCES */
typedef BdrvVolume *BdrvKeyOpen(BlockDriverState *bs, BdrvPassphrase passphrase, GError **errp);

/** bdrv_key_open() - unlock by the secret @id; @key is empty */
bool coroutine_fn bdrv_key_open(BdrvKey *key, BlockDriverState *bs, BdrvKeyOpen *open, const char *id, GError **errp);
/** bdrv_key_set() - unlock by a passphrase that has no ID; on failure @key is as it was */
bool coroutine_fn bdrv_key_set(BdrvKey *key, BlockDriverState *bs, BdrvKeyOpen *open, BdrvPassphrase passphrase,
                               GError **errp);
/** bdrv_key_reopen() - the secret that options name now, if it is another one than @key's (NULL: none is named)
 * @fresh: what it opens; empty if nothing changes */
bool coroutine_fn bdrv_key_reopen(const BdrvKey *key, BdrvKey *fresh, BlockDriverState *bs, BdrvKeyOpen *open,
                                  const char *id, GError **errp);
/** bdrv_key_replace() - @key becomes @fresh, unless that is empty; no request runs */
void bdrv_key_replace(BdrvKey *key, BdrvKey *fresh);
/** bdrv_key_clear() - forget and wipe it */
void bdrv_key_clear(BdrvKey *key);

#endif
