/* SPDX-License-Identifier: MIT */
/*
 * Limbo: what a dropped cluster waits for before it is free.
 *
 *   waiting    the drop is in memory. When B of its commit is durable and every request that was
 *              inside at the drop has left, the count is decremented in the cached slice:
 *   applied    with a count of 0 the cluster is in the busy set until the decrement (C) is durable;
 *   punching   then its space is given back to the host, if wanted, and it is free.
 *
 * Epochs: a request marks its thread's counter of the current epoch's parity. The epoch advances when
 * the counters of the other parity, its predecessor's, are all 0; so two advances after a drop all
 * that could have seen the old mapping are gone.
 */

#include <errno.h>

#include "drivers/qcow2/compressed.h"
#include "drivers/qcow2/meta/meta_int.h"

unsigned qcow2_epoch_enter(Qcow2Meta *meta)
{
    Qcow2EpochSlot *slot = &meta->slots[aio_context_index(aio_context_current())];
    for (;;) {
        uint64_t epoch = atomic_load(&meta->epoch);
        atomic_fetch_add(&slot->inside[epoch & 1], 1);
        if (G_LIKELY(atomic_load(&meta->epoch) == epoch)) {
            return epoch & 1;
        }
        atomic_fetch_sub(&slot->inside[epoch & 1], 1);
    }
}

void qcow2_epoch_leave(Qcow2Meta *meta, unsigned epoch)
{
    Qcow2EpochSlot *slot = &meta->slots[aio_context_index(aio_context_current())];
    atomic_fetch_sub_explicit(&slot->inside[epoch], 1, memory_order_release);
}

static bool parity_is_empty(Qcow2Meta *meta, unsigned parity)
{
    for (unsigned i = 0; i < AIO_CONTEXT_MAX; i++) {
        if (atomic_load(&meta->slots[i].inside[parity])) {
            return false;
        }
    }
    return true;
}

void qcow2_limbo_advance_epoch_locked(Qcow2Meta *meta)
{
    for (unsigned i = 0; i < 2; i++) {
        uint64_t epoch = atomic_load(&meta->epoch);
        if (!parity_is_empty(meta, (epoch + 1) & 1)) {
            return;
        }
        atomic_store(&meta->epoch, epoch + 1);
    }
}

static void append(Qcow2LimboList *list, Qcow2Limbo *limbo)
{
    limbo->next = NULL;
    if (list->last) {
        list->last->next = limbo;
    } else {
        list->first = limbo;
    }
    list->last = limbo;
}

static Qcow2Limbo *take_first(Qcow2LimboList *list)
{
    Qcow2Limbo *limbo = list->first;
    if (limbo) {
        list->first = limbo->next;
        if (!list->first) {
            list->last = NULL;
        }
    }
    return limbo;
}

bool qcow2_limbo_empty_locked(const Qcow2Meta *meta)
{
    return !meta->waiting.first && !meta->applied.first && !meta->applying;
}

bool qcow2_limbo_done_locked(const Qcow2Meta *meta, uint64_t drops)
{
    const Qcow2Limbo *heads[] = { meta->waiting.first, meta->applied.first, meta->punching.first, meta->applying };
    for (unsigned i = 0; i < G_N_ELEMENTS(heads); i++) {
        if (heads[i] && heads[i]->serial <= drops) {
            return false;
        }
    }
    for (const Qcow2Limbo *punch = meta->punches; punch; punch = punch->next) {
        if (punch->serial <= drops) {
            return false;
        }
    }
    return true;
}

void qcow2_drop_clusters(BlockDriverState *bs, uint64_t host_offset, uint64_t count, Qcow2DiscardType why)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    bool punch = meta->s->discard.pass[why];
    uint64_t first = host_offset >> meta->s->geometry.cluster_bits;

    pthread_mutex_lock(&meta->rc.lock);
    uint64_t epoch = atomic_load(&meta->epoch);
    Qcow2Limbo *last = meta->waiting.last;
    if (last && last->first + last->count == first && last->commit == meta->open_commit && last->epoch == epoch &&
        last->punch == punch) {
        last->count += count;
    } else {
        Qcow2Limbo *limbo = g_try_new(Qcow2Limbo, 1);
        if (limbo) {
            *limbo = (Qcow2Limbo){
                .first = first, .count = count, .commit = meta->open_commit, .epoch = epoch,
                .serial = ++meta->drops, .punch = punch,
            };
            append(&meta->waiting, limbo);
        }
    }
    pthread_mutex_unlock(&meta->rc.lock);
    qcow2_background_stir(meta);
}

