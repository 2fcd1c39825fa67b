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
/** qcow2_check_bitmap() - an entry of the bitmap directory, and the place of its table */
bool qcow2_check_bitmap(const Qcow2State *s, const Qcow2Bitmap *bitmap, int64_t file_length, GError **errp);
/** qcow2_check_overlaps() - header, L1 tables, refcount table and snapshot table must not share a cluster */
bool qcow2_check_overlaps(const Qcow2State *s, GError **errp);

/* open.c */

/** qcow2_check_writable() - what the header says against writing; @check: a repair may write all the same */
bool qcow2_check_writable(const Qcow2State *s, bool check, GError **errp);

/** qcow2_kept_autoclear() - the autoclear bits that stay true whatever is written */
uint64_t qcow2_kept_autoclear(const Qcow2State *s);
/** qcow2_clear_autoclear() - clear the others, which must not survive a write; the image is writable */
bool coroutine_fn qcow2_clear_autoclear(BlockDriverState *bs, GError **errp);

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

/** qcow2_compression_config() - how well compressed writes compress; EINVAL out of the range of the image's type */
bool qcow2_compression_config(const Qcow2State *s, const BdrvOptions *options, int *level, GError **errp);

/* overlap_options.c */

extern const char *const qcow2_overlap_templates[];
/* clang-format off */
#define QCOW2_OVERLAP_OPTIONS \
    { "overlap-check", BDRV_OPTION_STRING, "Template of metadata that must not be overwritten", "cached", \
      qcow2_overlap_templates }, \
    { "overlap-check.template", BDRV_OPTION_STRING, "The same", "cached", qcow2_overlap_templates }, \
    { "overlap-check.main-header", BDRV_OPTION_BOOL, "Check for writes to the header", NULL, NULL }, \
    { "overlap-check.active-l1", BDRV_OPTION_BOOL, "Check for writes to the active L1 table", NULL, NULL }, \
    { "overlap-check.active-l2", BDRV_OPTION_BOOL, "Check for writes to active L2 tables", NULL, NULL }, \
    { "overlap-check.refcount-table", BDRV_OPTION_BOOL, "Check for writes to the refcount table", NULL, NULL }, \
    { "overlap-check.refcount-block", BDRV_OPTION_BOOL, "Check for writes to refcount blocks", NULL, NULL }, \
    { "overlap-check.snapshot-table", BDRV_OPTION_BOOL, "Check for writes to the snapshot table", NULL, NULL }, \
    { "overlap-check.inactive-l1", BDRV_OPTION_BOOL, "Check for writes to L1 tables of snapshots", NULL, NULL }, \
    { "overlap-check.inactive-l2", BDRV_OPTION_BOOL, "Check for writes to L2 tables of snapshots", NULL, NULL }, \
    { "overlap-check.bitmap-directory", BDRV_OPTION_BOOL, "Check for writes to the bitmap directory", NULL, NULL }
/* clang-format on */

/** qcow2_overlap_config() - which structures writes are checked against, a mask of Qcow2Overlap */
bool qcow2_overlap_config(const BdrvOptions *options, unsigned *checks, GError **errp);

#endif
