/* SPDX-License-Identifier: MIT */
#ifndef BLKDEBUG_BLKDEBUG_H
#define BLKDEBUG_BLKDEBUG_H

/* Shared by the files of this folder. */

#include "drivers/blkdebug/engine.h"

typedef struct BlkdebugState {
    BlkdebugEngine engine;
    /* What the options ask for; 0: not given. */
    int64_t align, max_transfer, opt_write_zero, max_write_zero, opt_discard, max_discard;
    BdrvOptions *options; /* as opened: a reopen may not change them */
} BlkdebugState;

/* ---- options.c ---- */

extern const BdrvOptionSpec blkdebug_open_options[];

/** blkdebug_add_rule() - append the rule that @options (changed) say; @what names it in messages */
bool blkdebug_add_rule(BlkdebugEngine *engine, bool injects, BdrvOptions *options, const char *what, GError **errp);

/** blkdebug_add_rules() - those of the options inject-error and set-state */
bool blkdebug_add_rules(BlkdebugEngine *engine, const BdrvOptions *options, GError **errp);

/** blkdebug_read_limits() - align, max-transfer …; @child_alignment: requests of the child are multiples of it */
bool blkdebug_read_limits(BlkdebugState *s, const BdrvOptions *options, uint32_t child_alignment, GError **errp);

/* ---- config.c ---- */

/** blkdebug_read_config() - the rules of a configuration file */
bool coroutine_fn blkdebug_read_config(BlkdebugEngine *engine, const char *filename, GError **errp);

/** blkdebug_parse_config() - the same from memory; @text is changed, @filename is for messages */
bool blkdebug_parse_config(BlkdebugEngine *engine, const char *filename, char *text, GError **errp);

#endif
