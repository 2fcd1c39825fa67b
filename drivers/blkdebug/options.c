/* SPDX-License-Identifier: MIT */

/* From options to rules and limits. */

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "drivers/blkdebug/blkdebug.h"

#define ALIGN_MAX 65536
#define SECTOR_MAX (INT64_MAX / 512)

const BdrvOptionSpec blkdebug_open_options[] = {
    { "config", BDRV_OPTION_STRING, "Path to the configuration file" },
    { "inject-error", BDRV_OPTION_LIST, "Rules that make requests fail" },
    { "set-state", BDRV_OPTION_LIST, "Rules that change the state" },
    { "align", BDRV_OPTION_SIZE, "Required alignment in bytes" },
    { "max-transfer", BDRV_OPTION_SIZE, "Maximum transfer size in bytes" },
    { "opt-write-zero", BDRV_OPTION_SIZE, "Optimum write zero alignment in bytes" },
    { "max-write-zero", BDRV_OPTION_SIZE, "Maximum write zero size in bytes" },
    { "opt-discard", BDRV_OPTION_SIZE, "Optimum discard alignment in bytes" },
    { "max-discard", BDRV_OPTION_SIZE, "Maximum discard size in bytes" },
    { NULL },
};

static const struct {
    const char *name;
    BlkdebugIotype mask;
} iotypes[] = {
    { "read", BLKDEBUG_READ },
    { "write", BLKDEBUG_WRITE },
    { "write-zeroes", BLKDEBUG_WRITE_ZEROES },
    { "discard", BLKDEBUG_DISCARD },
    { "flush", BLKDEBUG_FLUSH },
    { "block-status", BLKDEBUG_BLOCK_STATUS },
};

static const char *const iotype_choices[] = { "read", "write", "write-zeroes", "discard", "flush", "block-status",
                                              NULL };

static const BdrvOptionSpec inject_specs[] = {
    { "event", BDRV_OPTION_STRING },
    { "state", BDRV_OPTION_INT },
    { "iotype", BDRV_OPTION_STRING, NULL, NULL, iotype_choices },
    { "errno", BDRV_OPTION_INT },
    { "sector", BDRV_OPTION_INT },
    { "once", BDRV_OPTION_BOOL },
    { "immediately", BDRV_OPTION_BOOL },
    { NULL },
};

static const BdrvOptionSpec set_state_specs[] = {
    { "event", BDRV_OPTION_STRING },
    { "state", BDRV_OPTION_INT },
    { "new_state", BDRV_OPTION_INT },
    { NULL },
};

/* ---- rules ---- */

static bool read_number(const BdrvOptions *options, const char *key, int64_t fallback, int64_t min, int64_t max,
                        const char *what, int64_t *value, GError **errp)
{
    *value = bdrv_options_get_int(options, key, fallback);
    if (*value < min || *value > max) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "%s: %s is %" G_GINT64_FORMAT "; it must be in %" G_GINT64_FORMAT " .. %" G_GINT64_FORMAT, what, key,
                    *value, min, max);
        return false;
    }
    return true;
}

static bool read_event(const BdrvOptions *options, const char *what, BdrvDebugEvent *event, GError **errp)
{
    const char *name = bdrv_options_get_string(options, "event", NULL);
    GError *error = NULL;

    if (!name) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "%s: the rule has no event; say which, for example event=write_aio",
                    what);
        return false;
    }
    if (bdrv_event_parse(name, event, &error)) {
        return true;
    }
    g_set_error(errp, BDRV_ERROR, EINVAL, "%s: %s", what, error->message);
    g_error_free(error);
    return false;
}

static unsigned iotypes_of(const char *name)
{
    for (unsigned i = 0; name && i < G_N_ELEMENTS(iotypes); i++) {
        if (strcmp(name, iotypes[i].name) == 0) {
            return iotypes[i].mask;
        }
    }
    return BLKDEBUG_IOTYPES_DEFAULT;
}

static bool read_inject_error(BlkdebugRule *rule, const BdrvOptions *options, const char *what, GError **errp)
{
    int64_t error;

    if (!read_number(options, "errno", EIO, 0, INT_MAX, what, &error, errp) ||
        !read_number(options, "sector", -1, -1, SECTOR_MAX, what, &rule->sector, errp)) {
        return false;
    }
    rule->action = BLKDEBUG_INJECT_ERROR;
    rule->error = (int)error;
    rule->iotypes = iotypes_of(bdrv_options_get_string(options, "iotype", NULL));
    rule->once = bdrv_options_get_bool(options, "once", false);
    rule->immediately = bdrv_options_get_bool(options, "immediately", false);
    return true;
}

