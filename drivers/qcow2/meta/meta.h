/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_META_H
#define BDRV_QCOW2_META_H

/*
 * Cached metadata and its write order: the interface to the rest of the driver.
 * The contract is docs/qcow2-metadata.md. Coroutine context unless said otherwise.
 */

#include "drivers/qcow2/qcow2.h"

typedef struct Qcow2MetaConfig {
    int64_t l2_cache_bytes, refcount_cache_bytes; /* bounds; at least two slices each */
    uint32_t slice_bytes;                         /* 512 .. cluster size, power of two */
    Qcow2CleanConfig clean;
} Qcow2MetaConfig;

/* Changes fields of a header. */
typedef void Qcow2HeaderEdit(Qcow2Header *header, const void *opaque);

/** qcow2_meta_open() - load L1 and refcount table (offsets validated by open.c), set up caches and the metadata map
 * @bs->read_only decides whether anything will ever be written. Also makes s->inflight. */
bool coroutine_fn qcow2_meta_open(BlockDriverState *bs, const Qcow2MetaConfig *config, GError **errp);
/** qcow2_meta_close() - commit everything (if writable), stop the timer, free; 0 or the commit's -errno
 * The node is drained: no request is inside. */
int coroutine_fn qcow2_meta_close(BlockDriverState *bs);

/** qcow2_meta_suspend() - settled and drained: forget everything, so that a repair may write the file; s->meta is NULL
 * Returns what qcow2_meta_resume() wants: how deep the node is drained. */
unsigned coroutine_fn qcow2_meta_suspend(BlockDriverState *bs);
/** qcow2_meta_resume() - load everything again, as s->header has it; false: s->meta stays NULL */
bool coroutine_fn qcow2_meta_resume(BlockDriverState *bs, unsigned drained, GError **errp);

/* Caches that stand ready to replace others. */
typedef struct Qcow2NewCaches Qcow2NewCaches;
/** qcow2_meta_prepare_caches() - other sizes; drained, NULL with @errp set without memory or if not all can be committed
 * A read-only node has nothing to commit. */
Qcow2NewCaches *coroutine_fn qcow2_meta_prepare_caches(BlockDriverState *bs, const Qcow2MetaConfig *config,
                                                       GError **errp);
/** qcow2_meta_commit_caches() - use them, with the interval of @config; drained since, must not yield
 * @caches: taken; NULL: the old ones stay */
void qcow2_meta_commit_caches(BlockDriverState *bs, Qcow2NewCaches *caches, const Qcow2MetaConfig *config);
/** qcow2_meta_abort_caches() - do not; @caches: taken, NULL is allowed */
void qcow2_meta_abort_caches(Qcow2NewCaches *caches);

/** qcow2_meta_prepare_writable() - what the node lacks for being written with @overlap_checks; drained
 * ENOMEM if the metadata lie so far apart that their map would be larger than the file gives reason for. */
bool coroutine_fn qcow2_meta_prepare_writable(BlockDriverState *bs, unsigned overlap_checks, GError **errp);
/** qcow2_meta_set_writable() - reopened: whether anything may be written from now on; drained, settled, must not yield */
void qcow2_meta_set_writable(BlockDriverState *bs, bool writable);

/** qcow2_meta_commit() - make all that was published durable; what a guest flush does. 0 or -errno */
int coroutine_fn qcow2_meta_commit(BlockDriverState *bs);

/** qcow2_meta_write_counts() - write refcounts that are dirty, without a barrier; 0 or -errno
 * A later commit makes them durable. With lazy refcounts they wait. */
int coroutine_fn qcow2_meta_write_counts(BlockDriverState *bs);

/**
 * qcow2_meta_settle() - commit until all that is in limbo now is free (structural operations, close, ENOSPC)
 * Lazy refcounts are written, too.
 * Waits for requests that were inside when clusters were dropped: the caller must not be inside an epoch.
 * Returns: 0 or -errno of a commit; limbo may then not be empty.
 */
