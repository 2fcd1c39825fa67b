/* SPDX-License-Identifier: MIT */
/*
 * The commit: make what was published durable, in phases, each ended by a flush (docs/qcow2-metadata.md).
 *
 * What goes out is copied at one moment, the freeze, with all metadata locks held. So an entry that is
 * published later, whose data is not covered by this commit's first flush, cannot slip into phase B.
 * Until the commit is over the slices copied may not be evicted: the file is older than they are.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "drivers/qcow2/data_file.h"
#include "drivers/qcow2/fanout.h"
#include "drivers/qcow2/meta/invariants.h"

/* Somebody who joined a commit that has not frozen yet; on the stack of its coroutine. */
struct Qcow2Joiner {
    Qcow2Joiner *next;
    Coroutine *co;
    int ret;
};

/* A piece of the arena and where it goes. Adjacent pieces are put together. */
typedef struct Piece {
    uint64_t host_offset, bytes;
    const uint8_t *data;
} Piece;

typedef struct Pieces {
    Piece *pieces;
    unsigned count;
} Pieces;

typedef struct Commit {
    Qcow2Meta *meta;
    uint64_t number;
    uint8_t *at; /* next free byte of the arena */
    Pieces a1, a, b;
    Qcow2Slice **slices; /* frozen: rc first, then l2 */
    unsigned rc_count, l2_count;
    bool lazy; /* dirty counts were left out */
    uint64_t *l1_sectors, *reftable_sectors; /* frozen, to dirty again after an error */
    unsigned l1_count, reftable_count;
    void *memory; /* of the arrays */
} Commit;

/* ---- freeze ---- */

typedef struct Counts {
    unsigned rc, l2, l1, reftable;
} Counts;

static void lock_all(Qcow2Meta *meta)
{
    pthread_mutex_lock(&meta->rc.lock);
    pthread_mutex_lock(&meta->l2.lock);
}

static void unlock_all(Qcow2Meta *meta)
{
    pthread_mutex_unlock(&meta->l2.lock);
    pthread_mutex_unlock(&meta->rc.lock);
}

static Counts count_dirty_locked(const Qcow2Meta *meta)
{
    return (Counts){
        .rc = meta->rc.dirty_count,
        .l2 = meta->l2.dirty_count,
        .l1 = (unsigned)meta->l1.dirty_count,
        .reftable = (unsigned)meta->reftable.dirty_count,
    };
}

bool qcow2_commit_dirty(Qcow2Meta *meta)
{
    lock_all(meta);
    Counts n = count_dirty_locked(meta);
    bool dirty = n.rc || n.l2 || n.l1 || n.reftable || !qcow2_limbo_empty_locked(meta);
    unlock_all(meta);
    return dirty;
}

/*
 * Lazy refcounts: once the dirty bit is durable, counts may be behind what is published, since whoever opens the
 * image for writing next counts again. They wait until they crowd the cache or somebody wants them written. The first
 * pointer is worth the dirty bit; counts alone are not.
 */
static bool counts_may_wait_locked(const Qcow2Meta *meta, Counts n)
{
    return meta->s->lazy_refcounts && !atomic_load(&meta->counts_wanted) && !qcow2_cache_crowded_locked(&meta->rc) &&
           (atomic_load(&meta->dirty_marked) || n.l2 || n.l1);
}

bool qcow2_commit_due(Qcow2Meta *meta)
{
    lock_all(meta);
    Counts n = count_dirty_locked(meta);
    bool due = (n.rc && !counts_may_wait_locked(meta, n)) || n.l2 || n.l1 || n.reftable ||
               !qcow2_limbo_empty_locked(meta);
    unlock_all(meta);
    return due;
}

static size_t arena_need(const Qcow2Meta *meta, Counts n)
{
    return (size_t)n.rc * meta->rc.slice_bytes + (size_t)n.l2 * meta->l2.slice_bytes +
           ((size_t)n.l1 + n.reftable) * QCOW2_SECTOR;
}

