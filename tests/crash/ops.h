/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_OPS_H
#define TEST_CRASH_OPS_H

/*
 * The operations that a crash search puts together. One row of the table in ops.c each: a new feature adds a
 * row (and, if it needs one, an image in images.c).
 */

#include "tests/crash/images.h"

typedef struct CrashOp CrashOp;

/* One operation of a history. */
typedef struct CrashStep {
    const CrashOp *op;
    unsigned variant;
    int64_t offset, bytes; /* guest range */
    unsigned size;         /* of truncate and create: SIZE_ value */
    BdrvRequestFlags flags;
    uint8_t fill;
    bool with_next; /* starts together with the next one */
} CrashStep;

#define CRASH_SNAPSHOTS 16 /* ids from 1 on that are kept account of */

/* How an operation changes which secrets open the image. */
typedef struct CrashKeys {
    int added, erased; /* of the test_secrets, -1: none */
    int slot;          /* -1: the driver's choice */
} CrashKeys;

/* What happens to. */
typedef struct CrashRun {
    const CrashImage *image;
    const char *disk;
    Rig rig;
    bool is_open;  /* else all but create do nothing */
    bool distrust; /* the disk forgets after a failed flush: whoever opens it again reads what is not on it */
    Model model;
    ModelSets *kept[CRASH_SNAPSHOTS]; /* by snapshots, by id; NULL: there was none */
    bool untidy; /* an operation runs that may leave it so for a while, or has failed */
    CrashKeys keys; /* what the operation that is about to run does to key slots */
    const char *finding; /* what an operation itself saw go wrong */
} CrashRun;

typedef enum CrashDurable {
    DURABLE_NOTHING,
    DURABLE_ITSELF, /* what the operation did */
    DURABLE_ALL,    /* whatever had ended before it began */
    DURABLE_NEVER,  /* what is not yet, no later flush is known to make durable */
} CrashDurable;

/* What a state reads as. */
typedef struct CrashReading {
    uint8_t size; /* SIZE_ value; NO_IMAGE: the rest says nothing */
    bool untidy;  /* safe, but not as it should be between operations; version 2 */
    uint8_t bitmap; /* "b": 0 not there, 1 in use, 2 right */
    uint8_t keys[TEST_SECRETS]; /* whether each opens a key slot */
    uint8_t values[MODEL_SECTORS];
} CrashReading;

struct CrashOp {
    const char *name;
    unsigned variants; /* how many there are at most */
    /* Fill offset, bytes, size and flags in; false: the image has no such variant. */
    bool (*make)(const CrashImage *image, unsigned variant, CrashStep *step);
    /* Tell the model what may be read from now on. NULL: nothing new. */
    void (*expect)(CrashRun *run, const CrashStep *step, uint32_t operation);
    /* Do it; 0 or -errno. Not called when it cannot be done now (see crash_step_runs()). */
    int (*run)(CrashRun *run, const CrashStep *step);
    /* Tell the model what may be read only once it has ended: must, if it succeeded. NULL: nothing more. */
    void (*done)(CrashRun *run, const CrashStep *step, uint32_t operation);
    /* What a success made durable. */
    CrashDurable durable;
    /* NULL, or whether what a state reads as may be, while the operation runs: beyond what the model says cell by cell. */
    bool (*plausible)(const CrashReading *reading);
    /* NULL, or whether it can be done now; else nothing happens. */
    bool (*possible)(CrashRun *run, const CrashStep *step);
    bool untidy; /* version 2, which has no dirty bit: meanwhile COPIED may not be set where it could be */
    bool alone;  /* never beside another one */
    bool vdi;    /* VDI images have it, too */
    bool closes; /* the image, so that a failure loses what was not durable */
};

extern const CrashOp crash_ops[];
extern const unsigned crash_op_count;

/** crash_steps() - all variants that the image has: of the first operation of a history, or of the others
 * Returns: a GArray of CrashStep. */
GArray *crash_steps(const CrashImage *image, bool first);
/** crash_step_name() - "write:2" */
char *crash_step_name(const CrashStep *step);
/** crash_step_parse() - the other way round; false if there is none of that name */
bool crash_step_parse(const CrashImage *image, const char *text, CrashStep *step);

/** crash_do_step() - run one operation and keep the model; 0 or -errno */
int coroutine_fn crash_do_step(CrashRun *run, const CrashStep *step);
/** crash_run_begin() - the model is set: take note of the snapshot that the image has */
void crash_run_begin(CrashRun *run);
/** crash_run_clear() - free the model and what was kept */
void crash_run_clear(CrashRun *run);
/** crash_run_end() - flush and close the image if it is open, as blk_close() does */
int coroutine_fn crash_run_end(CrashRun *run);

#endif