int coroutine_fn qcow2_meta_settle(BlockDriverState *bs);

/**
 * qcow2_meta_clean() - settle, all refcounts included, and clear the dirty bit that lazy refcounts have set
 * Drained: no request is inside.
 * Returns: 0, or -errno, with the dirty bit left set unless all counts are durable.
 */
int coroutine_fn qcow2_meta_clean(BlockDriverState *bs);

/** qcow2_meta_drain_begin() / _end() - stop the timer and wait for background commits; and go on. Nests. */
void coroutine_fn qcow2_meta_drain_begin(BlockDriverState *bs);
void coroutine_fn qcow2_meta_drain_end(BlockDriverState *bs);

/**
 * qcow2_meta_verify() - for tests between two steps: end the program if the metadata contradict themselves
 * @exact: no cluster may be leaked
 * Drained: no request is inside, no background commit runs. Does nothing without -Ddebug_invariants=true.
 */
void coroutine_fn qcow2_meta_verify(BlockDriverState *bs, bool exact);

/* Requests mark their stay for limbo. Any coroutine of the node; per-thread counters. Returns the epoch to leave. */
unsigned qcow2_epoch_enter(Qcow2Meta *meta);
void qcow2_epoch_leave(Qcow2Meta *meta, unsigned epoch);

/* ---- refcounts and allocation ---- */

typedef struct Qcow2Allocation {
    uint64_t host_offset;
    uint64_t count;  /* clusters in a row */
    bool reads_zero; /* the file was never that long: what is not written reads as zeroes */
} Qcow2Allocation;

/** qcow2_alloc_clusters() - up to @count (>= 1) host clusters in a row, refcount 1, marked A
 * @host_hint: where they would be nice (0: anywhere)
 * Returns: 0 with @out set (out->count >= 1) or -errno. Yields. */
int coroutine_fn qcow2_alloc_clusters(BlockDriverState *bs, uint64_t host_hint, uint64_t count, Qcow2Allocation *out);
/** qcow2_alloc_contiguous() - exactly @count clusters in a row: tables */
int coroutine_fn qcow2_alloc_contiguous(BlockDriverState *bs, uint64_t count, uint64_t *host_offset);
/** qcow2_release_clusters() - undo an allocation that was never published; leaks if metadata cannot be read */
void coroutine_fn qcow2_release_clusters(BlockDriverState *bs, uint64_t host_offset, uint64_t count);
/**
 * qcow2_drop_clusters() - one reference less, after the commit now open has published the drop (limbo)
 * @why: whether the space is given back to the host once the last reference is gone
 * Without memory to note it the clusters leak.
 */
void qcow2_drop_clusters(BlockDriverState *bs, uint64_t host_offset, uint64_t count, Qcow2DiscardType why);
/**
 * qcow2_alloc_packed() - @bytes (at most a cluster) for compressed data, in one piece, at any offset
 * Behind what was packed last if there is room. Every cluster that the range touches has one reference more,
 * marked A. Returns: 0 with *@host_offset set, or -errno. Yields.
 */
int coroutine_fn qcow2_alloc_packed(BlockDriverState *bs, uint32_t bytes, uint64_t *host_offset);
/** qcow2_release_packed() - undo qcow2_alloc_packed() for a range never published; leaks if metadata cannot be read */
void coroutine_fn qcow2_release_packed(BlockDriverState *bs, uint64_t host_offset, uint32_t bytes);
/** qcow2_get_refcount() - loads the block if needed; 0 or -errno */
int coroutine_fn qcow2_get_refcount(BlockDriverState *bs, uint64_t host_offset, uint64_t *refcount);
/** qcow2_meta_count_used() - how many of the first @end clusters are counted; or -errno
 * Stops at @enough, or a little later: the answer may then be less than there are. Loads refcounts. */
int64_t coroutine_fn qcow2_meta_count_used(BlockDriverState *bs, uint64_t end, uint64_t enough);

