/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_CHECK_H
#define BDRV_QCOW2_CHECK_H

/*
 * Checking an image. check.c says what is done in which order, check_walk.c counts the references that
 * all structures hold, check_refs.c keeps the counts, check_compare.c holds them against the
 * refcounts on disk and against the COPIED flags.
 *
 * Messages are worded as qemu-img check words them: scripts read them.
 */

#include "drivers/qcow2/qcow2.h"

/*
 * Counted references: one block of counts for each refcount block of the image, in the same layout, made when
 * first needed. So memory is bounded by what a refcount structure for the referenced clusters takes.
 */
typedef struct Qcow2CheckRefs {
    unsigned order, refblock_bits;
    size_t block_bytes;
    GHashTable *blocks; /* index of refcount block (gint64 *) -> counts */
    int64_t last_index; /* -1: none */
    uint8_t *last;
} Qcow2CheckRefs;

typedef struct Qcow2Check {
    BlockDriverState *bs;
    const Qcow2State *s;
    BdrvCheckResult *result; /* built up, given to the caller at the end */
    uint64_t file_length;
    uint64_t file_clusters; /* rounded up */
    Qcow2CheckRefs refs;
    uint8_t *refcount_table; /* as in the file */
    uint64_t refcount_table_entries;

    /* Refcount blocks read from the file, a small direct-mapped cache. */
    uint8_t **disk_blocks;
    int64_t *disk_block_index;
    unsigned disk_block_slots;
} Qcow2Check;

/* ---- check_refs.c ---- */
void qcow2_check_refs_init(Qcow2CheckRefs *refs, const Qcow2Geometry *geometry);
void qcow2_check_refs_clear(Qcow2CheckRefs *refs);
/** qcow2_check_refs_block() - counts of refcount block @index, NULL if all are 0 */
uint8_t *qcow2_check_refs_block(Qcow2CheckRefs *refs, uint64_t index);
uint64_t qcow2_check_refs_get(Qcow2CheckRefs *refs, uint64_t cluster);
/** qcow2_check_refs_from() - sorted indexes >= @first of the blocks there are; caller frees */
size_t qcow2_check_refs_from(Qcow2CheckRefs *refs, uint64_t first, int64_t **indexes);
/** qcow2_check_refs_add() - one reference more; -ERANGE if the width is exhausted, -ENOMEM */
int qcow2_check_refs_add(Qcow2CheckRefs *refs, uint64_t cluster);

/* ---- check.c: what the others need ---- */

/** qcow2_check_pread() - read, bytes past the end of the file are 0; 0 or -errno */
int coroutine_fn qcow2_check_pread(Qcow2Check *c, uint64_t offset, uint64_t bytes, void *buf);
void qcow2_check_corruption(Qcow2Check *c, const char *format, ...) G_GNUC_PRINTF(2, 3);
void qcow2_check_leak(Qcow2Check *c, const char *format, ...) G_GNUC_PRINTF(2, 3);
/** qcow2_check_error() - the check itself could not look at something */
void qcow2_check_error(Qcow2Check *c, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* ---- check_walk.c ---- */

/** qcow2_check_count_references() - count what every structure refers to; 0, or -errno if it cannot go on */
int coroutine_fn qcow2_check_count_references(Qcow2Check *c);

/* ---- check_compare.c ---- */
int coroutine_fn qcow2_check_compare_refcounts(Qcow2Check *c);
int coroutine_fn qcow2_check_copied_flags(Qcow2Check *c);

#endif