static bool read_set_state(BlkdebugRule *rule, const BdrvOptions *options, const char *what, GError **errp)
{
    int64_t new_state;

    rule->action = BLKDEBUG_SET_STATE;
    if (!read_number(options, "new_state", 0, INT_MIN, INT_MAX, what, &new_state, errp)) {
        return false;
    }
    rule->new_state = (int)new_state;
    return true;
}

bool blkdebug_add_rule(BlkdebugEngine *engine, bool injects, BdrvOptions *options, const char *what, GError **errp)
{
    const BdrvOptionSpec *const tables[] = { injects ? inject_specs : set_state_specs, NULL };
    BlkdebugRule rule = { 0 };
    int64_t state;

    if (!bdrv_options_validate(options, tables, what, errp) || !read_event(options, what, &rule.event, errp) ||
        !read_number(options, "state", 0, INT_MIN, INT_MAX, what, &state, errp) ||
        !(injects ? read_inject_error : read_set_state)(&rule, options, what, errp)) {
        return false;
    }
    rule.state = (int)state;
    blkdebug_engine_add(engine, &rule);
    return true;
}

/* "inject-error.0.event", "inject-error.1.event" …, or one rule alone: "inject-error.event". */
static bool add_list(BlkdebugEngine *engine, bool injects, const BdrvOptions *options, GError **errp)
{
    const char *name = injects ? "inject-error" : "set-state", *key;
    g_autoptr(BdrvOptions) all = bdrv_options_copy(options);
    g_autoptr(BdrvOptions) list = bdrv_options_take_subtree(all, name);

    for (unsigned n = 0; bdrv_options_count(list) > 0; n++) {
        g_autofree char *number = g_strdup_printf("%u", n), *what = g_strdup_printf("%s.%u", name, n);
        g_autoptr(BdrvOptions) rule = bdrv_options_take_subtree(list, number);

        if (bdrv_options_count(rule) > 0) {
            if (!blkdebug_add_rule(engine, injects, rule, what, errp)) {
                return false;
            }
        } else if (n == 0) {
            return blkdebug_add_rule(engine, injects, list, name, errp);
        } else {
            bdrv_options_nth(list, 0, &key, NULL, NULL);
            g_set_error(errp, BDRV_ERROR, EINVAL, "'%s.%s' is in no list: the rules are numbered 0 .. %u", name, key,
                        n - 1);
            return false;
        }
    }
    return true;
}

bool blkdebug_add_rules(BlkdebugEngine *engine, const BdrvOptions *options, GError **errp)
{
    return add_list(engine, true, options, errp) && add_list(engine, false, options, errp);
}

/* ---- limits ---- */

/* A size that is a multiple of @unit, 0 if not given. */
static bool read_size(const BdrvOptions *options, const char *key, int64_t unit, int64_t *value, GError **errp)
{
    *value = bdrv_options_get_int(options, key, 0);
    if (*value % unit || *value >= INT_MAX) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "%s is %" G_GINT64_FORMAT "; it must be a multiple of %" G_GINT64_FORMAT " below 2 GiB", key, *value,
                    unit);
        return false;
    }
    return true;
}

bool blkdebug_read_limits(BlkdebugState *s, const BdrvOptions *options, uint32_t child_alignment, GError **errp)
{
    int64_t unit;

    s->align = bdrv_options_get_int(options, "align", 0);
    if (s->align > ALIGN_MAX || (s->align & (s->align - 1))) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "align is %" G_GINT64_FORMAT "; it must be a power of two, at most %d, or 0", s->align, ALIGN_MAX);
        return false;
    }
    unit = MAX(MAX(s->align, child_alignment), 1);
    return read_size(options, "max-transfer", unit, &s->max_transfer, errp) &&
           read_size(options, "opt-write-zero", unit, &s->opt_write_zero, errp) &&
           read_size(options, "max-write-zero", MAX(unit, s->opt_write_zero), &s->max_write_zero, errp) &&
           read_size(options, "opt-discard", unit, &s->opt_discard, errp) &&
           read_size(options, "max-discard", MAX(unit, s->opt_discard), &s->max_discard, errp);
}