/* ---- mapping ---- */

/** qcow2_l2_read() - entries of the L2 table for @guest_offset
 * @entries: at most @max, within one slice; all 0 if there is no L2 table
 * Returns: how many (>= 1) or -errno (-EIO with the corrupt bit set if the L1 entry is invalid). */
int coroutine_fn qcow2_l2_read(BlockDriverState *bs, uint64_t guest_offset, Qcow2RawEntry *entries, unsigned max);

/** qcow2_l2_missing_end() - guest offset up to which there are no L2 tables from @guest_offset on, at most @end
 * @guest_offset itself if its table is there. */
uint64_t qcow2_l2_missing_end(BlockDriverState *bs, uint64_t guest_offset, uint64_t end);

/** qcow2_l2_slice_end() - guest offset at which the slice that describes @guest_offset ends */
uint64_t qcow2_l2_slice_end(BlockDriverState *bs, uint64_t guest_offset);

/** qcow2_l2_prepare() - make sure the table for @guest_offset exists and may be written in place (B afterwards) */
int coroutine_fn qcow2_l2_prepare(BlockDriverState *bs, uint64_t guest_offset);

/**
 * qcow2_l2_publish() - store entries, marked B. The in-flight range is the caller's.
 * @old: filled with what stood there (NULL: not wanted)
 * Stays in one slice: the caller's range must. All are stored or none.
 * Returns: 0 or -errno. Prepares if needed.
 */
int coroutine_fn qcow2_l2_publish(BlockDriverState *bs, uint64_t guest_offset, const Qcow2RawEntry *entries,
                                  unsigned count, Qcow2RawEntry *old);

/** qcow2_check_data_write() - 0, or -EIO (corrupt bit set) if [host_offset, +bytes) touches metadata
 * Yields only when it hits. */
int coroutine_fn qcow2_check_data_write(BlockDriverState *bs, uint64_t host_offset, uint64_t bytes);

/** qcow2_mark_corrupt() - set the corrupt bit (v3), stop writes, remember the message (the first one counts) */
void coroutine_fn qcow2_mark_corrupt(BlockDriverState *bs, const char *message);
/** qcow2_corrupt_message() - what qcow2_mark_corrupt() was told, NULL: nothing. Lives as long as the node is open. */
const char *qcow2_corrupt_message(BlockDriverState *bs);

/**
 * qcow2_meta_drop_tables() - forget the L2 tables for everything from @guest_offset on; drained, committed
 * @guest_offset: a multiple of what one table describes. The tables lead nowhere: each of their entries was made 0.
 */
void qcow2_meta_drop_tables(BlockDriverState *bs, uint64_t guest_offset);

/** qcow2_meta_used_end() - first byte after the last cluster that is counted; settled, drained; or -errno */
int64_t coroutine_fn qcow2_meta_used_end(BlockDriverState *bs);

/**
 * qcow2_meta_empty() - empty L1 table and refcount structures from cluster @first on; drained, settled
 * @used: all clusters from there on are free; what lies before @used must not reach over it
 * @end: set to the first cluster behind them
 *
 * For images without snapshots and all else that uses clusters. 0, or -errno with everything as it was.
 */
int coroutine_fn qcow2_meta_empty(BlockDriverState *bs, uint64_t first, uint64_t used, uint64_t *end);

/**
 * qcow2_meta_set_refcount_order() - refcounts of another width; drained, settled
 * EINVAL: a count does not fit, or the refcount structures are damaged; EFBIG: the refcount table would be too large;
 * nothing has been written then. After a power loss the image has the old width or the new one.
 */
bool coroutine_fn qcow2_meta_set_refcount_order(BlockDriverState *bs, unsigned order, Qcow2Progress *progress,
                                                GError **errp);

/** qcow2_meta_grow_l1() - L1 for at least @entries entries: new table, flush, header switch; drained */
int coroutine_fn qcow2_meta_grow_l1(BlockDriverState *bs, uint64_t entries);


