/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/meta/cache.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "drivers/qcow2/meta/meta_int.h"

/* A reader that walks into another bucket's chain gives up after so many steps and takes the lock. */
#define MAX_STEPS 64

static unsigned bucket_of(const Qcow2Cache *cache, uint64_t tag)
{
    uint64_t h = tag / 512 * UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned)(h >> 32) & cache->bucket_mask;
}

/* Pages take space when they are touched, one by one. */
static void *map_memory(size_t bytes)
{
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    return memory;
}

bool qcow2_cache_init(Qcow2Cache *cache, BlockDriverState *bs, unsigned count, uint32_t slice_bytes,
                      BdrvDebugEvent load_event)
{
    unsigned buckets = 4;
    while (buckets < count) {
        buckets *= 2;
    }
    *cache = (Qcow2Cache){
        .bs = bs, .load_event = load_event, .slice_bytes = slice_bytes, .count = count, .bucket_mask = buckets - 1,
    };
    pthread_mutex_init(&cache->lock, NULL);
    co_queue_init(&cache->load_waiters);
    cache->slices = g_try_new0(Qcow2Slice, count);
    cache->buckets = g_try_malloc0_n(buckets, sizeof(*cache->buckets));
    cache->dirty = g_try_new0(Qcow2Slice *, count);
    cache->memory = map_memory((size_t)count * slice_bytes);
    if (!cache->slices || !cache->buckets || !cache->dirty || !cache->memory) {
        qcow2_cache_destroy(cache);
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        cache->slices[i].bytes = (uint8_t *)cache->memory + (size_t)i * slice_bytes;
    }
    return true;
}

void qcow2_cache_destroy(Qcow2Cache *cache)
{
    g_free(cache->slices);
    g_free(cache->buckets);
    g_free(cache->dirty);
    if (cache->memory) {
        munmap(cache->memory, (size_t)cache->count * cache->slice_bytes);
    }
    cache->slices = NULL;
    cache->buckets = NULL;
    cache->dirty = NULL;
    cache->memory = NULL;
    pthread_mutex_destroy(&cache->lock);
}

void qcow2_cache_swap(Qcow2Cache *a, Qcow2Cache *b)
{
    Qcow2Cache old = *a;
    a->slice_bytes = b->slice_bytes;
    a->count = b->count;
    a->hand = b->hand;
    a->used_end = b->used_end;
    a->bucket_mask = b->bucket_mask;
    a->slices = b->slices;
    a->buckets = b->buckets;
    a->dirty = b->dirty;
    a->memory = b->memory;
    b->slice_bytes = old.slice_bytes;
    b->count = old.count;
    b->slices = old.slices;
    b->buckets = old.buckets;
    b->dirty = old.dirty;
    b->memory = old.memory;
}

static Qcow2Slice *find(Qcow2Cache *cache, uint64_t tag, unsigned max_steps)
{
    Qcow2Slice *slice = atomic_load_explicit(&cache->buckets[bucket_of(cache, tag)], memory_order_acquire);
    while (slice && max_steps--) {
        if (atomic_load_explicit(&slice->tag, memory_order_relaxed) == tag) {
            return slice;
        }
        slice = atomic_load_explicit(&slice->next, memory_order_acquire);
    }
    return NULL;
}

static void touch(Qcow2Slice *slice)
{
    const uint8_t both = QCOW2_SLICE_RECENT | QCOW2_SLICE_YOUNG;
    if (atomic_load_explicit(&slice->used, memory_order_relaxed) != both) {
        atomic_store_explicit(&slice->used, both, memory_order_relaxed);
    }
}

static uint64_t load_word(const Qcow2Slice *slice, unsigned index)
{
    return GUINT64_FROM_BE(atomic_load_explicit(&slice->entries[index], memory_order_acquire));
}

static void store_word(Qcow2Slice *slice, unsigned index, uint64_t value)
{
    atomic_store_explicit(&slice->entries[index], GUINT64_TO_BE(value), memory_order_release);
}

Qcow2RawEntry qcow2_cache_load_locked(const Qcow2Cache *cache, const Qcow2Slice *slice, unsigned index)
{
    return cache->entry_words == 1 ? (Qcow2RawEntry){ load_word(slice, index), 0 }
                                   : (Qcow2RawEntry){ load_word(slice, 2 * index), load_word(slice, 2 * index + 1) };
}

bool qcow2_cache_read_entries(Qcow2Cache *cache, uint64_t tag, unsigned first, unsigned count, Qcow2RawEntry *out)
{
    Qcow2Slice *slice = find(cache, tag, MAX_STEPS);
    if (!slice) {
        return false;
    }
    uint64_t seq = atomic_load_explicit(&slice->seq, memory_order_acquire);
    if ((seq & 1) || atomic_load_explicit(&slice->tag, memory_order_relaxed) != tag) {
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        out[i] = qcow2_cache_load_locked(cache, slice, first + i);
    }
    /* The acquire loads keep this one behind them; a replacement or change made it odd before its first store. */
    if (atomic_load_explicit(&slice->seq, memory_order_relaxed) != seq) {
        return false;
    }
    touch(slice);
    bdrv_count_cache(cache->bs, true);
    return true;
}

