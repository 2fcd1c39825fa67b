/* SPDX-License-Identifier: MIT */
/* Secrets of a graph: passphrases that images are opened and made with, by ID. They are wiped when they go. */

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>

#include "block/graph/graph_int.h"

typedef struct SecretCopy {
    size_t bytes;
    uint8_t data[];
} SecretCopy;

static void wipe(void *opaque)
{
    SecretCopy *copy = opaque;
    OPENSSL_cleanse(copy->data, copy->bytes);
    g_free(copy);
}

bool bdrv_graph_add_secret(BdrvGraph *graph, const char *id, const void *data, size_t bytes, GError **errp)
{
    if (bytes > BDRV_SECRET_MAX_BYTES) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "secret '%s' has %zu bytes; at most %u are possible", id, bytes,
                    BDRV_SECRET_MAX_BYTES);
        return false;
    }
    if (!*id) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "a secret has no id; give one");
        return false;
    }
    SecretCopy *copy = g_malloc(sizeof(*copy) + bytes);
    copy->bytes = bytes;
    memcpy(copy->data, data, bytes);
    GBytes *secret = g_bytes_new_with_free_func(copy->data, bytes, wipe, copy);

    pthread_mutex_lock(&graph->lock);
    bool taken = g_hash_table_contains(graph->secrets, id);
    if (!taken) {
        g_hash_table_insert(graph->secrets, g_strdup(id), g_bytes_ref(secret));
    }
    pthread_mutex_unlock(&graph->lock);
    g_bytes_unref(secret);
    if (taken) {
        g_set_error(errp, BDRV_ERROR, EEXIST, "there is a secret with id '%s' already", id);
    }
    return !taken;
}

static bool no_such(const char *id, GError **errp)
{
    g_set_error(errp, BDRV_ERROR, ENOENT, "No secret with id '%s'", id);
    return false;
}

bool bdrv_graph_remove_secret(BdrvGraph *graph, const char *id, GError **errp)
{
    pthread_mutex_lock(&graph->lock);
    bool removed = g_hash_table_remove(graph->secrets, id);
    pthread_mutex_unlock(&graph->lock);
    return removed || no_such(id, errp);
}

GBytes *bdrv_graph_get_secret(BdrvGraph *graph, const char *id, GError **errp)
{
    pthread_mutex_lock(&graph->lock);
    GBytes *secret = g_hash_table_lookup(graph->secrets, id);
    if (secret) {
        g_bytes_ref(secret);
    }
    pthread_mutex_unlock(&graph->lock);
    if (!secret) {
        no_such(id, errp);
    }
    return secret;
}