/* Room for the copies and for the lists of what was copied. Nothing held. */
static int reserve(Commit *commit, Counts n)
{
    Qcow2Meta *meta = commit->meta;
    size_t need = arena_need(meta, n);
    size_t slices = (size_t)n.rc + n.l2, sectors = (size_t)n.l1 + n.reftable;

    if (need > meta->arena_bytes) {
        uint8_t *arena = bdrv_try_blockalign(meta->bs->file->bs, need);
        if (!arena) {
            return -ENOMEM;
        }
        bdrv_vfree(meta->arena);
        meta->arena = arena;
        meta->arena_bytes = need;
    }
    size_t bytes = (slices + sectors) * sizeof(Piece) + slices * sizeof(Qcow2Slice *) + sectors * sizeof(uint64_t);
    g_free(commit->memory);
    commit->memory = g_try_malloc(MAX(bytes, 1));
    if (!commit->memory) {
        return -ENOMEM;
    }
    commit->a1.pieces = commit->memory;
    commit->a.pieces = commit->a1.pieces + n.reftable;
    commit->b.pieces = commit->a.pieces + n.rc;
    commit->slices = (Qcow2Slice **)(commit->b.pieces + n.l2 + n.l1);
    commit->l1_sectors = (uint64_t *)(commit->slices + slices);
    commit->reftable_sectors = commit->l1_sectors + n.l1;
    return 0;
}

static void add_piece(Commit *commit, Pieces *list, uint64_t host_offset, uint64_t bytes)
{
    Piece *last = list->count ? &list->pieces[list->count - 1] : NULL;
    if (last && last->host_offset + last->bytes == host_offset && last->data + last->bytes == commit->at) {
        last->bytes += bytes;
    } else {
        list->pieces[list->count++] = (Piece){ .host_offset = host_offset, .bytes = bytes, .data = commit->at };
    }
    commit->at += bytes;
}

static int by_tag(const void *a, const void *b)
{
    uint64_t x = atomic_load_explicit(&(*(Qcow2Slice *const *)a)->tag, memory_order_relaxed);
    uint64_t y = atomic_load_explicit(&(*(Qcow2Slice *const *)b)->tag, memory_order_relaxed);
    return x < y ? -1 : x > y;
}

static void copy_slice(uint8_t *to, const Qcow2Slice *slice, uint32_t bytes, bool atomic)
{
    if (!atomic) {
        memcpy(to, slice->bytes, bytes);
        return;
    }
    uint64_t *words = (uint64_t *)to;
    for (uint32_t i = 0; i < bytes / sizeof(uint64_t); i++) {
        words[i] = atomic_load_explicit(&slice->entries[i], memory_order_relaxed);
    }
}

static unsigned freeze_cache_locked(Commit *commit, Qcow2Cache *cache, Pieces *list, Qcow2Slice **frozen, bool atomic)
{
    unsigned count = cache->dirty_count;
    qsort(cache->dirty, count, sizeof(*cache->dirty), by_tag);
    for (unsigned i = 0; i < count; i++) {
        Qcow2Slice *slice = cache->dirty[i];
        copy_slice(commit->at, slice, cache->slice_bytes, atomic);
        add_piece(commit, list, atomic_load_explicit(&slice->tag, memory_order_relaxed), cache->slice_bytes);
        slice->dirty = false;
        slice->committing = true;
        frozen[i] = slice;
    }
    cache->dirty_count = 0;
    cache->committing_count = count;
    return count;
}

static unsigned freeze_table_locked(Commit *commit, Qcow2Table *table, Pieces *list, uint64_t *sectors)
{
    unsigned n = 0;
    for (uint64_t sector = table->dirty_first; sector < table->dirty_end; sector++) {
        if (table->dirty[sector]) {
            qcow2_table_copy_sector(table, sector, commit->at);
            add_piece(commit, list, table->host_offset + sector * QCOW2_SECTOR, QCOW2_SECTOR);
            sectors[n++] = sector;
        }
    }
    qcow2_table_clean(table);
    return n;
}

static void freeze_locked(Commit *commit)
{
    Qcow2Meta *meta = commit->meta;
    Counts n = count_dirty_locked(meta);

    commit->number = meta->open_commit++;
    commit->at = meta->arena;
    commit->reftable_count = freeze_table_locked(commit, &meta->reftable, &commit->a1, commit->reftable_sectors);
    commit->lazy = n.rc && counts_may_wait_locked(meta, n);
    if (!commit->lazy) {
        commit->rc_count = freeze_cache_locked(commit, &meta->rc, &commit->a, commit->slices, false);
    }
    commit->l2_count =
        freeze_cache_locked(commit, &meta->l2, &commit->b, commit->slices + commit->rc_count, true);
    commit->l1_count = freeze_table_locked(commit, &meta->l1, &commit->b, commit->l1_sectors);
    for (Qcow2Limbo *limbo = meta->applied.first; limbo; limbo = limbo->next) {
        if (!limbo->commit) {
            limbo->commit = commit->number;
        }
    }
}

