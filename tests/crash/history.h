/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_HISTORY_H
#define TEST_CRASH_HISTORY_H

/* One history: operations on a fresh copy of an image, and a cut after every request that the disk saw and after every
 * operation. */

#include "tests/crash/ops.h"

/* The call below that fails. Of an image with a data file odd numbers are calls of the image, even ones of the data. */
typedef enum FailKind {
    FAIL_NONE,
    FAIL_CALL,  /* the n-th call, with EIO */
    FAIL_SHORT, /* the n-th change writes a sector, then ENOSPC */
    FAIL_FLUSH, /* the n-th flush and all later ones; what they should have made durable is forgotten */
    FAIL_KINDS,
} FailKind;

typedef struct CrashHistory {
    const CrashStep *steps;
    unsigned count;
    uint64_t seed; /* of the scheduler and of delays */
    bool delays;   /* requests take time and overtake each other */
    FailKind fail;
    unsigned fail_nth; /* from 1 */
} CrashHistory;

/* The disk at one moment. */
typedef struct Moment {
    BdrvSimCut *cut;
    BdrvSimCut *data_cut; /* of the data file; NULL: none */
    ModelSets *sets;
    unsigned step;     /* index of the operation that runs; count: the closing */
    const CrashOp *op; /* NULL: the closing, or several */
    bool after_failure;
    bool may_be_untidy;
} Moment;

typedef struct CrashTrace {
    GPtrArray *moments;         /* Moment *: after each request but reads, and each operation */
    unsigned calls[FAIL_KINDS]; /* that could have failed so */
    const char *finding;        /* NULL, or what went wrong in the run itself */
} CrashTrace;

/** history_run() - on a disk made from @base, in a deterministic run
 * @data_base: the same for the data file; NULL: none */
void history_run(const CrashImage *image, const BdrvSimCut *base, const BdrvSimCut *data_base,
                 const uint8_t cells[MODEL_CELLS], const CrashHistory *history, CrashTrace *trace);
void trace_clear(CrashTrace *trace);

/** history_text() - "write:2,flush:0"; steps that start together are joined by '+' */
char *history_text(const CrashHistory *history);
/** history_parse() - the steps of such a text, numbered fills included; NULL if one is unknown or not of @image */
GArray *history_parse(const CrashImage *image, const char *text);
/** history_fill() - what step @index writes */
uint8_t history_fill(unsigned index);

extern const char *const fail_names[FAIL_KINDS];

#endif