/* The L1 table as a whole, for structural operations: drained. */
uint64_t qcow2_meta_l1_entries(BlockDriverState *bs);
void qcow2_meta_get_l1(BlockDriverState *bs, uint64_t *entries);
/** qcow2_meta_set_l1() - replace all entries in memory, marked B; no table comes or goes that is cached */
void qcow2_meta_set_l1(BlockDriverState *bs, const uint64_t *entries);
/**
 * qcow2_meta_replace_l1() - another table, which is in the file at @host_offset already
 * @edit: header switch that leads to it, NULL: none (the image is read-only)
 */
int coroutine_fn qcow2_meta_replace_l1(BlockDriverState *bs, const uint64_t *entries, uint64_t count,
                                       uint64_t host_offset, Qcow2HeaderEdit *edit, const void *opaque);

/** qcow2_meta_new_table() - allocate room for a table and write it; nothing leads there. 0 or -errno
 * Its counts are durable with the next commit. */
int coroutine_fn qcow2_meta_new_table(BlockDriverState *bs, const void *table, uint64_t bytes, uint64_t *host_offset);
/** qcow2_meta_release_table() - undo it */
void coroutine_fn qcow2_meta_release_table(BlockDriverState *bs, uint64_t host_offset, uint64_t bytes);
/** qcow2_meta_write_table() - in place, past the cache, whole clusters known to hold metadata */
int coroutine_fn qcow2_meta_write_table(BlockDriverState *bs, uint64_t host_offset, uint64_t bytes, const void *buf);
/** qcow2_meta_note_table() - this cluster is about to be a table of the active disk; 0 or -ENOMEM */
int qcow2_meta_note_table(BlockDriverState *bs, uint64_t host_offset);

/** qcow2_meta_mark() - version 3: the dirty bit, durable, for changes that are not consistent at every cut
 * qcow2_meta_clean() ends it. 0 or -errno */
int coroutine_fn qcow2_meta_mark(BlockDriverState *bs);
/** qcow2_meta_is_marked() - whether the file has the dirty bit; any thread */
bool qcow2_meta_is_marked(BlockDriverState *bs);
/** qcow2_meta_keep_mark() - such a change failed half way: the dirty bit stays until the image is opened again */
void qcow2_meta_keep_mark(BlockDriverState *bs);
/** qcow2_meta_forget_mark() - the header is one of version 2 now, which has no dirty bit */
void qcow2_meta_forget_mark(BlockDriverState *bs);
/** qcow2_meta_in_doubt() - it is unknown which header the file has: nothing that either leads to may be undone */
bool qcow2_meta_in_doubt(BlockDriverState *bs);

/**
 * qcow2_edit_header() - change fixed header fields in one sector-sized write; B: flushed before and after
 * @edit: called with @opaque and a copy of the header as the last change left it; must not yield
 */
int coroutine_fn qcow2_edit_header(BlockDriverState *bs, Qcow2HeaderEdit *edit, const void *opaque);

/** qcow2_meta_settle_header() - make certain which header the disk has, by writing it once more; 0 or -errno
 * It may have been read from the file's cache after a failed flush (fsync(2), EIO). */
int coroutine_fn qcow2_meta_settle_header(BlockDriverState *bs);

/**
 * qcow2_replace_header() - the header cluster with other extensions or another backing file name; drained
 * @header: s->header with what is to be changed; the place of the name is found here
 * @backing_name: NULL: none
 *
 * Flushed before and after. s->header is the new one then; the caller makes s->extensions agree.
 * After a power loss the image has the old header or the new one, in either case maybe without the feature names and
 * the extensions that we do not know. After an error it has the old one, or the same.
 */
bool coroutine_fn qcow2_replace_header(BlockDriverState *bs, const Qcow2Header *header,
                                       const Qcow2HeaderExtensions *extensions, const char *backing_name, GError **errp);

#endif