static int freeze(Commit *commit)
{
    Qcow2Meta *meta = commit->meta;
    Counts have = { 0 };

    for (;;) {
        lock_all(meta);
        Counts n = count_dirty_locked(meta);
        if (commit->memory && n.rc <= have.rc && n.l2 <= have.l2 && n.l1 <= have.l1 && n.reftable <= have.reftable) {
            freeze_locked(commit);
            unlock_all(meta);
            return 0;
        }
        unlock_all(meta);
        /* A little more than needed: others go on dirtying meanwhile. */
        have = (Counts){ MIN(n.rc + 2, meta->rc.count), MIN(n.l2 + 2, meta->l2.count), n.l1 + 2, n.reftable + 2 };
        int ret = reserve(commit, have);
        if (ret < 0) {
            return ret;
        }
    }
}

/* ---- after it ---- */

static void thaw_slices_locked(Qcow2Cache *cache, Qcow2Slice **slices, unsigned count, bool failed)
{
    for (unsigned i = 0; i < count; i++) {
        slices[i]->committing = false;
        if (failed) {
            qcow2_cache_dirty_locked(cache, slices[i]); /* what it holds now is the same or newer */
        }
    }
    cache->committing_count = 0;
}

/* The frozen copies are durable, or else what they were copied from is dirty again. */
static void thaw(Commit *commit, bool a_failed, bool b_failed)
{
    Qcow2Meta *meta = commit->meta;

    lock_all(meta);
    thaw_slices_locked(&meta->rc, commit->slices, commit->rc_count, a_failed);
    thaw_slices_locked(&meta->l2, commit->slices + commit->rc_count, commit->l2_count, b_failed);
    for (unsigned i = 0; a_failed && i < commit->reftable_count; i++) {
        qcow2_table_dirty_sector(&meta->reftable, commit->reftable_sectors[i]);
    }
    for (unsigned i = 0; b_failed && i < commit->l1_count; i++) {
        qcow2_table_dirty_sector(&meta->l1, commit->l1_sectors[i]);
    }
    if (!a_failed) {
        qcow2_limbo_release_locked(meta, commit->number);
    }
    if (!b_failed) {
        meta->durable_commit = commit->number;
    }
    unlock_all(meta);
}

/* ---- phases ---- */

typedef struct PieceWork {
    Qcow2Meta *meta;
    const Pieces *list;
} PieceWork;

static int coroutine_fn write_piece(void *opaque, uint64_t first, uint64_t count)
{
    const PieceWork *work = opaque;
    const Piece *piece = &work->list->pieces[first];

    co_maybe_yield();
    return qcow2_write_meta(work->meta, piece->host_offset, piece->bytes, piece->data);
}

/* Side by side: within a phase there is no order. */
static int coroutine_fn write_pieces(Commit *commit, const Pieces *list)
{
    PieceWork work = { commit->meta, list };
    Qcow2Fanout fanout;
    int ret = 0;

    if (list->count == 1) {
        return write_piece(&work, 0, 1);
    }
    qcow2_fanout_init(&fanout, write_piece, &work);
    for (unsigned i = 0; i < list->count && ret >= 0; i++) {
        ret = qcow2_fanout_start(&fanout, i, 1);
    }
    return qcow2_fanout_finish(&fanout);
}

static void edit_dirty(Qcow2Header *header, const void *opaque)
{
    header->incompatible_features |= QCOW2_INCOMPAT_DIRTY;
}

/* Counts are left out of this commit: before its pointers are written the file must say so. */
static int coroutine_fn mark_dirty(Commit *commit)
{
    return commit->lazy ? qcow2_meta_mark(commit->meta->bs) : 0;
}

/* A0 is in the file already; links to it go out behind a flush of their own. Then A, then data and A are flushed. */
static int coroutine_fn phase_a(Commit *commit)
{
    BlockDriverState *bs = commit->meta->bs;
    int ret = 0;

    if (commit->a1.count) {
        ret = bdrv_co_flush(bs->file);
        if (ret >= 0) {
            bdrv_debug_event(bs, BDRV_EVENT_REFTABLE_UPDATE);
            ret = write_pieces(commit, &commit->a1);
        }
    }
    if (ret >= 0 && commit->a.count) {
        bdrv_debug_event(bs, BDRV_EVENT_REFBLOCK_UPDATE_PART);
        ret = write_pieces(commit, &commit->a);
    }
    if (ret >= 0) {
        ret = qcow2_data_flush(bs);
    }
    return ret < 0 ? ret : bdrv_co_flush(bs->file);
}

