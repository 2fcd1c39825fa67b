/* SPDX-License-Identifier: MIT */

/* The option tree: an ordered list of typed leaves with dotted keys. */
#include "block/util/options_tree.h"

#include <string.h>

static void leaf_clear(OptionLeaf *leaf)
{
    if (leaf->type == BDRV_OPTION_STRING) {
        g_free(leaf->value.string);
    }
}

static void leaf_free(void *data)
{
    OptionLeaf *leaf = data;

    leaf_clear(leaf);
    g_free(leaf->key);
    g_free(leaf);
}

BdrvOptions *bdrv_options_new(void)
{
    BdrvOptions *options = g_new0(BdrvOptions, 1);

    options->leaves = g_ptr_array_new_with_free_func(leaf_free);
    options->index = g_hash_table_new(g_str_hash, g_str_equal);
    return options;
}

BdrvOptions *bdrv_options_copy(const BdrvOptions *options)
{
    BdrvOptions *copy = bdrv_options_new();

    if (options) {
        bdrv_options_merge(copy, NULL, options);
    }
    return copy;
}

void bdrv_options_free(BdrvOptions *options)
{
    if (options) {
        g_hash_table_destroy(options->index);
        g_ptr_array_free(options->leaves, true);
        g_free(options);
    }
}

const OptionLeaf *bdrv_options_find(const BdrvOptions *options, const char *key)
{
    return options ? g_hash_table_lookup(options->index, key) : NULL;
}

/* The leaf of @key, made if it is new, its old value dropped; the caller sets type and value. */
static OptionLeaf *leaf_for(BdrvOptions *options, const char *key)
{
    OptionLeaf *leaf = g_hash_table_lookup(options->index, key);

    if (leaf) {
        leaf_clear(leaf);
    } else {
        leaf = g_new0(OptionLeaf, 1);
        leaf->key = g_strdup(key);
        g_ptr_array_add(options->leaves, leaf);
        g_hash_table_insert(options->index, leaf->key, leaf);
    }
    leaf->type = BDRV_OPTION_NULL;
    return leaf;
}

void bdrv_options_set_string(BdrvOptions *options, const char *key, const char *value)
{
    char *copy = g_strdup(value); /* first: @value may be what is replaced */
    OptionLeaf *leaf = leaf_for(options, key);

    leaf->type = BDRV_OPTION_STRING;
    leaf->value.string = copy;
}

void bdrv_options_set_bool(BdrvOptions *options, const char *key, bool value)
{
    OptionLeaf *leaf = leaf_for(options, key);

    leaf->type = BDRV_OPTION_BOOL;
    leaf->value.boolean = value;
}

void bdrv_options_set_int(BdrvOptions *options, const char *key, int64_t value)
{
    OptionLeaf *leaf = leaf_for(options, key);

    leaf->type = BDRV_OPTION_INT;
    leaf->value.integer = value;
}

void bdrv_options_set_double(BdrvOptions *options, const char *key, double value)
{
    OptionLeaf *leaf = leaf_for(options, key);

    leaf->type = BDRV_OPTION_DOUBLE;
    leaf->value.number = value;
}

void bdrv_options_set_null(BdrvOptions *options, const char *key)
{
    leaf_for(options, key);
}

void bdrv_options_set_empty(BdrvOptions *options, const char *key, BdrvOptionType dict_or_list)
{
    leaf_for(options, key)->type = dict_or_list;
}

bool bdrv_options_has(const BdrvOptions *options, const char *key)
{
    return bdrv_options_find(options, key) != NULL;
}

bool bdrv_options_is_null(const BdrvOptions *options, const char *key)
{
    const OptionLeaf *leaf = bdrv_options_find(options, key);

    return leaf && leaf->type == BDRV_OPTION_NULL;
}

const char *bdrv_options_get_string(const BdrvOptions *options, const char *key, const char *fallback)
{
    const OptionLeaf *leaf = bdrv_options_find(options, key);

    return leaf && leaf->type == BDRV_OPTION_STRING ? leaf->value.string : fallback;
}

