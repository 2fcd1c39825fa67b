/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_FAULTS_OPS_H
#define BDRV_TEST_FAULTS_OPS_H

/* The table of operations. A new feature adds rows to ops.c. */

#include "tests/faults/stand.h"

typedef enum StepKind {
    STEP_END,
    STEP_OPEN,
    STEP_OPEN_READ_ONLY,
    STEP_CREATE, /* with @how */
    STEP_READ,
    STEP_STATUS, /* of the whole chain, from one extent to the next */
    STEP_WRITE,
    STEP_WRITE_FUA,
    STEP_ZERO,
    STEP_ZERO_UNMAP,
    STEP_COMPRESSED,
    STEP_DISCARD,
    STEP_FLUSH,
    STEP_RESIZE, /* to @bytes, with @how */
    STEP_EMPTY,
    STEP_BITMAP,  /* "add x", "remove x", "clear x", "disable x", "merge x" (what "b" has): @how */
    STEP_AMEND,   /* options @how */
    STEP_KEYS,    /* the same by force: may have been done already */
    STEP_INVALIDATE,
    STEP_BACKING, /* the image names @how; NULL: nothing */
    STEP_COMMIT, /* into the backing file */
    STEP_REBASE, /* onto the same backing file by the name @how; NULL: onto none */
    STEP_SNAPSHOT, /* the only one named @how */
    STEP_SNAPSHOT_APPLY,  /* if it is there */
    STEP_SNAPSHOT_DELETE, /* if it is there */
    STEP_COPY,   /* [offset, +bytes) to @to */
    STEP_CHECK,
    STEP_REOPEN,
    STEP_REOPEN_READ_ONLY,
    STEP_CLOSE,
} StepKind;

typedef struct Step {
    StepKind kind;
    int64_t offset, bytes;
    uint8_t value;
    int64_t to;
    const char *how; /* preallocation, NULL: off; or a name */
} Step;

typedef enum OpWhere {
    OP_ON_SIMDISK,
    OP_EVERYWHERE,
    OP_ON_FILES, /* preallocation, which a file system does in its own ways */
} OpWhere;

typedef struct Op {
    const char *name;
    bool closed;    /* begins with the image closed */
    bool read_only; /* begins with the image open read-only */
    bool qcow2;     /* has no meaning on raw */
    bool raw;       /* has no meaning on qcow2 */
    bool (*wants)(const FaultImage *image); /* NULL: any */
    OpWhere where;
    Step before[4]; /* without faults */
    Step steps[8];
} Op;

extern const Op ops[];
extern const unsigned op_count;

/** op_applies() - whether the operation is to be tried on the image */
bool op_applies(const Op *op, const FaultImage *image);

/**
 * op_take_steps() - all steps, whatever fails; the model keeps track
 * Returns: 0 or the first error.
 */
int op_take_steps(Stand *stand, const Step *steps);

/* ---- bitmap.c ---- */

/** bitmap_change() - a STEP_BITMAP, as far as there is something to do; 0 or -errno */
int bitmap_change(Stand *stand, const char *how);

#endif
