/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_SEARCH_H
#define TEST_CRASH_SEARCH_H

/* Searching one image: which histories are run, and which of their states are judged. */

#include "tests/crash/history.h"
#include "tests/crash/judge.h"

#define CRASH_HISTORY_MAX 40 /* operations */

typedef struct SearchOptions {
    unsigned length;        /* all sequences up to so many operations */
    unsigned shard, shards; /* only those whose number is @shard modulo @shards */
    bool failures;          /* of each also those in which one call fails */
    unsigned all_up_to;     /* see states_each() */
    unsigned qemu_every;
    uint64_t seed;

    /* Random histories: so many, or until the time is over. */
    uint64_t histories;
    gint64 deadline; /* monotonic microseconds, 0: none */

    /* Replay: this one only. */
    const char *ops;
    FailKind fail;
    unsigned fail_nth;
    bool delays;
    int only_cut, only_state; /* -1: all */

    bool quiet; /* a finding is expected: do not print or export it */
} SearchOptions;

typedef struct Search {
    const CrashImage *image;
    const SearchOptions *options;
    uint64_t next;      /* number of the sequence that comes next: where to go on */
    uint64_t histories; /* that were run, failing ones included */
    uint64_t cuts;
    bool finished;
    char *finding; /* NULL: nothing found */

    /* Called now and then, and at the end. */
    void (*progress)(void *opaque, const struct Search *search);
    void *progress_opaque;

    Judge judge;
    Content content;
    BdrvSimCut *base;
    uint8_t cells[MODEL_CELLS];
    GArray *first_steps, *steps; /* CrashStep */
} Search;

/** search_run() - search one image; @search has image, options, next and counts set, the rest zero
 * Returns: false if something was found. */
bool search_run(Search *search);
/** search_clear() - free what search_run() left */
void search_clear(Search *search);

#endif
