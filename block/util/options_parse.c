/* SPDX-License-Identifier: MIT */

/* Option text: "key=value,…", the values' types, and checking against a driver's table. */
#include "block/util/options_tree.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

bool bdrv_parse_bool(const char *text, bool *value)
{
    static const char *const words[] = { "off", "on", "false", "true", "no", "yes" };

    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        if (strcmp(text, words[i]) == 0) {
            *value = i & 1;
            return true;
        }
    }
    return false;
}

bool bdrv_parse_int(const char *text, int64_t *value)
{
    bool negative = text[0] == '-';
    const char *digits = text + negative;
    bool hex = digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X');
    char *end;
    uint64_t magnitude;

    digits += hex ? 2 : 0;
    if (!(hex ? g_ascii_isxdigit(*digits) : g_ascii_isdigit(*digits))) {
        return false;
    }
    errno = 0;
    magnitude = g_ascii_strtoull(digits, &end, hex ? 16 : 10);
    if (errno || *end || magnitude > (uint64_t)INT64_MAX + negative) {
        return false;
    }
    *value = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return true;
}

char *bdrv_option_text(const OptionLeaf *leaf)
{
    char number[G_ASCII_DTOSTR_BUF_SIZE];

    switch (leaf->type) {
    case BDRV_OPTION_STRING:
        return g_strdup(leaf->value.string);
    case BDRV_OPTION_BOOL:
        return g_strdup(leaf->value.boolean ? "true" : "false");
    case BDRV_OPTION_INT:
    case BDRV_OPTION_SIZE:
        return g_strdup_printf("%" PRId64, leaf->value.integer);
    case BDRV_OPTION_DOUBLE:
        return g_strdup(g_ascii_dtostr(number, sizeof(number), leaf->value.number));
    case BDRV_OPTION_DICT:
        return g_strdup("{}");
    case BDRV_OPTION_LIST:
        return g_strdup("[]");
    case BDRV_OPTION_NULL:
        break;
    }
    return g_strdup("null");
}

/* ---- key=value,key=value ---- */

/* Text up to a single comma, doubled ones halved; *p moves behind it. */
static char *take_element(const char **p)
{
    GString *element = g_string_new(NULL);

    for (; **p; (*p)++) {
        if (**p == ',' && *++*p != ',') {
            break;
        }
        g_string_append_c(element, **p);
    }
    return g_string_free(element, false);
}

static unsigned key_depth(const char *key)
{
    unsigned depth = 1;

    for (; *key; key++) {
        depth += *key == '.';
    }
    return depth;
}

static bool parse_element(BdrvOptions *options, const char *element, const char *first_key, GError **errp)
{
    const char *equals = strchr(element, '=');
    g_autofree char *key = NULL;

    if (!equals && first_key) {
        bdrv_options_set_string(options, first_key, element);
        return true;
    }
    key = equals ? g_strndup(element, (size_t)(equals - element)) : g_strdup(element);
    if (key[0] == '\0' || key[0] == '.' || g_str_has_suffix(key, ".") || strstr(key, "..")) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "option '%s' has an empty key or key part; write key=value",
                    element);
        return false;
    }
    if (key_depth(key) > BDRV_OPTIONS_MAX_DEPTH) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "option '%.40s…' is nested more than %d levels deep", key,
                    BDRV_OPTIONS_MAX_DEPTH);
        return false;
    }
    bdrv_options_set_string(options, key, equals ? equals + 1 : "on");
    return true;
}

BdrvOptions *bdrv_options_parse(const char *text, const char *first_key, GError **errp)
{
    g_autoptr(BdrvOptions) options = bdrv_options_new();

    while (*text) {
        g_autofree char *element = take_element(&text);

        if (!parse_element(options, element, first_key, errp)) {
            return NULL;
        }
        first_key = NULL;
    }
    return g_steal_pointer(&options);
}

/* ---- checking ---- */

bool bdrv_option_covers(const BdrvOptionSpec *spec, const char *key)
{
    size_t length = strlen(spec->name);

    if (strncmp(spec->name, key, length) != 0) {
        return false;
    }
    return !key[length] || (key[length] == '.' && (spec->type == BDRV_OPTION_LIST || spec->type == BDRV_OPTION_DICT));
}

static const BdrvOptionSpec *find_spec(const BdrvOptionSpec *const *specs, const char *key)
{
    for (; *specs; specs++) {
        for (const BdrvOptionSpec *spec = *specs; spec->name; spec++) {
            if (bdrv_option_covers(spec, key)) {
                return spec;
            }
        }
    }
    return NULL;
}

static bool wrong_value(const OptionLeaf *leaf, const char *what, const char *expected, GError **errp)
{
    g_autofree char *text = bdrv_option_text(leaf);

    g_set_error(errp, BDRV_ERROR, EINVAL, "%s: option '%s' expects %s, not '%s'", what, leaf->key, expected, text);
    return false;
}

static bool check_choice(const OptionLeaf *leaf, const BdrvOptionSpec *spec, const char *what, GError **errp)
{
    g_autofree char *list = NULL;
    g_autofree char *expected = NULL;

    if (!spec->choices || g_strv_contains(spec->choices, leaf->value.string)) {
        return true;
    }
    list = g_strjoinv(", ", (char **)spec->choices);
    expected = g_strdup_printf("one of %s", list);
    return wrong_value(leaf, what, expected, errp);
}