static int coroutine_fn phase_b(Commit *commit)
{
    BlockDriverState *bs = commit->meta->bs;

    if (!commit->b.count) {
        return 0;
    }
#ifdef CONFIG_DEBUG_INVARIANTS
    for (unsigned i = 0; i < commit->b.count; i++) {
        const Piece *piece = &commit->b.pieces[i];
        qcow2_check_phase_b(commit->meta, piece->host_offset, piece->bytes, piece->data);
    }
#endif
    int ret = write_pieces(commit, &commit->b);
    return ret < 0 ? ret : bdrv_co_flush(bs->file);
}

/* commit_lock held, before the round is closed: load what the freeze will need. */
static int coroutine_fn run_commit(Qcow2Meta *meta, Commit *commit)
{
    int ret = freeze(commit);
    if (ret < 0) {
        return ret;
    }
    ret = mark_dirty(commit);
    if (ret >= 0) {
        ret = phase_a(commit);
    }
    bool a_failed = ret < 0;
    if (!a_failed) {
        ret = phase_b(commit);
    }
    thaw(commit, a_failed, ret < 0);
    return ret < 0 ? ret : 0;
}

/* ---- joining ---- */

static Qcow2Joiner *close_round(Qcow2Meta *meta)
{
    pthread_mutex_lock(&meta->join_lock);
    Qcow2Joiner *joiners = meta->joiners;
    meta->joiners = NULL;
    meta->round_open = false;
    pthread_mutex_unlock(&meta->join_lock);
    return joiners;
}

static void wake_joiners(Qcow2Joiner *joiner, int ret)
{
    while (joiner) {
        Qcow2Joiner *next = joiner->next; /* gone once it is woken */
        joiner->ret = ret;
        co_wake(joiner->co);
        joiner = next;
    }
}

/* True if the caller joined somebody's round, which is over now. */
static bool coroutine_fn join_round(Qcow2Meta *meta, int *ret)
{
    Qcow2Joiner self = { .co = co_self() };

    pthread_mutex_lock(&meta->join_lock);
    if (!meta->round_open) {
        meta->round_open = true;
        pthread_mutex_unlock(&meta->join_lock);
        return false;
    }
    self.next = meta->joiners;
    meta->joiners = &self;
    pthread_mutex_unlock(&meta->join_lock);
    co_yield_reason("qcow2 commit");
    *ret = self.ret;
    return true;
}

/* Whether a commit may write. */
static int coroutine_fn check_state(Qcow2Meta *meta)
{
    int ret = qcow2_settle_header(meta);
    return ret < 0 ? ret : atomic_load(&meta->s->corrupt) && qcow2_commit_dirty(meta) ? -EIO : 0;
}

int coroutine_fn qcow2_meta_commit(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    Commit commit = { .meta = meta };
    int ret;

    if (!meta->writable) {
        return 0;
    }
    if (join_round(meta, &ret)) {
        return ret;
    }
    co_mutex_lock(&meta->commit_lock);
    qcow2_limbo_apply(meta);
    Qcow2Joiner *joiners = close_round(meta);
    ret = check_state(meta);
    if (ret >= 0) {
        ret = run_commit(meta, &commit);
    }
    g_free(commit.memory);
#ifdef CONFIG_DEBUG_INVARIANTS
    if (ret >= 0) {
        qcow2_check_invariants(meta);
    }
#endif
    co_mutex_unlock(&meta->commit_lock);
    wake_joiners(joiners, ret);

    pthread_mutex_lock(&meta->rc.lock);
    bool punch = meta->punching.first != NULL;
    pthread_mutex_unlock(&meta->rc.lock);
    if (punch) {
        qcow2_limbo_punch(meta);
    }
    return ret;
}

/* ---- counts alone ---- */

/* Frozen like those of a commit, but they belong to none: limbo is not concerned. */
static int freeze_counts(Commit *commit)
{
    Qcow2Meta *meta = commit->meta;
    unsigned have = 0;

    for (;;) {
        lock_all(meta);
        Counts n = count_dirty_locked(meta);
        bool none = !n.rc || counts_may_wait_locked(meta, n);
        if (none || (commit->memory && n.rc <= have)) {
            commit->at = meta->arena;
            commit->rc_count = none ? 0 : freeze_cache_locked(commit, &meta->rc, &commit->a, commit->slices, false);
            unlock_all(meta);
            return 0;
        }
        unlock_all(meta);
        have = MIN(n.rc + 2, meta->rc.count);
        int ret = reserve(commit, (Counts){ .rc = have });
        if (ret < 0) {
            return ret;
        }
    }
}

