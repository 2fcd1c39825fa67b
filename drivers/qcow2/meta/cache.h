/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_META_CACHE_H
#define BDRV_QCOW2_META_CACHE_H

/*
 * A cache of table slices. Slice structs and buffers are made once and not freed while the node serves, so a reader without a lock may look at a slice that is being reused: it notices by the
 * sequence count and starts over. Memory of buffers may be given back: they read as zeroes then.
 *
 * Entries of L2 slices are atomic big-endian words. An extended entry has two of them: the sequence count is
 * raised around its change too, so that nobody takes one word before and one after it. Refcount slices are only used under the cache's
 * lock (the allocator's) and are plain bytes.
 */

#include <stdatomic.h>

#include "drivers/qcow2/qcow2.h"

typedef struct Qcow2Slice {
    _Atomic uint64_t seq; /* odd while the content is replaced, or entries of two words are changed */
    _Atomic uint64_t tag; /* host offset; 0: empty */
    _Atomic(struct Qcow2Slice *) next; /* in its bucket; changed under the lock */
    bool dirty;      /* lock: in cache->dirty */
    bool committing; /* lock: a frozen copy is not yet durable, so the file is older than this */
    union {
        _Atomic uint64_t *entries; /* L2 */
        uint8_t *bytes;            /* refcounts */
    };
    _Alignas(8) _Atomic uint8_t used; /* QCOW2_SLICE_ bits; no plain field shares its word */
} Qcow2Slice;

#define QCOW2_SLICE_RECENT 1u /* hit since the clock hand came by */
#define QCOW2_SLICE_YOUNG 2u  /* hit since the caches were aged last */

/* A table slice that is being read; on the stack of the reader. */
typedef struct Qcow2CacheLoad {
    uint64_t tag;
    struct Qcow2CacheLoad *next;
} Qcow2CacheLoad;

typedef struct Qcow2Cache {
    pthread_mutex_t lock; /* everything below but what is atomic */
    BlockDriverState *bs;
    BdrvDebugEvent load_event;
    uint32_t slice_bytes;
    unsigned entry_words; /* of an L2 entry: 1 or 2; set before the first use */
    unsigned count; /* slices */
    unsigned hand;  /* clock */
    unsigned used_end; /* slices before it have been used at some time */
    unsigned bucket_mask;
    Qcow2Slice *slices;
    _Atomic(Qcow2Slice *) *buckets;
    Qcow2Slice **dirty; /* dirty_count of them */
    unsigned dirty_count;
    unsigned committing_count;
    void *memory; /* mapped: count * slice_bytes; takes space where it was used */
    Qcow2CacheLoad *loads;
    CoQueue load_waiters;
} Qcow2Cache;

bool qcow2_cache_init(Qcow2Cache *cache, BlockDriverState *bs, unsigned count, uint32_t slice_bytes,
                      BdrvDebugEvent load_event);
void qcow2_cache_destroy(Qcow2Cache *cache);

/** qcow2_cache_swap() - exchange the slices of two caches; nobody uses either, no slice is dirty */
void qcow2_cache_swap(Qcow2Cache *a, Qcow2Cache *b);

/**
 * qcow2_cache_age_locked() - drop the clean slices that were not used since the last call, give their memory back
 * Returns: whether any slices are left.
 */
bool qcow2_cache_age_locked(Qcow2Cache *cache);

/** qcow2_cache_read_entries() - L2 entries of a cached slice; takes no lock
 * Returns: false if the slice @tag is not there (or was just replaced or, with two words an entry, changed). */
bool qcow2_cache_read_entries(Qcow2Cache *cache, uint64_t tag, unsigned first, unsigned count, Qcow2RawEntry *out);

/** qcow2_cache_load_locked() - entry @index of a slice of L2 entries */
Qcow2RawEntry qcow2_cache_load_locked(const Qcow2Cache *cache, const Qcow2Slice *slice, unsigned index);

/** qcow2_cache_store_locked() - change L2 entries of a slice, which becomes dirty; @old: what was there, or NULL */
void qcow2_cache_store_locked(Qcow2Cache *cache, Qcow2Slice *slice, unsigned first, const Qcow2RawEntry *entries,
                              unsigned count, Qcow2RawEntry *old);

/** qcow2_cache_find_locked() - the slice @tag or NULL */
Qcow2Slice *qcow2_cache_find_locked(Qcow2Cache *cache, uint64_t tag);

/**
 * qcow2_cache_get_locked() - the slice @tag, loaded if needed
 * @wait: if every slice is dirty, wait for a commit; else answer -EBUSY
 *
 * Called and returns with the lock held, but gives it up while it loads: the caller looks at its
 * other state again. @slice is valid until the lock is given up.
 * Returns: 0 or -errno of the read or the commit.
 */
int coroutine_fn qcow2_cache_get_locked(Qcow2Cache *cache, uint64_t tag, bool wait, Qcow2Slice **slice);

/** qcow2_cache_dirty_locked() - note a change; starts write-back when half of the slices are dirty */
void qcow2_cache_dirty_locked(Qcow2Cache *cache, Qcow2Slice *slice);

/** qcow2_cache_forget_locked() - drop slices in [host_offset, +bytes): the cluster starts another life */
void qcow2_cache_forget_locked(Qcow2Cache *cache, uint64_t host_offset, uint64_t bytes);

/** qcow2_cache_forget_all_locked() - drop every slice that is clean: the file was changed past the cache */
void qcow2_cache_forget_all_locked(Qcow2Cache *cache);

/** qcow2_cache_crowded() - so many slices are dirty that write-back should start */
static inline bool qcow2_cache_crowded_locked(const Qcow2Cache *cache)
{
    return cache->dirty_count + cache->committing_count > cache->count / 2;
}

#endif
