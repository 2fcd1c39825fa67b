/* SPDX-License-Identifier: MIT */
#ifndef BDRV_UTIL_OPTIONS_TREE_H
#define BDRV_UTIL_OPTIONS_TREE_H

/* The option tree from inside: options.c keeps it, options_parse.c and options_json.c fill and print it. */

#include <bdrv/options.h>

/* Levels of a tree: dictionaries and lists in each other. More is refused when text is parsed. */
#define BDRV_OPTIONS_MAX_DEPTH 64

typedef struct OptionLeaf {
    char *key;
    BdrvOptionType type;
    union {
        char *string; /* STRING; owned */
        bool boolean;
        int64_t integer; /* INT, SIZE */
        double number;
    } value;
} OptionLeaf;

/* The leaves in the order they were first set, and an index by key. */
struct BdrvOptions {
    GPtrArray *leaves; /* OptionLeaf *, owned */
    GHashTable *index; /* leaf->key -> leaf */
};

/** bdrv_option_covers() - whether @key is the option, or below it if that is a list or a dictionary */
bool bdrv_option_covers(const BdrvOptionSpec *spec, const char *key);

const OptionLeaf *bdrv_options_find(const BdrvOptions *options, const char *key);

/** bdrv_options_append_flat_json() - "a.b": 1, "c": "x", without brackets: dotted keys stay as they are */
void bdrv_options_append_flat_json(GString *out, const BdrvOptions *options);

/** bdrv_options_copy_leaf() - set @into_key to the value, type kept, that @key has in @from; false if it has none */
bool bdrv_options_copy_leaf(BdrvOptions *into, const char *into_key, const BdrvOptions *from, const char *key);

/** bdrv_option_text() - a leaf's value as a user would type it; caller frees */
char *bdrv_option_text(const OptionLeaf *leaf);

/** bdrv_parse_bool() / bdrv_parse_int() - false if @text is none */
bool bdrv_parse_bool(const char *text, bool *value);
bool bdrv_parse_int(const char *text, int64_t *value);

/** bdrv_option_json_value() - append a leaf's value in JSON */
void bdrv_option_json_value(GString *out, const OptionLeaf *leaf);

#endif
