/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_CHECK_H
#define BDRV_QCOW2_CHECK_H

/*
 * Checking an image. check.c says what is done in which order, check_layout.c whether L2 tables are what the header
 * says, check_walk.c counts the references that
 * all structures hold, check_refs.c keeps the counts, check_compare.c holds them against the
 * refcounts on disk and against the COPIED flags. check_kinds.c says what findings mean, repair.h how the
 * result is put right.
 *
 * Messages are worded as qemu-img check words them: scripts read them.
 */

#include "drivers/qcow2/check_kinds.h"
#include "drivers/qcow2/meta/cluster_set.h"
#include "drivers/qcow2/qcow2.h"

/*
 * Counted references: one block of counts for each refcount block of the image, in the same layout, made when
 * first needed. So they take clusters of the file * width of a refcount, rounded up to whole blocks, and never
 * more than max_bytes: what a crafted sparse file refers to may lie far apart.
 */
typedef struct Qcow2CheckRefs {
    unsigned order, refblock_bits;
    size_t block_bytes;
    uint64_t bytes, max_bytes; /* taken by the blocks */
    GHashTable *blocks; /* index of refcount block (gint64 *) -> counts */
    int64_t last_index; /* -1: none */
    uint8_t *last;
} Qcow2CheckRefs;

typedef struct Qcow2Check {
    BlockDriverState *bs;
    const Qcow2State *s;
    BdrvCheckResult *result; /* built up, given to the caller at the end */
    BdrvCheckFix fix;        /* what will be repaired: COPIED flags are held against the counts as they will be */
    uint64_t file_length;
    uint64_t file_clusters; /* rounded up */
    uint64_t end_clusters;  /* clusters that are looked at: the last one referenced may end past the file */
    Qcow2CheckRefs refs;
    Qcow2CheckRefs *into; /* where references are counted: &refs, or those of a tree that is being made */
    uint8_t *refcount_table; /* as in the file */
    uint64_t refcount_table_entries;

    /* What a repair goes by. */
    bool rebuild;         /* damage that refcounts and COPIED flags in place cannot repair: */
    bool pointers_damaged;  /* of more than the refcount structures */
    bool refcounts_damaged; /* their structures: no count may be written in place */
    bool refcounts_unread;  /* their table: nobody knows where the blocks are */
    bool incomplete;      /* a table could not be read: the counts are too low */
    bool other_layout;    /* of L2 tables than the header says: nothing else was looked at */
    bool bitmaps_damaged; /* the bitmaps cannot be kept */
    bool counts_differ;   /* from refcounts, somewhere */
    bool raise, lower;    /* there are refcounts to be raised, to be lowered */
    bool copied;          /* there are COPIED flags to be changed */
    Qcow2ClusterSet tables, l2_tables; /* clusters of tables that stay, those of L2 tables; with @fix */

    /* Refcount blocks read from the file, a small direct-mapped cache. */
    uint8_t **disk_blocks;
    int64_t *disk_block_index;
    unsigned disk_block_slots;
    uint64_t l1_done; /* entries of L1 tables that were followed */
} Qcow2Check;

/* ---- check_refs.c ---- */
void qcow2_check_refs_init(Qcow2CheckRefs *refs, const Qcow2Geometry *geometry, uint64_t max_bytes);
void qcow2_check_refs_clear(Qcow2CheckRefs *refs);
/** qcow2_check_refs_block() - counts of refcount block @index, NULL if all are 0 */
uint8_t *qcow2_check_refs_block(Qcow2CheckRefs *refs, uint64_t index);
uint64_t qcow2_check_refs_get(Qcow2CheckRefs *refs, uint64_t cluster);
/** qcow2_check_refs_from() - sorted indexes >= @first of the blocks there are; caller frees */
size_t qcow2_check_refs_from(Qcow2CheckRefs *refs, uint64_t first, int64_t **indexes);
/** qcow2_check_refs_add() - one reference more; -ERANGE if the width is exhausted, -ENOMEM */
int qcow2_check_refs_add(Qcow2CheckRefs *refs, uint64_t cluster);
/** qcow2_check_refs_drop() - one reference less, if there is one */
void qcow2_check_refs_drop(Qcow2CheckRefs *refs, uint64_t cluster);

/* ---- check.c: what the others need ---- */

/** qcow2_check_begin() - set @c up for an image whose caches are written or not there; qcow2_check_end() in any case */
int coroutine_fn qcow2_check_begin(Qcow2Check *c, BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix);
/** qcow2_check_analyse() - look at everything, write nothing */
int coroutine_fn qcow2_check_analyse(Qcow2Check *c);
void qcow2_check_end(Qcow2Check *c);

/** qcow2_check_outside() - whether [offset, +bytes) exceeds the file by a cluster or more: it is not there */
bool qcow2_check_outside(const Qcow2Check *c, uint64_t offset, uint64_t bytes);
/** qcow2_check_pread() - read, bytes past the end of the file are 0; 0 or -errno */
int coroutine_fn qcow2_check_pread(Qcow2Check *c, uint64_t offset, uint64_t bytes, void *buf);
/** qcow2_check_finding() - count it, go by what it means for a repair, and report it */
void qcow2_check_finding(Qcow2Check *c, Qcow2CheckKind kind, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* ---- check_layout.c ---- */

/** qcow2_check_layout() - find out, and report, if L2 tables are not of the layout that the header says; 0 or -errno */
int coroutine_fn qcow2_check_layout(Qcow2Check *c);

/* ---- check_walk.c ---- */

/** qcow2_check_count_references() - count what every structure refers to; 0, or -errno if it cannot go on */
int coroutine_fn qcow2_check_count_references(Qcow2Check *c);
/** qcow2_check_count_fixed() - the part of it that a repair leaves where it is: header, encryption header, @bitmaps */
int coroutine_fn qcow2_check_count_fixed(Qcow2Check *c, bool bitmaps);

/* ---- check_compare.c ---- */

/* A refcount table entry that points nowhere sensible; the walk has reported it. */
#define QCOW2_CHECK_UNUSABLE (-EILSEQ)

/**
 * qcow2_check_disk_block() - refcount block @index as it is on disk
 * @block: NULL if there is none; valid until the next call
 * Returns: 0; QCOW2_CHECK_UNUSABLE if the refcount table entry is damaged; -errno if the block cannot be read.
 */
int coroutine_fn qcow2_check_disk_block(Qcow2Check *c, uint64_t index, const uint8_t **block);
int coroutine_fn qcow2_check_compare_refcounts(Qcow2Check *c);
int coroutine_fn qcow2_check_copied_flags(Qcow2Check *c);

#endif
