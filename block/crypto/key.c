/* SPDX-License-Identifier: MIT */
#include "block/crypto/key.h"

bool coroutine_fn bdrv_key_open(BdrvKey *key, BlockDriverState *bs, BdrvKeyOpen *open, const char *id, GError **errp)
{
    GBytes *secret = bdrv_passphrase_get(bs->graph, id, errp);

    if (!secret) {
        return false;
    }
    key->volume = open(bs, bdrv_passphrase_of(secret), errp);
    key->secret = key->volume ? g_strdup(id) : NULL;
    g_bytes_unref(secret);
    return key->volume != NULL;
}

bool coroutine_fn bdrv_key_set(BdrvKey *key, BlockDriverState *bs, BdrvKeyOpen *open, BdrvPassphrase passphrase,
                               GError **errp)
{
    BdrvVolume *volume = open(bs, passphrase, errp);

    if (volume) {
        bdrv_volume_free(key->volume);
        key->volume = volume;
    }
    return volume != NULL;
}

bool coroutine_fn bdrv_key_reopen(const BdrvKey *key, BdrvKey *fresh, BlockDriverState *bs, BdrvKeyOpen *open,
                                  const char *id, GError **errp)
{
    bool same = !id || (key->volume && g_strcmp0(id, key->secret) == 0);

    *fresh = (BdrvKey){ 0 };
    return same || bdrv_key_open(fresh, bs, open, id, errp);
}

void bdrv_key_replace(BdrvKey *key, BdrvKey *fresh)
{
    if (fresh->volume) {
        bdrv_key_clear(key);
        *key = *fresh;
        *fresh = (BdrvKey){ 0 };
    }
}

void bdrv_key_clear(BdrvKey *key)
{
    bdrv_volume_free(key->volume);
    g_free(key->secret);
    *key = (BdrvKey){ 0 };
}