Qcow2Slice *qcow2_cache_find_locked(Qcow2Cache *cache, uint64_t tag)
{
    Qcow2Slice *slice = find(cache, tag, UINT_MAX);
    if (slice) {
        touch(slice);
    }
    return slice;
}

static void unlink_locked(Qcow2Cache *cache, Qcow2Slice *slice)
{
    uint64_t tag = atomic_load_explicit(&slice->tag, memory_order_relaxed);
    _Atomic(Qcow2Slice *) *link = &cache->buckets[bucket_of(cache, tag)];
    for (;;) {
        Qcow2Slice *there = atomic_load_explicit(link, memory_order_relaxed);
        if (there == slice) {
            break;
        }
        link = &there->next;
    }
    atomic_store_explicit(link, atomic_load_explicit(&slice->next, memory_order_relaxed), memory_order_release);
}

/* Odd: readers that are inside will notice. And even again. */
static void bump_locked(Qcow2Slice *slice)
{
    uint64_t seq = atomic_load_explicit(&slice->seq, memory_order_relaxed);
    atomic_store_explicit(&slice->seq, seq + 1, memory_order_release);
}

static void begin_replace_locked(Qcow2Cache *cache, Qcow2Slice *slice)
{
    bump_locked(slice);
    if (atomic_load_explicit(&slice->tag, memory_order_relaxed)) {
        unlink_locked(cache, slice);
        atomic_store_explicit(&slice->tag, 0, memory_order_release);
    }
}

static void install_locked(Qcow2Cache *cache, Qcow2Slice *slice, uint64_t tag, const uint64_t *content)
{
    begin_replace_locked(cache, slice);
    for (unsigned i = 0; i < cache->slice_bytes / sizeof(uint64_t); i++) {
        atomic_store_explicit(&slice->entries[i], content[i], memory_order_release);
    }
    atomic_store_explicit(&slice->tag, tag, memory_order_release);
    bump_locked(slice);
    _Atomic(Qcow2Slice *) *bucket = &cache->buckets[bucket_of(cache, tag)];
    atomic_store_explicit(&slice->next, atomic_load_explicit(bucket, memory_order_relaxed), memory_order_release);
    atomic_store_explicit(bucket, slice, memory_order_release);
    touch(slice);
}

static bool has_victim_locked(const Qcow2Cache *cache)
{
    return cache->dirty_count + cache->committing_count < cache->count;
}

/* A slice that is clean in memory and in the file; the clock passes over recently used ones once. */
static Qcow2Slice *pick_victim_locked(Qcow2Cache *cache)
{
    for (unsigned step = 0; step < 2 * cache->count + 1; step++) {
        Qcow2Slice *slice = &cache->slices[cache->hand];
        cache->used_end = MAX(cache->used_end, cache->hand + 1);
        cache->hand = cache->hand + 1 == cache->count ? 0 : cache->hand + 1;
        if (slice->dirty || slice->committing) {
            continue;
        }
        uint8_t used = atomic_load_explicit(&slice->used, memory_order_relaxed);
        if (!(used & QCOW2_SLICE_RECENT)) {
            return slice;
        }
        atomic_store_explicit(&slice->used, used & ~QCOW2_SLICE_RECENT, memory_order_relaxed);
    }
    return NULL;
}

static bool is_loading_locked(const Qcow2Cache *cache, uint64_t tag)
{
    for (const Qcow2CacheLoad *load = cache->loads; load; load = load->next) {
        if (load->tag == tag) {
            return true;
        }
    }
    return false;
}

static void remove_load_locked(Qcow2Cache *cache, Qcow2CacheLoad *load)
{
    Qcow2CacheLoad **link = &cache->loads;
    while (*link != load) {
        link = &(*link)->next;
    }
    *link = load->next;
    co_queue_wake_all(&cache->load_waiters);
}

static int coroutine_fn wait_for_victim_locked(Qcow2Cache *cache)
{
    pthread_mutex_unlock(&cache->lock);
    int ret = qcow2_meta_commit(cache->bs);
    pthread_mutex_lock(&cache->lock);
    return ret;
}

/* Read a slice and put it in a clean one. *@slice stays NULL if all were dirty by then. */
static int coroutine_fn load_locked(Qcow2Cache *cache, uint64_t tag, Qcow2Slice **slice)
{
    BlockDriverState *bs = cache->bs;
    Qcow2CacheLoad load = { .tag = tag, .next = cache->loads };
    cache->loads = &load;
    pthread_mutex_unlock(&cache->lock);

    bdrv_count_cache(bs, false);
    qcow2_background_loaded(qcow2_meta(bs));
    bdrv_debug_event(bs, cache->load_event);
    uint64_t *content = bdrv_try_blockalign(bs->file->bs, cache->slice_bytes);
    int ret = content ? bdrv_co_pread(bs->file, (int64_t)tag, cache->slice_bytes, content, 0) : -ENOMEM;
    co_maybe_yield();

    pthread_mutex_lock(&cache->lock);
    if (ret >= 0) {
        *slice = pick_victim_locked(cache);
        if (*slice) {
            install_locked(cache, *slice, tag, content);
        }
    }
    remove_load_locked(cache, &load);
    bdrv_vfree(content);
    return ret < 0 ? ret : 0;
}