/* commit_lock held. */
static int coroutine_fn write_counts(Commit *commit)
{
    Qcow2Meta *meta = commit->meta;
    int ret = freeze_counts(commit);

    if (ret >= 0 && commit->rc_count) {
        bdrv_debug_event(meta->bs, BDRV_EVENT_REFBLOCK_UPDATE_PART);
        ret = write_pieces(commit, &commit->a);
        lock_all(meta);
        thaw_slices_locked(&meta->rc, commit->slices, commit->rc_count, ret < 0);
        unlock_all(meta);
    }
    return ret;
}

int coroutine_fn qcow2_meta_write_counts(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    Commit commit = { .meta = meta };

    pthread_mutex_lock(&meta->rc.lock);
    bool dirty = meta->rc.dirty_count;
    pthread_mutex_unlock(&meta->rc.lock);
    if (!meta->writable || !dirty) {
        return 0;
    }
    co_mutex_lock(&meta->commit_lock);
    int ret = check_state(meta);
    ret = ret < 0 ? ret : write_counts(&commit);
    co_mutex_unlock(&meta->commit_lock);
    g_free(commit.memory);
    return ret;
}

/* How long to wait before looking again whether requests that were inside have left. */
#define SETTLE_POLL_NS (100 * 1000)

static bool limbo_done(Qcow2Meta *meta, uint64_t drops, int *error)
{
    pthread_mutex_lock(&meta->rc.lock);
    bool done = qcow2_limbo_done_locked(meta, drops);
    *error = meta->limbo_error;
    pthread_mutex_unlock(&meta->rc.lock);
    return done;
}

static int coroutine_fn settle(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    pthread_mutex_lock(&meta->rc.lock);
    uint64_t drops = meta->drops; /* others may go on dropping */
    pthread_mutex_unlock(&meta->rc.lock);
    int ret = qcow2_meta_commit(bs), error;

    for (unsigned round = 0; ret >= 0 && meta->writable && !limbo_done(meta, drops, &error); round++) {
        if (error < 0) {
            return error;
        }
        if (round >= 2) {
            co_sleep_until(aio_clock_ns(aio_context_current()) + SETTLE_POLL_NS);
        }
        ret = qcow2_meta_commit(bs);
    }
    return ret;
}

int coroutine_fn qcow2_meta_settle(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    atomic_fetch_add(&meta->counts_wanted, 1);
    int ret = settle(bs);
    atomic_fetch_sub(&meta->counts_wanted, 1);
    return ret;
}

static void edit_clean(Qcow2Header *header, const void *opaque)
{
    header->incompatible_features &= ~QCOW2_INCOMPAT_DIRTY;
}

int coroutine_fn qcow2_meta_mark(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);

    if (meta->s->geometry.version < 3 || atomic_load(&meta->dirty_marked)) {
        return 0;
    }
    int ret = qcow2_switch_header(meta, edit_dirty, NULL);
    if (ret >= 0) {
        atomic_store(&meta->dirty_marked, true);
    }
    return ret;
}

bool qcow2_meta_is_marked(BlockDriverState *bs)
{
    return atomic_load(&qcow2_meta(bs)->dirty_marked);
}

void qcow2_meta_keep_mark(BlockDriverState *bs)
{
    qcow2_meta(bs)->keep_mark = true;
}

void qcow2_meta_forget_mark(BlockDriverState *bs)
{
    atomic_store(&qcow2_meta(bs)->dirty_marked, false);
    qcow2_meta(bs)->keep_mark = false;
}

int coroutine_fn qcow2_meta_clean(BlockDriverState *bs)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    int ret = qcow2_commit_dirty(meta) ? qcow2_meta_settle(bs) : qcow2_settle_header(meta);

    if (ret >= 0 && atomic_load(&meta->dirty_marked) && !meta->keep_mark && !qcow2_commit_dirty(meta)) {
        /* Nothing is left to write, but the flush behind the last counts may have failed. */
        ret = qcow2_edit_header(bs, edit_clean, NULL);
        if (ret >= 0) {
            atomic_store(&meta->dirty_marked, false);
        }
    }
    return ret;
}

void coroutine_fn qcow2_meta_verify(BlockDriverState *bs, bool exact)
{
#ifdef CONFIG_DEBUG_INVARIANTS
    Qcow2Meta *meta = qcow2_meta(bs);

    if (!meta || !meta->writable || atomic_load(&meta->s->corrupt)) {
        return;
    }
    co_mutex_lock(&meta->commit_lock);
    qcow2_check_invariants(meta);
    if (meta->was_sound) {
        qcow2_check_references(meta, exact);
    }
    co_mutex_unlock(&meta->commit_lock);
#endif
}
