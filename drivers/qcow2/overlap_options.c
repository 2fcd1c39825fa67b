/* SPDX-License-Identifier: MIT */
/* The overlap-check options: a template, and a switch for each structure that overrides it. */

#include <errno.h>

#include "drivers/qcow2/open.h"

#define CONSTANT                                                                                             \
    (QCOW2_OVERLAP_MAIN_HEADER | QCOW2_OVERLAP_ACTIVE_L1 | QCOW2_OVERLAP_REFCOUNT_TABLE |                    \
     QCOW2_OVERLAP_SNAPSHOT_TABLE | QCOW2_OVERLAP_BITMAP_DIRECTORY)
#define CACHED (CONSTANT | QCOW2_OVERLAP_ACTIVE_L2 | QCOW2_OVERLAP_REFCOUNT_BLOCK | QCOW2_OVERLAP_INACTIVE_L1)
#define ALL (CACHED | QCOW2_OVERLAP_INACTIVE_L2)

const char *const qcow2_overlap_templates[] = { "none", "constant", "cached", "all", NULL };

static const unsigned template_checks[] = { 0, CONSTANT, CACHED, ALL };

static const struct {
    const char *option;
    unsigned check;
} switches[] = {
    { "overlap-check.main-header", QCOW2_OVERLAP_MAIN_HEADER },
    { "overlap-check.active-l1", QCOW2_OVERLAP_ACTIVE_L1 },
    { "overlap-check.active-l2", QCOW2_OVERLAP_ACTIVE_L2 },
    { "overlap-check.refcount-table", QCOW2_OVERLAP_REFCOUNT_TABLE },
    { "overlap-check.refcount-block", QCOW2_OVERLAP_REFCOUNT_BLOCK },
    { "overlap-check.snapshot-table", QCOW2_OVERLAP_SNAPSHOT_TABLE },
    { "overlap-check.inactive-l1", QCOW2_OVERLAP_INACTIVE_L1 },
    { "overlap-check.inactive-l2", QCOW2_OVERLAP_INACTIVE_L2 },
    { "overlap-check.bitmap-directory", QCOW2_OVERLAP_BITMAP_DIRECTORY },
};

bool qcow2_overlap_config(const BdrvOptions *options, unsigned *checks, GError **errp)
{
    const char *brief = bdrv_options_get_string(options, "overlap-check", NULL);
    const char *full = bdrv_options_get_string(options, "overlap-check.template", NULL);
    if (brief && full && !g_str_equal(brief, full)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "Conflicting values for qcow2 options 'overlap-check' ('%s') and 'overlap-check.template' ('%s'): "
                    "give one of them",
                    brief, full);
        return false;
    }
    const char *name = brief ? brief : full ? full : "cached";
    unsigned n = 0;
    while (qcow2_overlap_templates[n] && !g_str_equal(qcow2_overlap_templates[n], name)) {
        n++;
    }
    if (!qcow2_overlap_templates[n]) { /* options that were not validated */
        g_set_error(errp, BDRV_ERROR, EINVAL, "overlap-check=%s is not one of none, constant, cached, all", name);
        return false;
    }
    unsigned mask = template_checks[n];
    for (unsigned i = 0; i < G_N_ELEMENTS(switches); i++) {
        bool on = bdrv_options_get_bool(options, switches[i].option, mask & switches[i].check);
        mask = on ? mask | switches[i].check : mask & ~switches[i].check;
    }
    *checks = mask;
    return true;
}
