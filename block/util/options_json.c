/* SPDX-License-Identifier: MIT */

/*
 * Option trees from and to JSON.
 *
 * json-glib parses, but it is generous (octal and overflowing numbers, comments, several values in a
 * row, any nesting depth, which its recursion pays in stack). Names of backing files come from images, so
 * the text is first checked by a scanner that accepts JSON only; like qemu-img it takes 'single
 * quotes' as well.
 */
#include "block/util/options_tree.h"

#include <errno.h>
#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>

/* ---- the check before parsing ---- */

typedef struct JsonScan {
    const char *text, *p;
    unsigned depth;
} JsonScan;

static bool scan_error(const JsonScan *scan, const char *what, GError **errp)
{
    g_set_error(errp, BDRV_ERROR, EINVAL, "not valid JSON: %s at character %td", what,
                scan->p - scan->text + 1);
    return false;
}

/* *p is at the opening quote; afterwards behind the closing one. */
static bool scan_string(JsonScan *scan, GError **errp)
{
    char quote = *scan->p++;

    while (*scan->p && *scan->p != quote) {
        if (*scan->p == '\\') {
            scan->p++;
            if (!*scan->p || !strchr("\"'\\/bfnrtu", *scan->p)) {
                return scan_error(scan, "unknown escape", errp);
            }
            if (strncmp(scan->p, "u0000", 5) == 0) {
                return scan_error(scan, "a NUL character in a string", errp);
            }
        }
        scan->p++;
    }
    if (!*scan->p) {
        return scan_error(scan, "a string without end", errp);
    }
    scan->p++;
    return true;
}

static void skip_digits(JsonScan *scan)
{
    while (g_ascii_isdigit(*scan->p)) {
        scan->p++;
    }
}

static bool scan_number(JsonScan *scan, GError **errp)
{
    const char *begin = scan->p;
    const char *digits = begin + (*begin == '-');
    bool whole = true;
    int64_t value;

    scan->p = digits;
    skip_digits(scan);
    if (scan->p == digits || (digits[0] == '0' && scan->p > digits + 1)) {
        return scan_error(scan, "a malformed number", errp);
    }
    if (*scan->p == '.') {
        whole = false;
        scan->p++;
        if (!g_ascii_isdigit(*scan->p)) {
            return scan_error(scan, "a malformed number", errp);
        }
        skip_digits(scan);
    }
    if (*scan->p == 'e' || *scan->p == 'E') {
        whole = false;
        scan->p++;
        scan->p += *scan->p == '+' || *scan->p == '-';
        if (!g_ascii_isdigit(*scan->p)) {
            return scan_error(scan, "a malformed number", errp);
        }
        skip_digits(scan);
    }
    g_autofree char *number = g_strndup(begin, (size_t)(scan->p - begin));
    if (whole && !bdrv_parse_int(number, &value)) {
        return scan_error(scan, "a number outside of 64 bits", errp);
    }
    return true;
}

static bool scan_word(JsonScan *scan, GError **errp)
{
    static const char *const words[] = { "true", "false", "null" };

    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        size_t length = strlen(words[i]);

        if (strncmp(scan->p, words[i], length) == 0 && !g_ascii_isalnum(scan->p[length])) {
            scan->p += length;
            return true;
        }
    }
    return scan_error(scan, "an unexpected character", errp);
}

static bool scan_token(JsonScan *scan, GError **errp)
{
    switch (*scan->p) {
    case '{':
    case '[':
        if (++scan->depth > BDRV_OPTIONS_MAX_DEPTH) {
            return scan_error(scan, "nesting of more than 64 levels", errp);
        }
        scan->p++;
        return true;
    case '}':
    case ']':
        if (scan->depth-- == 0) {
            return scan_error(scan, "a bracket that was not opened", errp);
        }
        scan->p++;
        return true;
    case ',':
    case ':':
        scan->p++;
        return true;
    case '"':
    case '\'':
        return scan_string(scan, errp);
    default:
        return g_ascii_isdigit(*scan->p) || *scan->p == '-' ? scan_number(scan, errp) : scan_word(scan, errp);
    }
}

static bool scan_json(const char *text, GError **errp)
{
    JsonScan scan = { .text = text, .p = text };

    while (g_ascii_isspace(*scan.p)) {
        scan.p++;
    }
    if (*scan.p != '{') {
        return scan_error(&scan, "an object, starting with '{', expected", errp);
    }
    while (*scan.p) {
        if (!g_ascii_isspace(*scan.p) && !scan_token(&scan, errp)) {
            return false;
        }
        while (g_ascii_isspace(*scan.p)) {
            scan.p++;
        }
        if (scan.depth == 0 && *scan.p) {
            return scan_error(&scan, "text behind the object", errp);
        }
    }
    return scan.depth == 0 || scan_error(&scan, "the end before all brackets are closed", errp);
}

/* ---- parsed JSON to leaves ---- */

typedef struct JsonLoad {
    GHashTable *members; /* JsonObject -> members seen */
    char *duplicate;
} JsonLoad;

