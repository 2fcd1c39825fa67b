/* SPDX-License-Identifier: MIT */
/*
 * --object secret,id=ID,data=TEXT|file=PATH[,format=raw|base64][,keyid=ID,iv=BASE64]
 *
 * With keyid the data is encrypted (AES-256-CBC, PKCS#7 padding) by the secret of that ID.
 */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

#include "tools/common/tool.h"

#define MASTER_KEY_BYTES 32
#define IV_BYTES 16

typedef struct Secret {
    char *id;
    uint8_t *data;
    size_t bytes;
} Secret;

/* In order of the command line. They live as long as the process. */
static GPtrArray *secrets;

static const BdrvOptionSpec secret_options[] = {
    { "qom-type", BDRV_OPTION_STRING, "Type of the object", NULL, NULL },
    { "id", BDRV_OPTION_STRING, "ID of the secret", NULL, NULL },
    { "data", BDRV_OPTION_STRING, "The secret itself", NULL, NULL },
    { "file", BDRV_OPTION_STRING, "Name of a file that holds it", NULL, NULL },
    { "format", BDRV_OPTION_STRING, "How it is written: raw or base64", "raw",
      (const char *const[]){ "raw", "base64", NULL } },
    { "keyid", BDRV_OPTION_STRING, "ID of the secret that it is encrypted with", NULL, NULL },
    { "iv", BDRV_OPTION_STRING, "Initialization vector of that, in base64", NULL, NULL },
    { NULL },
};

static bool refuse(GError **errp, const char *format, ...) G_GNUC_PRINTF(2, 3);
static bool refuse(GError **errp, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *message = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error_literal(errp, BDRV_ERROR, EINVAL, message);
    return false;
}

static const Secret *find_secret(const char *id)
{
    for (unsigned i = 0; secrets && i < secrets->len; i++) {
        const Secret *secret = g_ptr_array_index(secrets, i);
        if (strcmp(secret->id, id) == 0) {
            return secret;
        }
    }
    return NULL;
}

/* A letter, then letters, digits, '-', '.' and '_'. */
static bool is_identifier(const char *text)
{
    return g_ascii_isalpha(*text) && strspn(text, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "-._") == strlen(text);
}

/* Whole and valid: g_base64_decode() itself takes anything. */
static bool decode_base64(const char *text, size_t length, uint8_t **data, size_t *bytes, GError **errp)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/= \t\r\n";
    g_autofree char *copy = g_strndup(text, length);

    if (strlen(copy) != length || strspn(copy, alphabet) != length) {
        return refuse(errp, "the base64 data of a secret has characters that are none of base64");
    }
    *data = g_base64_decode(copy, bytes);
    OPENSSL_cleanse(copy, length);
    return true;
}

static bool read_source(const BdrvOptions *options, uint8_t **data, size_t *bytes, GError **errp)
{
    const char *text = bdrv_options_get_string(options, "data", NULL);
    const char *file = bdrv_options_get_string(options, "file", NULL);

    if (text && file) {
        return refuse(errp, "'file' and 'data' are mutually exclusive");
    }
    if (!text && !file) {
        return refuse(errp, "Must provide 'file' or 'data'");
    }
    if (file) {
        return g_file_get_contents(file, (char **)data, bytes, errp);
    }
    *bytes = strlen(text);
    *data = g_memdup2(text, *bytes + 1);
    return true;
}

