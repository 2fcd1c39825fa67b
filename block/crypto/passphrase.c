/* SPDX-License-Identifier: MIT */
#include "block/crypto/passphrase.h"

#include <errno.h>

GBytes *bdrv_passphrase_get(BdrvGraph *graph, const char *id, GError **errp)
{
    GBytes *secret = bdrv_graph_get_secret(graph, id, errp);

    if (!secret) {
        return NULL;
    }
    BdrvPassphrase passphrase = bdrv_passphrase_of(secret);
    if (!g_utf8_validate_len((const char *)passphrase.data, passphrase.bytes, NULL)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "Data from secret %s is not valid UTF-8", id);
        g_bytes_unref(secret);
        return NULL;
    }
    return secret;
}

BdrvPassphrase bdrv_passphrase_of(GBytes *secret)
{
    BdrvPassphrase passphrase;
    passphrase.data = g_bytes_get_data(secret, &passphrase.bytes);
    return passphrase;
}
