/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_META_INVARIANTS_H
#define BDRV_QCOW2_META_INVARIANTS_H

/* What must hold, looked at in builds with -Ddebug_invariants=true. A violation ends the program with a message. */

#include "drivers/qcow2/meta/meta_int.h"

void qcow2_must(bool condition, const char *what);

/** qcow2_note_soundness() - set meta->was_sound, without which nothing is said of counts; before the first write */
void coroutine_fn qcow2_note_soundness(Qcow2Meta *meta);

/** qcow2_check_invariants() - what holds while no commit runs; commit_lock held */
void coroutine_fn qcow2_check_invariants(Qcow2Meta *meta);

/** qcow2_check_phase_b() - frozen entries that go out now refer to what the file counts; phase A is flushed
 * @host_offset: where @data goes, a part of an L2 table or of the L1 table; commit_lock held */
void coroutine_fn qcow2_check_phase_b(Qcow2Meta *meta, uint64_t host_offset, uint64_t bytes, const uint8_t *data);

/** qcow2_check_references() - counts, metadata map and limbo agree with all that the tables refer to
 * @exact: nothing leaks either; no request is inside, commit_lock held */
void coroutine_fn qcow2_check_references(Qcow2Meta *meta, bool exact);

/* That under way. */
typedef struct Qcow2Walk {
    Qcow2Meta *meta;
    GHashTable *counts; /* cluster -> references, and drops that still wait */
    GHashTable *data;   /* clusters with guest data */
    uint8_t *table;     /* a cluster */
    bool failed;        /* something could not be read */
} Qcow2Walk;

/** qcow2_walk_count() - clusters that something refers to; _metadata(): and which nothing else may overwrite */
void qcow2_walk_count(Qcow2Walk *walk, uint64_t host_offset, uint64_t bytes);
void qcow2_walk_count_metadata(Qcow2Walk *walk, uint64_t host_offset, uint64_t bytes);

/* invariants_other.c: clusters are counted, and memory and file agree. */
void coroutine_fn qcow2_walk_header(Qcow2Walk *walk);
void coroutine_fn qcow2_walk_bitmaps(Qcow2Walk *walk);
void coroutine_fn qcow2_walk_crypto(Qcow2Walk *walk);
void coroutine_fn qcow2_walk_snapshot_table(Qcow2Walk *walk);

#endif
