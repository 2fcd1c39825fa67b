/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_CHECK_KINDS_H
#define BDRV_QCOW2_CHECK_KINDS_H

#include <bdrv/types.h>

/* Whatever a check can find. What each means is told in one place, check_kinds.c. */
typedef enum Qcow2CheckKind {
    QCOW2_CHECK_NOTE, /* no finding: what a repair does */
    QCOW2_CHECK_LEAKED_CLUSTER,
    QCOW2_CHECK_REFCOUNT_TOO_LOW,
    QCOW2_CHECK_REFCOUNT_OVERFLOW,
    QCOW2_CHECK_COPIED_FLAG_SET,
    QCOW2_CHECK_COPIED_FLAG_MISSING,
    QCOW2_CHECK_OUTSIDE_FILE,
    QCOW2_CHECK_NOT_ALIGNED,
    QCOW2_CHECK_RESERVED_BITS,
    QCOW2_CHECK_L2_LAYOUT,
    QCOW2_CHECK_SUBCLUSTER_BITMAP,
    QCOW2_CHECK_COMPRESSED_ENTRY,
    QCOW2_CHECK_DATA_FILE_OFFSET,
    QCOW2_CHECK_RAW_DATA_FILE_BIT,
    QCOW2_CHECK_SNAPSHOT_TABLE,
    QCOW2_CHECK_BITMAPS,
    QCOW2_CHECK_REFCOUNT_TABLE,
    QCOW2_CHECK_REFCOUNT_BLOCK,
    QCOW2_CHECK_REFCOUNTS_UNREAD,
    QCOW2_CHECK_TABLE_UNREAD,
    QCOW2_CHECK_FLAGS_UNREAD,
    QCOW2_CHECK_KINDS
} Qcow2CheckKind;

typedef struct Qcow2CheckKindInfo {
    BdrvCheckKind words;
    bool is_damage;        /* of a pointer or table: only another tree can repair it */
    bool hides_references; /* what was found makes the counts too low: nothing may be repaired by them */
} Qcow2CheckKindInfo;

extern const Qcow2CheckKindInfo qcow2_check_kinds[QCOW2_CHECK_KINDS];

#endif
