/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_CONFORMANCE_H
#define BDRV_TEST_CONFORMANCE_H

/*
 * Random operations on any stack against a model in memory. Uses the public API only.
 *
 * A run goes in rounds. In a round some requests (read, write, write-zeroes, discard, flush, status,
 * copy) run at once, spread over the contexts; then the model learns what they did. Between rounds
 * the image may be reopened, resized, or compared as a whole. Where requests of one round overlap,
 * either order is right, for each part of a sector by itself.
 */

#include <bdrv/bdrv.h>

typedef enum ConformanceMode {
    CONFORMANCE_THREADS, /* each context has its thread */
    CONFORMANCE_SIM,     /* all contexts in a deterministic run */
} ConformanceMode;

typedef struct ConformanceStack ConformanceStack;
struct ConformanceStack {
    const char *name;
    const char
        *options;   /* of blk_open(), as text; "%ID%" is replaced by the run's id, "%DIR%" by its directory */
    int64_t length; /* of the disk, bytes */
    unsigned unit;  /* requests are multiples of it; 0: 1 */
    unsigned
        skew; /* where the disk begins in a sector of the medium: overlapping requests mix by its sectors */
    bool resize;         /* blk_truncate() works */
    int64_t room;        /* it cannot shrink, but grows up to so many bytes; instead of resize */
    bool torn_reads;     /* a read beside a write may mix both anywhere: the page cache promises no sector */
    bool no_discard;     /* leave discards out */
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

typedef struct ConformanceRun {
    ConformanceMode mode;
    unsigned contexts;    /* 1 .. 8 */
    unsigned concurrency; /* requests of a round, 1 .. 64 */
    bool idle;            /* threads: contexts are not run between rounds; else they are, as an embedder's loop */
    bool overlap;         /* requests of a round may overlap */
    unsigned rounds;
    unsigned reopen_every; /* rounds between closing and opening again, on average; 0: never */
    uint64_t seed;
} ConformanceRun;

/** conformance_run() - fails the test (g_assert) with seed and place at the first difference */
void blocking_fn conformance_run(const ConformanceStack *stack, const ConformanceRun *run);

/** conformance_expand() - "%ID%" and "%DIR%" in a text; caller frees */
char *conformance_expand(const char *text, const char *id, const char *dir);

#endif
