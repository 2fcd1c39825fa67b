/* SPDX-License-Identifier: MIT */
#ifndef BDRV_OPTIONS_H
#define BDRV_OPTIONS_H

/*
 * Option trees: what a node is opened or an image created with, and what a driver tells of itself.
 *
 * A tree is an ordered list of leaves. A leaf has a dotted key ("file.cache.direct", list elements
 * are numbered "servers.0.host") and a typed value. Three spellings give the same tree:
 *
 *     driver=qcow2,file.driver=file,file.filename=a,,b.img      (a doubled comma is a comma)
 *     json:{"driver": "qcow2", "file": {"driver": "file", "filename": "a,b.img"}}
 *     bdrv_options_set_string(options, "file.filename", "a,b.img")
 *
 * Values keep the type they came with; a driver's BdrvOptionSpec table says which type it wants and
 * bdrv_options_validate() converts ("64k" -> 65536, "on" -> true) and refuses what is unknown, by name.
 */

#include <bdrv/error.h>
#include <stdbool.h>
#include <stdint.h>

G_BEGIN_DECLS

/* A tree of options; opaque. */
typedef struct BdrvOptions BdrvOptions;

/* What a value is. */
typedef enum BdrvOptionType {
    BDRV_OPTION_STRING,
    BDRV_OPTION_BOOL,   /* on/off, true/false, yes/no */
    BDRV_OPTION_INT,    /* int64_t, decimal or 0x hexadecimal */
    BDRV_OPTION_SIZE,   /* bytes, 0 .. INT64_MAX, suffixes b k M G T P E (powers of 1024), fraction allowed */
    BDRV_OPTION_DOUBLE, /* only as a value that came from JSON, or set */
    BDRV_OPTION_NULL,   /* JSON null: "there is none", as in backing=null */
    BDRV_OPTION_DICT,   /* an empty dictionary or list; inner nodes with leaves have no value of their own */
    BDRV_OPTION_LIST,
} BdrvOptionType;

/* One option a driver takes. Tables end with an element whose name is NULL. */
typedef struct BdrvOptionSpec {
    const char *name; /* dotted key relative to the node */
    BdrvOptionType type; /* LIST, DICT: all keys below belong to it, and are the driver's to check */
    const char *help;         /* one line, starts with a capital, no full stop */
    const char *default_text; /* as a user would type it; NULL: none */
    const char *const *choices; /* NULL-terminated; for STRING: the values allowed, NULL: any */
    uint64_t reserved;
} BdrvOptionSpec;

/** bdrv_options_new() - an empty tree */
BDRV_API BdrvOptions *bdrv_options_new(void);
BDRV_API BdrvOptions *bdrv_options_copy(const BdrvOptions *options); /* NULL gives an empty tree */
BDRV_API void bdrv_options_free(BdrvOptions *options);                /* NULL is allowed */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BdrvOptions, bdrv_options_free)

/**
 * bdrv_options_parse() - "key=value,key=value" to a tree
 * @text: the text; ",," is a comma inside a value; "key" alone is "key=on", "nokey" is not special
 * @first_key: key that a first element without '=' belongs to, or NULL
 *
 * Returns: a new tree, or NULL with @errp set (EINVAL) naming the element that is wrong.
 */
BDRV_API BdrvOptions *bdrv_options_parse(const char *text, const char *first_key, GError **errp);

/** bdrv_options_parse_json() - JSON object to a tree; nesting is bounded (64). EINVAL names the place. */
BDRV_API BdrvOptions *bdrv_options_parse_json(const char *text, GError **errp);

/** bdrv_options_to_json() - the tree as JSON text, 4 spaces a level if @pretty; caller frees */
BDRV_API char *bdrv_options_to_json(const BdrvOptions *options, bool pretty);

/* Setting replaces an earlier value of the key and keeps its place in the order. */
BDRV_API void bdrv_options_set_string(BdrvOptions *options, const char *key, const char *value);
BDRV_API void bdrv_options_set_bool(BdrvOptions *options, const char *key, bool value);
BDRV_API void bdrv_options_set_int(BdrvOptions *options, const char *key, int64_t value);
BDRV_API void bdrv_options_set_double(BdrvOptions *options, const char *key, double value);
BDRV_API void bdrv_options_set_null(BdrvOptions *options, const char *key);
BDRV_API void bdrv_options_set_empty(BdrvOptions *options, const char *key, BdrvOptionType dict_or_list);

/* Get functions answer the default if the key is absent; after validation types are as in the spec. */
BDRV_API bool bdrv_options_has(const BdrvOptions *options, const char *key);
BDRV_API bool bdrv_options_is_null(const BdrvOptions *options, const char *key);
BDRV_API const char *bdrv_options_get_string(const BdrvOptions *options, const char *key, const char *fallback);
BDRV_API bool bdrv_options_get_bool(const BdrvOptions *options, const char *key, bool fallback);
BDRV_API int64_t bdrv_options_get_int(const BdrvOptions *options, const char *key, int64_t fallback);

/** bdrv_options_remove() - forget @key; returns whether it was there */
BDRV_API bool bdrv_options_remove(BdrvOptions *options, const char *key);

/** bdrv_options_merge() - set every leaf of @from in @into under "@prefix." (NULL: at the top) */
BDRV_API void bdrv_options_merge(BdrvOptions *into, const char *prefix, const BdrvOptions *from);

/** bdrv_options_take_subtree() - remove all "@prefix.…" leaves and return them as a tree without the prefix */
BDRV_API BdrvOptions *bdrv_options_take_subtree(BdrvOptions *options, const char *prefix);

/** bdrv_options_count() - how many leaves there are */
BDRV_API unsigned bdrv_options_count(const BdrvOptions *options);
/** bdrv_options_nth() - key, type and value as text (caller frees @text; any out may be NULL) of a leaf */
BDRV_API void bdrv_options_nth(const BdrvOptions *options, unsigned n, const char **key, BdrvOptionType *type,
                               char **text);

/**
 * bdrv_options_validate() - convert the leaves that @specs names to their types
 * @options: tree, changed in place
 * @specs: tables, a NULL-terminated array
 * @what: whose options these are, for messages: "driver 'qcow2'"
 *
 * Fails with EINVAL on a value that does not convert or is no choice, and on a key no table has.
 */
BDRV_API bool bdrv_options_validate(BdrvOptions *options, const BdrvOptionSpec *const *specs, const char *what,
                                    GError **errp);

/**
 * bdrv_parse_size() - "4k", "1.5G", "512", "0x200" to bytes
 * Returns: true and *@bytes; false with EINVAL (not a size) or ERANGE (more than INT64_MAX).
 */
BDRV_API bool bdrv_parse_size(const char *text, int64_t *bytes, GError **errp);

/** bdrv_format_size() - "512 B", "64 KiB", "1.5 GiB" as qemu-img prints sizes; caller frees */
BDRV_API char *bdrv_format_size(int64_t bytes);

G_END_DECLS
#endif