int coroutine_fn qcow2_cache_get_locked(Qcow2Cache *cache, uint64_t tag, bool wait, Qcow2Slice **slice)
{
    int ret = 0;
    *slice = NULL;
    while (ret >= 0) {
        *slice = qcow2_cache_find_locked(cache, tag);
        if (*slice) {
            return 0;
        }
        if (is_loading_locked(cache, tag)) {
            co_queue_wait(&cache->load_waiters, &cache->lock);
        } else if (has_victim_locked(cache)) {
            ret = load_locked(cache, tag, slice);
            if (*slice) {
                return 0;
            }
        } else {
            ret = wait ? wait_for_victim_locked(cache) : -EBUSY;
        }
    }
    return ret;
}

void qcow2_cache_dirty_locked(Qcow2Cache *cache, Qcow2Slice *slice)
{
    if (slice->dirty) {
        return;
    }
    slice->dirty = true;
    cache->dirty[cache->dirty_count++] = slice;
}

void qcow2_cache_store_locked(Qcow2Cache *cache, Qcow2Slice *slice, unsigned first, const Qcow2RawEntry *entries,
                              unsigned count, Qcow2RawEntry *old)
{
    if (cache->entry_words > 1) {
        bump_locked(slice);
    }
    for (unsigned i = 0; i < count; i++) {
        unsigned word = (first + i) * cache->entry_words;
        if (old) {
            old[i] = qcow2_cache_load_locked(cache, slice, first + i);
        }
        store_word(slice, word, entries[i].entry);
        if (cache->entry_words > 1) {
            store_word(slice, word + 1, entries[i].bitmap);
        }
    }
    if (cache->entry_words > 1) {
        bump_locked(slice);
    }
    qcow2_cache_dirty_locked(cache, slice);
}

static void forget_slice_locked(Qcow2Cache *cache, Qcow2Slice *slice)
{
    if (!slice->dirty && !slice->committing) {
        begin_replace_locked(cache, slice);
        bump_locked(slice);
    }
}

void qcow2_cache_forget_locked(Qcow2Cache *cache, uint64_t host_offset, uint64_t bytes)
{
    for (uint64_t tag = host_offset; tag < host_offset + bytes; tag += cache->slice_bytes) {
        Qcow2Slice *slice = find(cache, tag, UINT_MAX);
        if (slice) {
            forget_slice_locked(cache, slice);
        }
    }
}

void qcow2_cache_forget_all_locked(Qcow2Cache *cache)
{
    for (unsigned i = 0; i < cache->count; i++) {
        if (atomic_load_explicit(&cache->slices[i].tag, memory_order_relaxed)) {
            forget_slice_locked(cache, &cache->slices[i]);
        }
    }
}

/* ---- age ---- */

static void drop_locked(Qcow2Cache *cache, Qcow2Slice *slice)
{
    begin_replace_locked(cache, slice);
    bump_locked(slice);
    atomic_store_explicit(&slice->used, 0, memory_order_relaxed);
}

static bool is_empty(const Qcow2Slice *slice)
{
    return atomic_load_explicit(&slice->tag, memory_order_relaxed) == 0;
}

/* Memory of the slices [first, end), which are empty, as far as it is whole pages. */
static void give_back(const Qcow2Cache *cache, unsigned first, unsigned end)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t from = ((size_t)first * cache->slice_bytes + page - 1) / page * page;
    size_t to = (size_t)end * cache->slice_bytes;
    to = end == cache->count ? (to + page - 1) / page * page : to / page * page;
    if (from < to) {
        madvise((uint8_t *)cache->memory + from, to - from, MADV_DONTNEED);
    }
}

bool qcow2_cache_age_locked(Qcow2Cache *cache)
{
    unsigned empty_from = 0;
    bool left = false;

    for (unsigned i = 0; i < cache->used_end; i++) {
        Qcow2Slice *slice = &cache->slices[i];
        uint8_t used = atomic_load_explicit(&slice->used, memory_order_relaxed);
        if (!is_empty(slice) && !slice->dirty && !slice->committing && !(used & QCOW2_SLICE_YOUNG)) {
            drop_locked(cache, slice);
        }
        if (!is_empty(slice)) {
            atomic_store_explicit(&slice->used, used & ~QCOW2_SLICE_YOUNG, memory_order_relaxed);
            give_back(cache, empty_from, i);
            empty_from = i + 1;
            left = true;
        }
    }
    give_back(cache, empty_from, left ? cache->used_end : cache->count);
    cache->used_end = left ? cache->used_end : 0;
    cache->hand = left ? cache->hand : 0;
    return left;
}