/* ---- waiting -> applied ---- */

static bool is_due_locked(Qcow2Meta *meta, const Qcow2Limbo *limbo)
{
    return limbo->commit <= meta->durable_commit && atomic_load(&meta->epoch) >= limbo->epoch + 2;
}

/* One reference less. Returns false if the slice cannot be had now; *@bad if there was none to take. */
static bool coroutine_fn decrement_locked(Qcow2Meta *meta, uint64_t cluster, bool *bad)
{
    unsigned order = meta->s->geometry.refcount_order;
    Qcow2Slice *slice;

    int ret = qcow2_refslice_get_locked(meta, cluster, false, &slice);
    if (ret < 0) {
        meta->limbo_error = ret == -EBUSY ? 0 : ret;
        return false;
    }
    uint64_t index = qcow2_refslice_index(meta, cluster);
    uint64_t count = slice ? qcow2_refcount_get(slice->bytes, index, order) : 0;
    if (count == 0) {
        *bad = true;
        return true;
    }
    if (count == 1 && !qcow2_cluster_set_add(&meta->busy, cluster, 1)) {
        meta->limbo_error = -ENOMEM;
        return false;
    }
    qcow2_refcount_set(slice->bytes, index, order, count - 1);
    qcow2_cache_dirty_locked(&meta->rc, slice);
    if (count == 1) {
        qcow2_pack_leave_locked(meta, cluster);
    }
    return true;
}

/* Decrement the head of the list as far as slices can be had; true if all of it. */
static bool coroutine_fn apply_locked(Qcow2Meta *meta, Qcow2Limbo *limbo, uint64_t *done, bool *bad)
{
    for (*done = 0; *done < limbo->count; ++*done) {
        if (!decrement_locked(meta, limbo->first + *done, bad)) {
            return false;
        }
    }
    return true;
}

/* The part [0, done) of a partly applied run becomes an entry of its own. */
static void split_locked(Qcow2Meta *meta, Qcow2Limbo *limbo, uint64_t done)
{
    Qcow2Limbo *part = done ? g_try_new(Qcow2Limbo, 1) : NULL;
    if (part) {
        *part = *limbo;
        part->count = done;
        part->commit = 0;
        append(&meta->applied, part);
    } /* without memory: the busy bits stay, the clusters are not used until reopened */
    limbo->first += done;
    limbo->count -= done;
    limbo->next = meta->waiting.first;
    meta->waiting.first = limbo;
    if (!meta->waiting.last) {
        meta->waiting.last = limbo;
    }
}

void coroutine_fn qcow2_limbo_apply(Qcow2Meta *meta)
{
    bool bad = false;

    pthread_mutex_lock(&meta->rc.lock);
    meta->limbo_error = 0;
    if (meta->waiting.first) {
        qcow2_limbo_advance_epoch_locked(meta);
    }
    while (meta->waiting.first && is_due_locked(meta, meta->waiting.first)) {
        /* Off the list while the lock may be given up: a drop could extend it. */
        Qcow2Limbo *limbo = take_first(&meta->waiting);
        uint64_t done;
        meta->applying = limbo;
        bool all = apply_locked(meta, limbo, &done, &bad);
        meta->applying = NULL;
        if (!all) {
            split_locked(meta, limbo, done);
            break;
        }
        limbo->commit = 0;
        append(&meta->applied, limbo);
    }
    pthread_mutex_unlock(&meta->rc.lock);
    if (bad) {
        qcow2_mark_corrupt(meta->bs, "a cluster in use has refcount 0; run 'bdrv-img check'");
    }
}

/* ---- applied -> free ---- */

static void free_cluster_locked(Qcow2Meta *meta, uint64_t cluster)
{
    uint32_t cluster_size = meta->s->geometry.cluster_size;
    uint64_t host_offset = cluster << meta->s->geometry.cluster_bits;

    qcow2_cluster_set_remove(&meta->busy, cluster, 1);
    if (qcow2_cluster_set_has_any(&meta->metadata, cluster, 1)) {
        qcow2_cluster_set_remove(&meta->metadata, cluster, 1);
        qcow2_cache_forget_locked(&meta->rc, host_offset, cluster_size);
    }
    meta->free_hint = MIN(meta->free_hint, cluster);
    meta->frees++;
}

