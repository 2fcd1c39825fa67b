/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_FAULTS_SEARCH_H
#define BDRV_TEST_FAULTS_SEARCH_H

/* One kind of fault at every place of an operation: the 1st call below fails, the 2nd … until none does. */

#include "tests/faults/ops.h"

typedef struct Fault {
    Level level;
    const char *name;
    unsigned disk;  /* mask of BdrvSimKind: calls of the simdisk … */
    bool below;     /* … or of the backing file's */
    int64_t part;   /* so many bytes are done before the call fails */
    unsigned hooks; /* or mask of HookKind */
    int error;      /* errno value, or HOOK_SHORT */
    int count;      /* how many fail in a row, -1: all from the n-th on */
    bool absorbed;  /* the caller must not see it */
} Fault;

extern const Fault sim_faults[], file_faults[];
extern const unsigned sim_fault_count, file_fault_count;

/** search_faults() - those that can happen in @place */
const Fault *search_faults(const FaultPlace *place, unsigned *count);

/** search_applies() - whether the fault can reach the operation at all */
bool search_applies(const Fault *fault, const FaultImage *image, const Op *op);

typedef struct Found {
    uint64_t failed;   /* places: calls that failed */
    uint64_t absorbed; /* of them: the operation succeeded nevertheless, and did what it should */
    uint64_t leaks;    /* clusters, summed up */
} Found;

/* Which calls are to fail: all from the (@first + 1)-th on in steps of @every, or (not 0) only the @only-th. */
typedef struct Calls {
    unsigned first, every, only;
} Calls;

/**
 * search_calls() - one run for each call that is to fail, until there is none
 * Ends the program with a message if anything is wrong.
 */
Found search_calls(const Op *op, const FaultImage *image, const FaultPlace *place, const Fault *fault, Calls calls);

#endif