static bool to_string(BdrvOptions *options, const OptionLeaf *leaf, const BdrvOptionSpec *spec, const char *what,
                      GError **errp)
{
    g_autofree char *text = NULL;

    switch (leaf->type) {
    case BDRV_OPTION_STRING:
        break;
    case BDRV_OPTION_BOOL: /* JSON true for a choice of on, off and more */
        bdrv_options_set_string(options, leaf->key, leaf->value.boolean ? "on" : "off");
        break;
    case BDRV_OPTION_INT:
    case BDRV_OPTION_SIZE:
        text = bdrv_option_text(leaf);
        bdrv_options_set_string(options, leaf->key, text);
        break;
    default:
        return wrong_value(leaf, what, "a string", errp);
    }
    return check_choice(leaf, spec, what, errp);
}

static bool to_bool(BdrvOptions *options, const OptionLeaf *leaf, const char *what, GError **errp)
{
    bool value;

    if (leaf->type == BDRV_OPTION_BOOL) {
        return true;
    }
    if (leaf->type == BDRV_OPTION_STRING && bdrv_parse_bool(leaf->value.string, &value)) {
        bdrv_options_set_bool(options, leaf->key, value);
        return true;
    }
    return wrong_value(leaf, what, "'on' or 'off'", errp);
}

static bool to_int(BdrvOptions *options, const OptionLeaf *leaf, const char *what, GError **errp)
{
    int64_t value;

    if (leaf->type == BDRV_OPTION_INT || leaf->type == BDRV_OPTION_SIZE) {
        return true;
    }
    if (leaf->type == BDRV_OPTION_STRING && bdrv_parse_int(leaf->value.string, &value)) {
        bdrv_options_set_int(options, leaf->key, value);
        return true;
    }
    return wrong_value(leaf, what, "a whole number", errp);
}

static bool to_size(BdrvOptions *options, OptionLeaf *leaf, const char *what, GError **errp)
{
    GError *error = NULL;
    int64_t value;

    if (leaf->type == BDRV_OPTION_STRING) {
        if (!bdrv_parse_size(leaf->value.string, &value, &error)) {
            g_prefix_error(&error, "%s: option '%s': ", what, leaf->key);
            g_propagate_error(errp, error);
            return false;
        }
        bdrv_options_set_int(options, leaf->key, value);
    } else if ((leaf->type != BDRV_OPTION_INT && leaf->type != BDRV_OPTION_SIZE) || leaf->value.integer < 0) {
        return wrong_value(leaf, what, "a size, 0 or more bytes", errp);
    }
    leaf->type = BDRV_OPTION_SIZE;
    return true;
}

static bool to_double(BdrvOptions *options, const OptionLeaf *leaf, const char *what, GError **errp)
{
    char *end;
    double value;

    switch (leaf->type) {
    case BDRV_OPTION_DOUBLE:
        return true;
    case BDRV_OPTION_INT:
        bdrv_options_set_double(options, leaf->key, (double)leaf->value.integer);
        return true;
    case BDRV_OPTION_STRING:
        value = g_ascii_strtod(leaf->value.string, &end);
        if (*leaf->value.string && !*end) {
            bdrv_options_set_double(options, leaf->key, value);
            return true;
        }
        break;
    default:
        break;
    }
    return wrong_value(leaf, what, "a number", errp);
}

static bool validate_leaf(BdrvOptions *options, OptionLeaf *leaf, const BdrvOptionSpec *spec, const char *what,
                          GError **errp)
{
    switch (spec->type) {
    case BDRV_OPTION_STRING:
        return to_string(options, leaf, spec, what, errp);
    case BDRV_OPTION_BOOL:
        return to_bool(options, leaf, what, errp);
    case BDRV_OPTION_INT:
        return to_int(options, leaf, what, errp);
    case BDRV_OPTION_SIZE:
        return to_size(options, leaf, what, errp);
    case BDRV_OPTION_DOUBLE:
        return to_double(options, leaf, what, errp);
    case BDRV_OPTION_LIST:
    case BDRV_OPTION_DICT:
        return leaf->type == spec->type || strcmp(leaf->key, spec->name) != 0 ||
               wrong_value(leaf, what, spec->type == BDRV_OPTION_LIST ? "a list" : "options of its own", errp);
    default:
        return leaf->type == spec->type || wrong_value(leaf, what, "a value of another type", errp);
    }
}

bool bdrv_options_validate(BdrvOptions *options, const BdrvOptionSpec *const *specs, const char *what,
                           GError **errp)
{
    for (unsigned i = 0; i < options->leaves->len; i++) {
        OptionLeaf *leaf = options->leaves->pdata[i];
        const BdrvOptionSpec *spec = find_spec(specs, leaf->key);

        if (!spec) {
            g_set_error(errp, BDRV_ERROR, EINVAL, "%s does not support the option '%s'", what, leaf->key);
            return false;
        }
        if (!validate_leaf(options, leaf, spec, what, errp)) {
            return false;
        }
    }
    return true;
}
