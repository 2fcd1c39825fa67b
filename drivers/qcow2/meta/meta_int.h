/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_META_INT_H
#define BDRV_QCOW2_META_INT_H

/*
 * meta/ from inside.
 *
 * Lock order (outer first):
 *   CoMutex: pack_lock, table_lock, grow_lock, commit_lock, header_lock   may be held over I/O
 *   mutex:   rc.lock ("the allocator lock"), l2.lock ("the map lock"), bg_lock    never over a yield
 *
 * rc.lock protects refcount slices, refcount table, limbo, the hint and the cluster sets; l2.lock
 * protects changes of L2 slices and of the L1 table, which are read without a lock.
 */

#include "drivers/qcow2/meta/cache.h"
#include "drivers/qcow2/meta/cluster_set.h"
#include "drivers/qcow2/meta/meta.h"

#define QCOW2_SECTOR 512u
#define QCOW2_SECTOR_ENTRIES (QCOW2_SECTOR / sizeof(uint64_t))
#define QCOW2_HOST_OFFSET_MAX (UINT64_C(1) << 56)

/* A table that is in memory whole and written by sectors. */
typedef struct Qcow2Table {
    _Atomic uint64_t *entries; /* host byte order */
    uint64_t count;
    uint64_t host_offset;
    uint8_t *dirty; /* a flag a sector */
    uint64_t dirty_count;
    uint64_t dirty_first, dirty_end; /* sectors: where the dirty ones are */
} Qcow2Table;

/* Dropped clusters on their way to being free. rc.lock. */
typedef struct Qcow2Limbo {
    struct Qcow2Limbo *next;
    uint64_t first, count; /* clusters */
    uint64_t commit;       /* publishes the drop; once applied: the one whose A takes the decrement along */
    uint64_t epoch;        /* of the drop */
    uint64_t serial;       /* of the drop */
    bool punch;
} Qcow2Limbo;

typedef struct Qcow2LimboList {
    Qcow2Limbo *first, *last;
} Qcow2LimboList;

/* Requests inside, of one context. Each counter is changed by the context's thread alone. */
typedef struct Qcow2EpochSlot {
    _Alignas(64) _Atomic uint32_t inside[2]; /* by parity of the epoch entered */
} Qcow2EpochSlot;

typedef struct Qcow2Joiner Qcow2Joiner; /* commit.c */
typedef struct Qcow2Ticker Qcow2Ticker; /* ticker.c */

struct Qcow2Meta {
    BlockDriverState *bs;
    Qcow2State *s;
    bool writable;

    Qcow2Cache l2; /* its lock: the map lock */
    Qcow2Table l1;
    CoMutex table_lock; /* making an L2 table */

    Qcow2Cache rc; /* its lock: the allocator lock */
    Qcow2Table reftable;
    CoMutex grow_lock; /* making refcount blocks and tables */
    uint64_t free_hint;  /* no free cluster before it */
    uint64_t frees;      /* counts clusters that became free: a search that yielded may have passed by them */
    uint64_t high_water; /* clusters: the file never reached this far */
    CoMutex pack_lock;   /* one at a time packs compressed clusters */
    uint64_t pack_at;    /* host offset of the free bytes at the end of a cluster of compressed data; 0: none */

    bool is_mapped;           /* the next two are filled: before anything is written */
    bool was_sound;           /* with debug_invariants: a check before the first write found no corruption */
    bool inactive_mapped;     /* with the L2 tables of snapshots, these are @inactive */
    Qcow2ClusterSet inactive; /* as they were then; whether one is still there @metadata says */
    Qcow2ClusterSet metadata; /* clusters with metadata; changed under rc.lock */
    Qcow2ClusterSet disputed; /* clusters that two tables claim; filled at open */
    Qcow2ClusterSet busy;     /* refcount 0 in memory but not yet to be allocated */
    Qcow2ClusterSet unpunched; /* busy clusters on the punching list that nobody has begun to punch */

    Qcow2LimboList waiting, applied, punching; /* each in order of the drops */
    const Qcow2Limbo *applying; /* on its way from waiting to applied; NULL: none */
    Qcow2Limbo *punches;        /* taken from punching: the holes are being made */
    uint64_t drops; /* so many entries were made; rc.lock */
    int limbo_error; /* why the last decrement could not be made; rc.lock */
    _Atomic uint64_t epoch;
    Qcow2EpochSlot *slots;

    CoMutex commit_lock;
    uint64_t open_commit;    /* number that the next freeze gets; rc.lock and l2.lock */
    uint64_t durable_commit; /* B of it and all before is durable; rc.lock */
    pthread_mutex_t join_lock;
    bool round_open;      /* join_lock: somebody is about to freeze */
    Qcow2Joiner *joiners; /* join_lock: who waits for that one */
    uint8_t *arena;       /* commit_lock: frozen copies */
    size_t arena_bytes;

    _Atomic bool dirty_marked;     /* the file has the dirty bit: counts need not be written before pointers */
    bool keep_mark; /* and is not to lose it; changed drained */
    _Atomic unsigned counts_wanted; /* so many want all counts written */