bool bdrv_options_get_bool(const BdrvOptions *options, const char *key, bool fallback)
{
    const OptionLeaf *leaf = bdrv_options_find(options, key);
    bool value = fallback;

    if (leaf && leaf->type == BDRV_OPTION_BOOL) {
        value = leaf->value.boolean;
    } else if (leaf && leaf->type == BDRV_OPTION_STRING) {
        bdrv_parse_bool(leaf->value.string, &value);
    }
    return value;
}

int64_t bdrv_options_get_int(const BdrvOptions *options, const char *key, int64_t fallback)
{
    const OptionLeaf *leaf = bdrv_options_find(options, key);
    int64_t value = fallback;

    if (leaf && (leaf->type == BDRV_OPTION_INT || leaf->type == BDRV_OPTION_SIZE)) {
        value = leaf->value.integer;
    } else if (leaf && leaf->type == BDRV_OPTION_STRING && !bdrv_parse_int(leaf->value.string, &value)) {
        bdrv_parse_size(leaf->value.string, &value, NULL);
    }
    return value;
}

bool bdrv_options_remove(BdrvOptions *options, const char *key)
{
    OptionLeaf *leaf = g_hash_table_lookup(options->index, key);

    if (!leaf) {
        return false;
    }
    g_hash_table_remove(options->index, key);
    g_ptr_array_remove(options->leaves, leaf);
    return true;
}

static void copy_value(BdrvOptions *into, const char *key, const OptionLeaf *from)
{
    if (from->type == BDRV_OPTION_STRING) {
        bdrv_options_set_string(into, key, from->value.string);
    } else {
        OptionLeaf *leaf = leaf_for(into, key);

        leaf->type = from->type;
        leaf->value = from->value;
    }
}

bool bdrv_options_copy_leaf(BdrvOptions *into, const char *into_key, const BdrvOptions *from, const char *key)
{
    const OptionLeaf *leaf = bdrv_options_find(from, key);

    if (leaf) {
        copy_value(into, into_key, leaf);
    }
    return leaf != NULL;
}

void bdrv_options_merge(BdrvOptions *into, const char *prefix, const BdrvOptions *from)
{
    for (unsigned i = 0; i < from->leaves->len; i++) {
        const OptionLeaf *leaf = from->leaves->pdata[i];

        if (prefix) {
            g_autofree char *key = g_strdup_printf("%s.%s", prefix, leaf->key);
            copy_value(into, key, leaf);
        } else {
            copy_value(into, leaf->key, leaf);
        }
    }
}

BdrvOptions *bdrv_options_take_subtree(BdrvOptions *options, const char *prefix)
{
    BdrvOptions *taken = bdrv_options_new();
    size_t length = strlen(prefix);
    unsigned kept = 0;

    for (unsigned i = 0; i < options->leaves->len; i++) {
        OptionLeaf *leaf = options->leaves->pdata[i];

        if (strncmp(leaf->key, prefix, length) != 0 || leaf->key[length] != '.') {
            options->leaves->pdata[kept++] = leaf;
            continue;
        }
        g_hash_table_remove(options->index, leaf->key);
        memmove(leaf->key, leaf->key + length + 1, strlen(leaf->key + length + 1) + 1);
        g_ptr_array_add(taken->leaves, leaf);
        g_hash_table_insert(taken->index, leaf->key, leaf);
    }
    /* What lies behind belongs to @taken or has moved up: the array must forget it without freeing. */
    for (unsigned i = kept; i < options->leaves->len; i++) {
        options->leaves->pdata[i] = NULL;
    }
    g_ptr_array_set_free_func(options->leaves, NULL);
    g_ptr_array_set_size(options->leaves, (int)kept);
    g_ptr_array_set_free_func(options->leaves, leaf_free);
    return taken;
}

unsigned bdrv_options_count(const BdrvOptions *options)
{
    return options->leaves->len;
}

void bdrv_options_nth(const BdrvOptions *options, unsigned n, const char **key, BdrvOptionType *type, char **text)
{
    const OptionLeaf *leaf = options->leaves->pdata[n];

    if (key) {
        *key = leaf->key;
    }
    if (type) {
        *type = leaf->type;
    }
    if (text) {
        *text = bdrv_option_text(leaf);
    }
}