/* json-glib keeps the last of two equal keys; the object then has fewer members than were announced. */
static void on_member(JsonParser *parser, JsonObject *object, const char *name, void *opaque)
{
    JsonLoad *load = opaque;
    unsigned seen = GPOINTER_TO_UINT(g_hash_table_lookup(load->members, object)) + 1;

    g_hash_table_insert(load->members, object, GUINT_TO_POINTER(seen));
    if (seen > json_object_get_size(object) && !load->duplicate) {
        load->duplicate = g_strdup(name);
    }
}

static void add_node(BdrvOptions *options, const char *key, JsonNode *node);

static void add_object(BdrvOptions *options, const char *prefix, JsonObject *object)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *node;

    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &name, &node)) {
        g_autofree char *key = prefix ? g_strdup_printf("%s.%s", prefix, name) : g_strdup(name);
        add_node(options, key, node);
    }
}

static void add_array(BdrvOptions *options, const char *prefix, JsonArray *array)
{
    for (unsigned i = 0; i < json_array_get_length(array); i++) {
        g_autofree char *key = g_strdup_printf("%s.%u", prefix, i);
        add_node(options, key, json_array_get_element(array, i));
    }
}

static void add_value(BdrvOptions *options, const char *key, JsonNode *node)
{
    switch (json_node_get_value_type(node)) {
    case G_TYPE_BOOLEAN:
        bdrv_options_set_bool(options, key, json_node_get_boolean(node));
        break;
    case G_TYPE_INT64:
        bdrv_options_set_int(options, key, json_node_get_int(node));
        break;
    case G_TYPE_DOUBLE:
        bdrv_options_set_double(options, key, json_node_get_double(node));
        break;
    default:
        bdrv_options_set_string(options, key, json_node_get_string(node));
        break;
    }
}

static void add_node(BdrvOptions *options, const char *key, JsonNode *node)
{
    switch (json_node_get_node_type(node)) {
    case JSON_NODE_OBJECT:
        if (json_object_get_size(json_node_get_object(node)) == 0) {
            bdrv_options_set_empty(options, key, BDRV_OPTION_DICT);
        }
        add_object(options, key, json_node_get_object(node));
        break;
    case JSON_NODE_ARRAY:
        if (json_array_get_length(json_node_get_array(node)) == 0) {
            bdrv_options_set_empty(options, key, BDRV_OPTION_LIST);
        }
        add_array(options, key, json_node_get_array(node));
        break;
    case JSON_NODE_VALUE:
        add_value(options, key, node);
        break;
    case JSON_NODE_NULL:
        bdrv_options_set_null(options, key);
        break;
    }
}

static bool load_json(JsonParser *parser, const char *text, GError **errp)
{
    g_autoptr(GHashTable) members = g_hash_table_new(NULL, NULL);
    JsonLoad load = { .members = members };
    GError *error = NULL;
    bool ok = true;

    g_signal_connect(parser, "object-member", G_CALLBACK(on_member), &load);
    if (!json_parser_load_from_data(parser, text, -1, &error)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "not valid JSON: %s", error->message);
        g_error_free(error);
        ok = false;
    } else if (load.duplicate) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "not valid JSON: key '%s' appears twice in an object",
                    load.duplicate);
        ok = false;
    }
    g_free(load.duplicate);
    return ok;
}

BdrvOptions *bdrv_options_parse_json(const char *text, GError **errp)
{
    g_autoptr(JsonParser) parser = NULL;
    BdrvOptions *options;

    if (!g_utf8_validate(text, -1, NULL)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "not valid JSON: the text is not UTF-8");
        return NULL;
    }
    if (!scan_json(text, errp)) {
        return NULL;
    }
    parser = json_parser_new();
    if (!load_json(parser, text, errp)) {
        return NULL;
    }
    options = bdrv_options_new();
    add_object(options, NULL, json_node_get_object(json_parser_get_root(parser)));
    return options;
}

/* ---- leaves to JSON ---- */

static void append_string(GString *out, const char *text)
{
    g_string_append_c(out, '"');
    while (*text) {
        gunichar c = g_utf8_get_char_validated(text, -1);

        if (c == (gunichar)-1 || c == (gunichar)-2) {
            g_string_append(out, "\\uFFFD"); /* a file name may be any bytes, JSON may not */
            text++;
            continue;
        }
        switch (c) {
        case '"':
        case '\\':
            g_string_append_printf(out, "\\%c", (int)c);
            break;
        case '\b':
            g_string_append(out, "\\b");
            break;
        case '\f':
            g_string_append(out, "\\f");
            break;
        case '\n':
            g_string_append(out, "\\n");
            break;
        case '\r':
            g_string_append(out, "\\r");
            break;
        case '\t':
            g_string_append(out, "\\t");
            break;
        default:
            if (c > 0xffff) {
                g_string_append_printf(out, "\\u%04X\\u%04X", 0xd800 + ((c - 0x10000) >> 10),
                                       0xdc00 + ((c - 0x10000) & 0x3ff));
            } else if (c < 0x20 || c >= 0x7f) {
                g_string_append_printf(out, "\\u%04X", c);
            } else {
                g_string_append_c(out, (char)c);
            }
        }
        text = g_utf8_next_char(text);
    }
    g_string_append_c(out, '"');
}