/*
 * Free what has no reference left; what is to be punched stays busy and goes on the next list. Drops of
 * compressed clusters overlap: the first one decides, the others leave the cluster alone.
 */
static void release_locked(Qcow2Meta *meta, Qcow2Limbo *limbo)
{
    bool any = false, punch = false;
    for (uint64_t i = 0; i < limbo->count; i++) {
        uint64_t cluster = limbo->first + i;
        if (!qcow2_cluster_set_has_any(&meta->busy, cluster, 1) ||
            qcow2_cluster_set_has_any(&meta->unpunched, cluster, 1)) {
            continue;
        }
        any = true;
        if (limbo->punch && qcow2_cluster_set_add(&meta->unpunched, cluster, 1)) {
            punch = true;
        } else {
            free_cluster_locked(meta, cluster);
        }
    }
    if (any) {
        unsigned bits = meta->s->geometry.cluster_bits;
        qcow2_compressed_forget(meta->bs, limbo->first << bits, limbo->count << bits);
    }
    if (punch) {
        append(&meta->punching, limbo);
    } else {
        g_free(limbo);
    }
}

void qcow2_limbo_release_locked(Qcow2Meta *meta, uint64_t commit)
{
    while (meta->applied.first && meta->applied.first->commit && meta->applied.first->commit <= commit) {
        release_locked(meta, take_first(&meta->applied));
    }
}

/* ---- punching ---- */

/* Clusters from @first on that are the caller's to punch now: busy, so that nobody can take them meanwhile. */
static uint64_t claim_locked(Qcow2Meta *meta, uint64_t first, uint64_t count)
{
    uint64_t n = 0;
    while (n < count && qcow2_cluster_set_has_any(&meta->unpunched, first + n, 1)) {
        n++;
    }
    qcow2_cluster_set_remove(&meta->unpunched, first, n);
    return n;
}

static void coroutine_fn punch_one(Qcow2Meta *meta, Qcow2Limbo *limbo)
{
    unsigned bits = meta->s->geometry.cluster_bits;
    for (uint64_t at = 0; at < limbo->count;) {
        pthread_mutex_lock(&meta->rc.lock);
        uint64_t n = claim_locked(meta, limbo->first + at, limbo->count - at);
        pthread_mutex_unlock(&meta->rc.lock);
        if (n == 0) {
            at++;
            continue;
        }
        int64_t length = atomic_load(&meta->bs->file->bs->length);
        int64_t begin = (int64_t)((limbo->first + at) << bits);
        int64_t end = MIN((int64_t)((limbo->first + at + n) << bits), length);
        if (begin < end) {
            bdrv_co_pdiscard(meta->bs->file, begin, end - begin); /* a hint */
        }
        pthread_mutex_lock(&meta->rc.lock);
        for (uint64_t i = 0; i < n; i++) {
            free_cluster_locked(meta, limbo->first + at + i);
        }
        pthread_mutex_unlock(&meta->rc.lock);
        at += n;
    }
}

/* Off the list of what is to be punched, but still to be seen by those who wait for the space. */
static Qcow2Limbo *begin_punch(Qcow2Meta *meta)
{
    pthread_mutex_lock(&meta->rc.lock);
    Qcow2Limbo *limbo = take_first(&meta->punching);
    if (limbo) {
        limbo->next = meta->punches;
        meta->punches = limbo;
    }
    pthread_mutex_unlock(&meta->rc.lock);
    return limbo;
}

static void end_punch(Qcow2Meta *meta, Qcow2Limbo *limbo)
{
    pthread_mutex_lock(&meta->rc.lock);
    Qcow2Limbo **link = &meta->punches;
    while (*link != limbo) {
        link = &(*link)->next;
    }
    *link = limbo->next;
    pthread_mutex_unlock(&meta->rc.lock);
    g_free(limbo);
}

void coroutine_fn qcow2_limbo_punch(Qcow2Meta *meta)
{
    for (Qcow2Limbo *limbo; (limbo = begin_punch(meta));) {
        punch_one(meta, limbo);
        end_punch(meta, limbo);
    }
}

void qcow2_limbo_free(Qcow2Meta *meta)
{
    Qcow2LimboList *lists[] = { &meta->waiting, &meta->applied, &meta->punching };
    for (unsigned i = 0; i < G_N_ELEMENTS(lists); i++) {
        for (Qcow2Limbo *limbo; (limbo = take_first(lists[i]));) {
            g_free(limbo);
        }
    }
}
