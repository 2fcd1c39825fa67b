/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_CONFORMANCE_H
#define BDRV_TEST_CONFORMANCE_H

/*
 * Random operations on any stack against a model in memory. Uses the public API only.
 *
 * A run goes in rounds. In a round some requests (read, write, write-zeroes, discard, flush, status,
 * copy) run at once, spread over the contexts; then the model learns what they did. Between rounds
 * the image may be reopened, resized, or compared as a whole. Where requests of one round overlap,
 * either order is right unless one had ended before the other began, for each part of a sector by itself.
 *
 * What a run does is drawn first (history.h) and then carried out, so that it can be replayed and reduced.
 */

#include <bdrv/bdrv.h>

#define CONFORMANCE_MAX_CONTEXTS 8
#define CONFORMANCE_MAX_REQUESTS 256

/* ID of a secret that every stack's graph has, for images that are encrypted. */
#define CONFORMANCE_SECRET "key"

typedef enum ConformanceMode {
    CONFORMANCE_THREADS, /* each context has its thread */
    CONFORMANCE_SIM,     /* all contexts in a deterministic run */
} ConformanceMode;

/* A backing file that the image may have. */
typedef struct ConformanceBase {
    const char *filename; /* with "%ID%" and "%DIR%"; NULL ends a list */
    const char *format;
} ConformanceBase;

typedef struct ConformanceStack ConformanceStack;
typedef struct ConformanceRun ConformanceRun;
typedef struct History History;

struct ConformanceStack {
    const char *name;
    const char
        *options;   /* of blk_open(), as text; "%ID%" is replaced by the run's id, "%DIR%" by its directory */
    int64_t length; /* of the disk, bytes */
    unsigned unit;  /* requests are multiples of it; 0: 1 */
    unsigned
        skew; /* where the disk begins in a sector of the medium: overlapping requests mix by its sectors */
    bool resize;         /* blk_truncate() works */
    int64_t room;        /* and up to so many bytes past the length */
    bool torn_reads;     /* a read beside a write may mix both anywhere: the page cache promises no sector */
    bool crowded;        /* small requests that free and allocate: much happens in few clusters */
    bool no_discard;     /* leave discards out */
    bool states;         /* emptying, VM state, repair, and snapshots that stay and are applied, */
    bool no_snapshots;   /* but for images that can have none */
    bool bitmaps;        /* dirty bitmaps come, change and go */
    bool keys;           /* keys of a LUKS header come and go; the option encrypt.key-secret is the run's business */
    /* Commit, rebase. The first one is what setup() names in the header, and lies over the second. NULL: none. */
    const ConformanceBase *bases;
    bool variant;        /* much like another stack, or slow: the race test makes fewer requests */
    bool no_reopen;      /* blk_reopen() does not work */
    bool volatile_names; /* the disk is gone when it is closed: never reopen */
    BdrvOpenFlags flags; /* besides BDRV_O_RDWR */
    /*
     * Make what will be opened; NULL: nothing to make. It reads as zeroes, or as setup() leaves in
     * @content (@length bytes). Runs in the thread of the run, outside of coroutines.
     */
    void (*setup)(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                  uint8_t *content);
    void (*teardown)(const ConformanceStack *stack, const char *id, const char *dir);
    /* After each close and at the end, with the image closed: e.g. a check. May be NULL. */
    void (*inspect)(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir);
    const void *data; /* of setup and inspect */
};

struct ConformanceRun {
    ConformanceMode mode;
    unsigned contexts;    /* 1 .. CONFORMANCE_MAX_CONTEXTS */
    unsigned concurrency; /* requests of a round, 1 .. CONFORMANCE_MAX_REQUESTS - 1 */
    unsigned lanes;       /* so many of them at a time; 0: all */
    bool idle;            /* threads: contexts are not run between rounds; else they are, as an embedder's loop */
    bool overlap;         /* requests of a round may overlap */
    bool races;           /* beside them: drains, reopens, other handles, resizes, checks, cancelled requests */
    unsigned rounds;
    unsigned reopen_every; /* rounds between closing and opening again, on average; 0: never */
    int yield; /* deterministic: how often coroutines yield where they need not, percent; 0: 20, -1: never */
    uint64_t seed;
};

typedef struct ConformanceResult {
    uint64_t trace; /* of a deterministic run: a hash of all decisions and all results */
    uint64_t requests;
} ConformanceResult;

/** conformance_run() - fails the test (g_error) with seed and place at the first difference */
ConformanceResult blocking_fn conformance_run(const ConformanceStack *stack, const ConformanceRun *run);

/** conformance_play() - the same with a history that fits the stack */
ConformanceResult blocking_fn conformance_play(const ConformanceStack *stack, const History *history);

static inline bool conformance_can_resize(const ConformanceStack *stack)
{
    return stack->resize || stack->room;
}

/** conformance_expand() - "%ID%" and "%DIR%" in a text; caller frees */
char *conformance_expand(const char *text, const char *id, const char *dir);

#endif