static bool decrypt(const BdrvOptions *options, const char *key_id, uint8_t **data, size_t *bytes, GError **errp)
{
    const char *iv_text = bdrv_options_get_string(options, "iv", NULL);
    const Secret *key = find_secret(key_id);
    g_autofree uint8_t *iv = NULL;
    size_t iv_bytes;
    int out_bytes = 0, last_bytes = 0;

    if (!key) {
        return refuse(errp, "No secret with id '%s'", key_id);
    }
    if (key->bytes != MASTER_KEY_BYTES) {
        return refuse(errp, "Key should be %d bytes in length, '%s' has %zu", MASTER_KEY_BYTES, key_id, key->bytes);
    }
    if (!iv_text) {
        return refuse(errp, "IV is required to decrypt secret");
    }
    if (!decode_base64(iv_text, strlen(iv_text), &iv, &iv_bytes, errp)) {
        return false;
    }
    if (iv_bytes != IV_BYTES) {
        return refuse(errp, "IV should be %d bytes in length not %zu", IV_BYTES, iv_bytes);
    }
    uint8_t *out = g_malloc(*bytes + EVP_MAX_BLOCK_LENGTH);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool done = ctx && *bytes <= BDRV_SECRET_MAX_BYTES &&
                EVP_DecryptInit_ex(ctx, EVP_aes_256_cbc(), NULL, key->data, iv) &&
                EVP_DecryptUpdate(ctx, out, &out_bytes, *data, (int)*bytes) &&
                EVP_DecryptFinal_ex(ctx, out + out_bytes, &last_bytes);
    EVP_CIPHER_CTX_free(ctx);
    g_free(*data);
    *data = out;
    *bytes = (size_t)(out_bytes + last_bytes);
    return done || refuse(errp, "the data cannot be decrypted by the secret '%s'", key_id);
}

static bool decode_secret(const BdrvOptions *options, Secret *secret, GError **errp)
{
    const char *format = bdrv_options_get_string(options, "format", "raw");
    const char *key_id = bdrv_options_get_string(options, "keyid", NULL);

    if (!read_source(options, &secret->data, &secret->bytes, errp)) {
        return false;
    }
    /* What is encrypted is written in base64 always; the format then tells of what comes out. */
    if (key_id || strcmp(format, "base64") == 0) {
        g_autofree uint8_t *text = g_steal_pointer(&secret->data);
        if (!decode_base64((char *)text, secret->bytes, &secret->data, &secret->bytes, errp)) {
            return false;
        }
    }
    if (key_id && !decrypt(options, key_id, &secret->data, &secret->bytes, errp)) {
        return false;
    }
    if (secret->bytes > BDRV_SECRET_MAX_BYTES) {
        return refuse(errp, "a secret of %zu bytes is too long; at most %u are possible", secret->bytes,
                      BDRV_SECRET_MAX_BYTES);
    }
    return true;
}

static void free_secret(void *opaque)
{
    Secret *secret = opaque;
    if (secret->data) {
        OPENSSL_cleanse(secret->data, secret->bytes);
    }
    g_free(secret->data);
    g_free(secret->id);
    g_free(secret);
}

static bool add_object(const char *text, GError **errp)
{
    const BdrvOptionSpec *const tables[] = { secret_options, NULL };
    g_autoptr(BdrvOptions) options =
        *text == '{' ? bdrv_options_parse_json(text, errp) : bdrv_options_parse(text, "qom-type", errp);

    if (!options) {
        return false;
    }
    const char *type = bdrv_options_get_string(options, "qom-type", "");
    const char *id = bdrv_options_get_string(options, "id", NULL);
    if (strcmp(type, "secret") != 0) {
        return refuse(errp, "objects of type '%s' are not supported; 'secret' is", type);
    }
    if (!bdrv_options_validate(options, tables, "object 'secret'", errp)) {
        return false;
    }
    if (!id) {
        return refuse(errp, "Parameter 'id' is missing");
    }
    if (!is_identifier(id)) {
        return refuse(errp, "id '%s' must start with a letter, and consist of letters, digits, '-', '.' and '_'", id);
    }
    if (find_secret(id)) {
        return refuse(errp, "there is an object with id '%s' already", id);
    }
    Secret *secret = g_new0(Secret, 1);
    secret->id = g_strdup(id);
    if (!decode_secret(options, secret, errp)) {
        free_secret(secret);
        return false;
    }
    if (!secrets) {
        secrets = g_ptr_array_new_with_free_func(free_secret);
    }
    g_ptr_array_add(secrets, secret);
    return true;
}

bool tool_add_object(const char *text)
{
    GError *error = NULL;

    if (!add_object(text, &error)) {
        tool_report("--object", error);
        return false;
    }
    return true;
}

bool tool_has_object(const char *id)
{
    return find_secret(id) != NULL;
}

void tool_give_objects(BdrvGraph *graph)
{
    for (unsigned i = 0; secrets && i < secrets->len; i++) {
        const Secret *secret = g_ptr_array_index(secrets, i);
        bdrv_graph_add_secret(graph, secret->id, secret->data, secret->bytes, NULL);
    }
}
