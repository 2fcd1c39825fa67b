/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_SEARCH_H
#define TEST_CRASH_SEARCH_H

/* Searching one image: which histories are run, and which of their states are judged. */

#include "tests/crash/history.h"
#include "tests/crash/judge.h"

#define CRASH_HISTORY_MAX 40 /* operations */
#define ALL_SUBSETS_UP_TO 8  /* of full searches and of replays, see states_each() */

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
    bool aborted;             /* it ended the process: look for that, in child processes, and reduce it */

    uint64_t stop_after; /* histories, 0: none: end unfinished, as if interrupted */

    bool quiet; /* a finding is expected: do not print or export it */
} SearchOptions;

typedef struct Search {
    const CrashImage *image;
    const SearchOptions *options;
    uint64_t next;      /* number of the sequence or random history that comes next: where to go on */
    uint64_t histories; /* that were run, failing ones included */
    uint64_t cuts;
    bool finished;
    char *finding; /* NULL: nothing found */
    SearchOptions replay; /* of the finding: options that find it alone; their @ops are the search's own */

    /* Called now and then, and at the end. */
    void (*progress)(void *opaque, const struct Search *search);
    void *progress_opaque;

    Judge judge;
    Content contents[2]; /* of the image and of its data file */
    BdrvSimCut *base, *data_base; /* data_base: of the data file; NULL: none */
    BdrvSimDisk *base_disk, *backing_disk;
    uint8_t cells[MODEL_CELLS];
    GArray *first_steps, *steps; /* CrashStep */
} Search;

/** search_init() - make the image to start from; @options stay the caller's */
void search_init(Search *search, const CrashImage *image, const SearchOptions *options);
/** search_run() - search one image, from search->next on; what is found is reduced
 * Returns: false if something was found. */
bool search_run(Search *search);
/** search_history() - one history
 * @first_step: cuts in operations before it are left out
 * @calls: NULL, or for the number of calls that could have failed, by kind
 * Returns: false if something was found. */
bool search_history(Search *search, const CrashHistory *history, unsigned first_step, unsigned calls[FAIL_KINDS]);
/** search_note_abort() - the finding: the history ends its process with @number; cut and state -1: while it ran */
void search_note_abort(Search *search, const CrashHistory *history, int number, int cut, int state);
/** search_forget() - the finding */
void search_forget(Search *search);
/** search_clear() - free what the others left */
void search_clear(Search *search);

#endif
