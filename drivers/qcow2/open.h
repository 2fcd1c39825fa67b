/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_OPEN_H
#define BDRV_QCOW2_OPEN_H

/* Parts of opening that have files of their own. */

#include "drivers/qcow2/meta/meta.h"
#include "drivers/qcow2/qcow2.h"

/* open_tables.c: where tables may lie. Errors name the field, its value and what would be right. */

/** qcow2_check_l1_table() - size and place of the active L1 table; covers the guest size */
bool qcow2_check_l1_table(const Qcow2State *s, int64_t file_length, GError **errp);
bool qcow2_check_refcount_table(const Qcow2State *s, int64_t file_length, GError **errp);
/** qcow2_check_snapshot_l1() - size and place of snapshot @n's L1 table */
bool qcow2_check_snapshot_l1(const Qcow2State *s, unsigned n, int64_t file_length, GError **errp);
/** qcow2_check_bitmaps_extension() - count, directory size and place */
bool qcow2_check_bitmaps_extension(const Qcow2State *s, int64_t file_length, GError **errp);
/** qcow2_check_overlaps() - header, L1 tables, refcount table and snapshot table must not share a cluster */
bool qcow2_check_overlaps(const Qcow2State *s, GError **errp);

/* open.c */

/** qcow2_check_writable() - what the header says against writing; @check: a repair may write all the same */
bool qcow2_check_writable(const Qcow2State *s, bool check, GError **errp);

/* open_options.c */

extern const BdrvOptionSpec qcow2_open_options[];

/** qcow2_cache_config() - cache sizes from options and geometry */
bool qcow2_cache_config(const Qcow2State *s, const BdrvOptions *options, Qcow2MetaConfig *config,
                        GError **errp);

/** qcow2_discard_config() - what happens to freed space; @flags as the node is opened */
bool qcow2_discard_config(const Qcow2State *s, const BdrvOptions *options, BdrvOpenFlags flags,
                          Qcow2DiscardConfig *config, GError **errp);

/** qcow2_lazy_config() - whether refcounts are lazy: the option, or else the header's bit; EINVAL in version 2 */
bool qcow2_lazy_config(const Qcow2State *s, const BdrvOptions *options, bool *lazy, GError **errp);

/** qcow2_check_open_options() - refuse what is not built, by name */
bool qcow2_check_open_options(const BdrvOptions *options, GError **errp);

#endif