void bdrv_option_json_value(GString *out, const OptionLeaf *leaf)
{
    g_autofree char *text = NULL;

    if (leaf->type == BDRV_OPTION_STRING) {
        append_string(out, leaf->value.string);
    } else if (leaf->type == BDRV_OPTION_DOUBLE && !isfinite(leaf->value.number)) {
        g_string_append(out, "null");
    } else {
        text = bdrv_option_text(leaf);
        g_string_append(out, text);
    }
}

/* An inner node or a leaf of the tree that the dotted keys spell. */
typedef struct TreeNode {
    char *name;
    const OptionLeaf *leaf; /* NULL: an inner node */
    GPtrArray *children;    /* TreeNode *, owned; NULL: none */
    GHashTable *by_name;    /* of @children */
} TreeNode;

static void tree_free(void *data)
{
    TreeNode *node = data;

    if (node->children) {
        g_ptr_array_free(node->children, true);
        g_hash_table_destroy(node->by_name);
    }
    g_free(node->name);
    g_free(node);
}

static TreeNode *tree_child(TreeNode *node, const char *name)
{
    TreeNode *child;

    if (!node->children) {
        node->children = g_ptr_array_new_with_free_func(tree_free);
        node->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    }
    child = g_hash_table_lookup(node->by_name, name);
    if (!child) {
        child = g_new0(TreeNode, 1);
        child->name = g_strdup(name);
        g_ptr_array_add(node->children, child);
        g_hash_table_insert(node->by_name, child->name, child);
    }
    return child;
}

static TreeNode *tree_new(const BdrvOptions *options)
{
    TreeNode *root = g_new0(TreeNode, 1);

    for (unsigned i = 0; i < options->leaves->len; i++) {
        const OptionLeaf *leaf = options->leaves->pdata[i];
        /* deeper than any parser accepts: the rest stays one dotted key, so that recursion is bounded */
        g_auto(GStrv) parts = g_strsplit(leaf->key, ".", BDRV_OPTIONS_MAX_DEPTH);
        TreeNode *node = root;

        if (!parts[0]) {
            node = tree_child(node, ""); /* the empty key has no parts */
        }
        for (unsigned j = 0; parts[j]; j++) {
            node = tree_child(node, parts[j]);
        }
        node->leaf = leaf;
    }
    return root;
}

/* Children named 0, 1, 2 … make a list. */
static bool is_list(const TreeNode *node)
{
    for (unsigned i = 0; i < node->children->len; i++) {
        const TreeNode *child = node->children->pdata[i];
        char expected[16];

        g_snprintf(expected, sizeof(expected), "%u", i);
        if (strcmp(child->name, expected) != 0) {
            return false;
        }
    }
    return true;
}

static void append_tree(GString *out, const TreeNode *node, bool pretty, unsigned level)
{
    bool list;

    if (node->leaf) {
        bdrv_option_json_value(out, node->leaf);
        if (pretty && (node->leaf->type == BDRV_OPTION_LIST || node->leaf->type == BDRV_OPTION_DICT)) {
            g_autofree char *margin = g_strdup_printf("\n%*s", (int)level * 4, ""); /* between the two brackets */
            g_string_insert(out, (gssize)out->len - 1, margin);
        }
        return;
    }
    list = node->children && level > 0 && is_list(node);
    g_string_append_c(out, list ? '[' : '{');
    for (unsigned i = 0; node->children && i < node->children->len; i++) {
        const TreeNode *child = node->children->pdata[i];

        if (i > 0) {
            g_string_append(out, pretty ? "," : ", ");
        }
        if (pretty) {
            g_string_append_printf(out, "\n%*s", (int)(level + 1) * 4, "");
        }
        if (!list) {
            append_string(out, child->name);
            g_string_append(out, ": ");
        }
        append_tree(out, child, pretty, level + 1);
    }
    if (pretty) {
        g_string_append_printf(out, "\n%*s", (int)level * 4, "");
    }
    g_string_append_c(out, list ? ']' : '}');
}

char *bdrv_options_to_json(const BdrvOptions *options, bool pretty)
{
    GString *out = g_string_new(NULL);
    TreeNode *root = tree_new(options);

    append_tree(out, root, pretty, 0);
    tree_free(root);
    return g_string_free(out, false);
}

void bdrv_options_append_flat_json(GString *out, const BdrvOptions *options)
{
    for (unsigned i = 0; i < options->leaves->len; i++) {
        const OptionLeaf *leaf = options->leaves->pdata[i];

        g_string_append(out, i > 0 ? ", " : "");
        append_string(out, leaf->key);
        g_string_append(out, ": ");
        bdrv_option_json_value(out, leaf);
    }
}