    CoMutex header_lock;  /* innermost CoMutex: s->header and the sector it is in */
    uint8_t *header_sector; /* QCOW2_SECTOR bytes as in the file; header_lock */
    _Atomic bool header_in_doubt; /* a failed header write may or may not have reached the file */
    uint64_t doubtful_first, doubtful_count; /* rc.lock: free clusters that it leads to, mapped as metadata until settled */

    pthread_mutex_t bg_lock;
    unsigned drained;      /* bg_lock: background work is stopped */
    bool bg_running;       /* bg_lock: a background commit is under way */
    CoQueue bg_waiters;    /* bg_lock */
    Qcow2Ticker *ticker;   /* bg_lock; made when first needed */
    Qcow2CleanConfig clean; /* bg_lock */
    Qcow2Ticker *cleaner;  /* bg_lock; the same */
    _Atomic bool aging;    /* slices were loaded since the cleaner found none, it is armed */
    _Atomic bool stirred; /* something is dirty or in limbo since the last tick was armed */
};

static inline Qcow2Meta *qcow2_meta(const BlockDriverState *bs)
{
    return qcow2_state(bs)->meta;
}

/* ---- table.c ---- */
bool qcow2_table_init(Qcow2Table *table, uint64_t count, uint64_t host_offset);
void qcow2_table_destroy(Qcow2Table *table);
void qcow2_table_swap(Qcow2Table *a, Qcow2Table *b);
static inline uint64_t qcow2_table_get(const Qcow2Table *table, uint64_t index)
{
    return atomic_load_explicit(&table->entries[index], memory_order_acquire);
}
/* With the table's lock held. */
void qcow2_table_set(Qcow2Table *table, uint64_t index, uint64_t value);
void qcow2_table_dirty_sector(Qcow2Table *table, uint64_t sector);
void qcow2_table_copy_sector(const Qcow2Table *table, uint64_t sector, uint8_t *out);
void qcow2_table_clean(Qcow2Table *table);

/* ---- refcount.c ---- */

/** qcow2_refslice_get_locked() - the slice with @cluster's count, rc.lock held (given up while loading)
 * *@slice is NULL if no block covers the cluster. @wait as qcow2_cache_get_locked(). */
int coroutine_fn qcow2_refslice_get_locked(Qcow2Meta *meta, uint64_t cluster, bool wait, Qcow2Slice **slice);
uint64_t qcow2_refslice_index(const Qcow2Meta *meta, uint64_t cluster);
uint64_t qcow2_refslice_entries(const Qcow2Meta *meta);
/** qcow2_stop_uncounted() - metadata at or behind @cluster has no refcount: mark the image corrupt. No mutex held.
 * Returns -EIO. */
int coroutine_fn qcow2_stop_uncounted(Qcow2Meta *meta, uint64_t cluster);

/** qcow2_alloc_area() - @count clusters in a row behind all that has blocks, with new blocks of their own
 * For runs that are longer than a block describes. Sets *@first to a cluster; 0 or -errno. */
int coroutine_fn qcow2_alloc_area(Qcow2Meta *meta, uint64_t count, uint64_t *first);
/** qcow2_grow_refblock() - make the block that covers @cluster, and room for it in the table */
int coroutine_fn qcow2_grow_refblock(Qcow2Meta *meta, uint64_t cluster);

/* ---- alloc.c ---- */
/** qcow2_take_run_locked() - find and take up to @count clusters in a row at or after @cluster; @exact: only there
 * rc.lock held, given up meanwhile. Sets *@first and *@n (0: @exact and not free). */
int coroutine_fn qcow2_take_run_locked(Qcow2Meta *meta, uint64_t cluster, uint64_t count, bool exact, uint64_t *first,
                                       uint64_t *n);
/** qcow2_take_first_locked() - the same from the first free cluster on */
int coroutine_fn qcow2_take_first_locked(Qcow2Meta *meta, uint64_t count, uint64_t *first, uint64_t *n);
/** qcow2_unmap_free_locked() - clusters whose count is 0 hold no metadata any more and may be allocated; rc.lock held */
void qcow2_unmap_free_locked(Qcow2Meta *meta, uint64_t first, uint64_t count);
/** qcow2_after_refcount_change() - to be called without the lock; @crowded: as the cache was under it */
void qcow2_after_refcount_change(Qcow2Meta *meta, bool crowded);

/* ---- pack.c; rc.lock ---- */
/** qcow2_pack_leave_locked() - @cluster has no reference any more: nothing may be packed into it */
void qcow2_pack_leave_locked(Qcow2Meta *meta, uint64_t cluster);
/** qcow2_pack_stop() - pack what comes next into a cluster of its own; takes the lock */
void qcow2_pack_stop(Qcow2Meta *meta);

