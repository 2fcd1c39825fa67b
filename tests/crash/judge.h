/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_JUDGE_H
#define TEST_CRASH_JUDGE_H

/*
 * Judges states. What a state is in itself (its metadata, what it reads as) depends on its bytes alone and is found out
 * once; whether it may read as that depends on the moment and is a comparison of sets.
 */

#include "tests/crash/content.h"
#include "tests/crash/ops.h"
#include "tests/crash/oracle.h"

typedef struct JudgeCounts {
    uint64_t states, distinct, leaks, reopened_dirty, second_lives, qemu_checked;
} JudgeCounts;

typedef struct Judge {
    const CrashImage *image;
    unsigned qemu_every; /* of so many distinct states one is shown to qemu-img; 0: none */
    uint64_t hash;       /* of the state that is judged */
    JudgeCounts counts;

    uint64_t *hashes;   /* of known states, open addressing, 0: free */
    uint32_t *readings; /* what they read as: index + 1 */
    size_t capacity, used;
    GPtrArray *known;     /* CrashReading * */
    GHashTable *known_by; /* of @known: CrashReading * -> index + 1 */

    Oracle oracle;
    uint8_t *guest;
    char fault[320];
} Judge;

void judge_init(Judge *judge, const CrashImage *image);
void judge_clear(Judge *judge);

/** judge_save() - what is known, as text; g_free() */
char *judge_save(const Judge *judge);
/** judge_load() - into a new judge; false if it is no such text */
bool judge_load(Judge *judge, const char *text);

/**
 * judge_state() - judge one state of the cuts that @contents hold
 * @contents: of the image and of its data file; that has no cut if there is none
 * @choices: of the first one's requests, then of the second one's
 * @sets: what may be read
 * @op: what is running; NULL: nothing
 * @may_be_untidy: version 2: COPIED may not be set where it could be
 * Returns: NULL, or what is wrong, valid until the next call.
 */
const char *coroutine_fn judge_state(Judge *judge, Content contents[2], const BdrvSimChoice *choices,
                                     const ModelSets *sets, const CrashOp *op, bool may_be_untidy);

#endif
