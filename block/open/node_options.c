/* SPDX-License-Identifier: MIT */

/* The options that every node takes, whatever its driver, and what children inherit of them. */
#include "block/open/open_int.h"
#include "block/util/options_tree.h"

#include <errno.h>
#include <string.h>

static const char *const discard_choices[] = { "ignore", "off", "unmap", "on", NULL };
static const char *const drop_behind_choices[] = { "off", "on", "auto", NULL };
static const char *const detect_choices[] = {
    [BDRV_DETECT_ZEROES_OFF] = "off",
    [BDRV_DETECT_ZEROES_ON] = "on",
    [BDRV_DETECT_ZEROES_UNMAP] = "unmap",
    NULL,
};

static const BdrvOptionSpec node_specs[] = {
    { "node-name", BDRV_OPTION_STRING, "Name of the node in the graph" },
    { "read-only", BDRV_OPTION_BOOL, "Refuse writes" },
    { "auto-read-only", BDRV_OPTION_BOOL, "Open read-only if writing is not possible", "off" },
    { "force-share", BDRV_OPTION_BOOL, "Take no lock against other users", "off" },
    { "cache.direct", BDRV_OPTION_BOOL, "Bypass the host's page cache", "off" },
    { "cache.no-flush", BDRV_OPTION_BOOL, "Ignore flushes", "off" },
    { "cache.drop-behind", BDRV_OPTION_STRING,
      "Leave nothing in the host's page cache, where the kernel can; auto: while that is the faster way", "off",
      drop_behind_choices },
    { "discard", BDRV_OPTION_STRING, "Whether discards are passed on", "ignore", discard_choices },
    { "detect-zeroes", BDRV_OPTION_STRING, "Turn writes of zeroes into zero writes", "off", detect_choices },
    { NULL },
};

#define MAX_NODE_NAME 31 /* as in QEMU: 32 with the NUL */

static bool check_node_name(const char *name, GError **errp)
{
    bool ok = g_ascii_isalpha(name[0]);

    for (const char *p = name; ok && *p; p++) {
        ok = g_ascii_isalnum(*p) || strchr("-._", *p);
    }
    if (!ok || strlen(name) > MAX_NODE_NAME) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "'%s' is no valid node-name; use a letter, then letters, digits, '-', '.' and '_', %d "
                    "characters at most",
                    name, MAX_NODE_NAME);
        return false;
    }
    return true;
}

static BdrvOptions *take_listed(BdrvOptions *options)
{
    BdrvOptions *taken = bdrv_options_new();

    for (const BdrvOptionSpec *spec = node_specs; spec->name; spec++) {
        if (bdrv_options_copy_leaf(taken, spec->name, options, spec->name)) {
            bdrv_options_remove(options, spec->name);
        }
    }
    return taken;
}

static void apply(BdrvOpenFlags *flags, const BdrvOptions *options, const char *key, BdrvOpenFlags flag)
{
    if (bdrv_options_has(options, key)) {
        *flags = bdrv_options_get_bool(options, key, false) ? *flags | flag : *flags & ~flag;
    }
}

static void apply_drop_behind(BdrvOpenFlags *flags, const BdrvOptions *options)
{
    const char *value = bdrv_options_get_string(options, "cache.drop-behind", NULL);

    if (value) {
        *flags &= ~(BDRV_O_DROP_BEHIND | BDRV_O_DROP_AUTO);
        *flags |= g_str_equal(value, "on") ? BDRV_O_DROP_BEHIND : g_str_equal(value, "auto") ? BDRV_O_DROP_AUTO : 0;
    }
}

static BdrvDetectZeroes parse_detect_zeroes(const BdrvOptions *options)
{
    const char *text = bdrv_options_get_string(options, "detect-zeroes", "off");
    BdrvDetectZeroes detect = BDRV_DETECT_ZEROES_OFF;

    while (strcmp(text, detect_choices[detect]) != 0) { /* it is one of the choices */
        detect++;
    }
    return detect;
}

bool bdrv_take_node_options(BdrvOptions *options, BdrvOpenFlags flags, BdrvNodeOptions *out, GError **errp)
{
    static const BdrvOptionSpec *const tables[] = { node_specs, NULL };
    g_autoptr(BdrvOptions) taken = take_listed(options);
    BdrvDetectZeroes detect_zeroes;
    const char *name, *discard;

    if (!bdrv_options_validate(taken, tables, "every node", errp)) {
        return false;
    }
    name = bdrv_options_get_string(taken, "node-name", NULL);
    if (name && !check_node_name(name, errp)) {
        return false;
    }
    if (bdrv_options_has(taken, "read-only")) {
        flags = bdrv_options_get_bool(taken, "read-only", false) ? flags & ~BDRV_O_RDWR : flags | BDRV_O_RDWR;
    }
    apply(&flags, taken, "force-share", BDRV_O_FORCE_SHARE);
    apply(&flags, taken, "cache.direct", BDRV_O_NOCACHE);
    apply(&flags, taken, "cache.no-flush", BDRV_O_NO_FLUSH);
    apply_drop_behind(&flags, taken);
    discard = bdrv_options_get_string(taken, "discard", NULL);
    if (discard) {
        bool unmap = strcmp(discard, "unmap") == 0 || strcmp(discard, "on") == 0;
        flags = unmap ? flags | BDRV_O_UNMAP : flags & ~BDRV_O_UNMAP;
    }
    detect_zeroes = parse_detect_zeroes(taken);
    if (detect_zeroes == BDRV_DETECT_ZEROES_UNMAP && !(flags & BDRV_O_UNMAP)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
        return false;
    }
    if ((flags & BDRV_O_FORCE_SHARE) && (flags & BDRV_O_RDWR)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "force-share=on can only be used with read-only images");
        return false;
    }
    out->node_name = g_strdup(name);
    out->auto_read_only = bdrv_options_get_bool(taken, "auto-read-only", false);
    out->detect_zeroes = detect_zeroes;
    out->flags = flags;
    return true;
}

BdrvOpenFlags bdrv_inherited_flags(BdrvChildRole role, BdrvOpenFlags parent_flags)
{
    switch (role) {
    case BDRV_CHILD_FILTERED:
        return parent_flags & ~BDRV_O_WRITETHROUGH;
    case BDRV_CHILD_PROTOCOL:
    case BDRV_CHILD_DATA:
        /* What a format driver discards in its file is for itself to decide. */
        return (parent_flags & ~(BDRV_O_WRITETHROUGH | BDRV_O_CHECK | BDRV_O_NO_BACKING | BDRV_O_NO_IO)) | BDRV_O_UNMAP;
    case BDRV_CHILD_COW:
        break;
    }
    return parent_flags & (BDRV_O_NOCACHE | BDRV_O_NO_FLUSH | BDRV_O_FORCE_SHARE | BDRV_O_NO_IO);
}

bool bdrv_validate_open_options(const BlockDriver *drv, BdrvOptions *options, GError **errp)
{
    static const BdrvOptionSpec none[] = { { NULL } };
    const BdrvOptionSpec *const tables[] = { drv->open_options ? drv->open_options : none, NULL };
    g_autofree char *what = g_strdup_printf("driver '%s'", drv->format_name);

    return bdrv_options_validate(options, tables, what, errp);
}