/* ---- limbo.c; rc.lock ---- */
void qcow2_limbo_advance_epoch_locked(Qcow2Meta *meta);
/** qcow2_limbo_apply() - decrement what is due in the cached slices; before a freeze, commit_lock held */
void coroutine_fn qcow2_limbo_apply(Qcow2Meta *meta);
/** qcow2_limbo_release_locked() - the decrements of @commit are durable: make the clusters free */
void qcow2_limbo_release_locked(Qcow2Meta *meta, uint64_t commit);
bool qcow2_limbo_empty_locked(const Qcow2Meta *meta);
/** qcow2_limbo_done_locked() - whether the clusters of the first @drops entries ever made are free */
bool qcow2_limbo_done_locked(const Qcow2Meta *meta, uint64_t drops);
void coroutine_fn qcow2_limbo_punch(Qcow2Meta *meta);
void qcow2_limbo_free(Qcow2Meta *meta);

/* ---- metadata_map.c ---- */
/**
 * qcow2_metadata_map_fill() - note all metadata clusters that are not noted yet; with the L2 tables of snapshots if
 * @overlap_checks wants them. Opening, or drained.
 */
bool coroutine_fn qcow2_metadata_map_fill(Qcow2Meta *meta, unsigned overlap_checks, GError **errp);
/** qcow2_overlap_owners() - the structures in memory that have a cluster in [host_offset, +bytes), a mask of
 * Qcow2Overlap; 0: none, so it is a table of a snapshot or one that is not linked. Takes the locks. */
unsigned qcow2_overlap_owners(Qcow2Meta *meta, uint64_t host_offset, uint64_t bytes);
/** qcow2_overlap_names() - @owners in words; caller frees */
char *qcow2_overlap_names(unsigned owners);

/* ---- guard.c ---- */
/** qcow2_note_metadata() - these clusters hold metadata now; -ENOMEM */
int qcow2_note_metadata(Qcow2Meta *meta, uint64_t host_offset, uint64_t bytes);
/** qcow2_write_meta() - write metadata, which may only hit clusters known as such */
int coroutine_fn qcow2_write_meta(Qcow2Meta *meta, uint64_t host_offset, uint64_t bytes, const void *buf);
/**
 * qcow2_switch_header() - qcow2_edit_header() where everything that the new fields lead to is flushed already
 * If a failed write cannot be undone, it is unknown which header the file has (meta->header_in_doubt) until
 * a later commit or switch has written the old one again; before that nothing is committed.
 */
int coroutine_fn qcow2_switch_header(Qcow2Meta *meta, Qcow2HeaderEdit *edit, const void *opaque);
/** qcow2_replace_sector_locked() - write another first sector, header_lock held; s->header is the caller's
 * Either the file has the wanted sector, or the old one, or it is in doubt. */
int coroutine_fn qcow2_replace_sector_locked(Qcow2Meta *meta, const uint8_t *sector);
/** qcow2_take_back() - structures that the header was to lead to were not switched to
 * [first, +count) is free, but in doubt nothing may lie there: the file may lead to it. Takes the lock. */
void qcow2_take_back(Qcow2Meta *meta, uint64_t first, uint64_t count);
/** qcow2_settle_header_locked() - header_lock held: the sector in memory is the old one, make the file agree */
int coroutine_fn qcow2_settle_header_locked(Qcow2Meta *meta);
/** qcow2_settle_header() - if the header is in doubt, write the one that counts again; 0 or -errno: still in doubt */
int coroutine_fn qcow2_settle_header(Qcow2Meta *meta);

/* ---- commit.c ---- */
/** qcow2_commit_dirty() - whether there is anything to write, or in limbo; takes the locks */
bool qcow2_commit_dirty(Qcow2Meta *meta);
/** qcow2_commit_due() - the same without refcounts that may wait (lazy refcounts): a commit would do something */
bool qcow2_commit_due(Qcow2Meta *meta);

/* ---- ticker.c ---- */
/* Called in the service context with a lock held: must not arm the same ticker. Returns whether to call again. */
typedef bool Qcow2TickFunc(Qcow2Meta *meta);
/** qcow2_ticker_new() - a timer that calls @func @delay_ns after it was armed; NULL: no memory */
Qcow2Ticker *qcow2_ticker_new(Qcow2Meta *meta, int64_t delay_ns, Qcow2TickFunc *func);
/** qcow2_ticker_arm() - any thread; no lock held that @func takes */
void qcow2_ticker_arm(Qcow2Ticker *ticker);
/** qcow2_ticker_detach() - free it; @func is not called any more; NULL is allowed */
void qcow2_ticker_detach(Qcow2Ticker *ticker);
/** qcow2_is_deterministic() - whether time passes only when all is done */
bool qcow2_is_deterministic(void);

/* ---- background.c ---- */
void qcow2_background_init(Qcow2Meta *meta);
void qcow2_background_destroy(Qcow2Meta *meta);
/** qcow2_background_commit() - start a commit that nobody waits for, unless one is under way. No lock held. */
void qcow2_background_commit(Qcow2Meta *meta);
/** qcow2_background_stir() - something became dirty: see that the timer is armed. No lock held. */
void qcow2_background_stir(Qcow2Meta *meta);
/** qcow2_background_loaded() - a slice is being loaded: see that the caches age. No lock held. */
void qcow2_background_loaded(Qcow2Meta *meta);
/** qcow2_background_set_clean() - another interval; must not yield, no lock held */
void qcow2_background_set_clean(Qcow2Meta *meta, Qcow2CleanConfig clean);

#endif
