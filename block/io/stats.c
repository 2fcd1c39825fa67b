/* SPDX-License-Identifier: MIT */
#include "block/io/stats.h"

#include <bdrv/driver.h>

/* Written by one thread, without locked instructions; read by any. */
typedef struct Shard {
    _Atomic uint64_t counters[sizeof(BdrvNodeStats) / sizeof(uint64_t)]; /* a BdrvNodeStats */
} Shard;

struct BdrvStats {
    _Atomic(Shard *) shards[AIO_CONTEXT_MAX]; /* each made by the thread that has the index, at its first request */
};

#define COUNTER(field_) (offsetof(BdrvNodeStats, field_) / sizeof(uint64_t))
#define KIND_COUNTER(kind_, field_) \
    (COUNTER(kinds) + ((kind_) * sizeof(BdrvStatCounts) + offsetof(BdrvStatCounts, field_)) / sizeof(uint64_t))

static inline void add(Shard *shard, size_t counter, uint64_t n)
{
    uint64_t old = atomic_load_explicit(&shard->counters[counter], memory_order_relaxed);

    atomic_store_explicit(&shard->counters[counter], old + n, memory_order_relaxed);
}

/* NULL: no memory, then what this thread does is not counted. */
static Shard *shard_of(BdrvStats *stats)
{
    AioContext *ctx = aio_context_current();
    _Atomic(Shard *) *place = &stats->shards[aio_context_index(ctx)];
    Shard *shard = atomic_load_explicit(place, memory_order_relaxed);

    if (G_UNLIKELY(!shard)) {
        shard = g_try_new0(Shard, 1);
        atomic_store_explicit(place, shard, memory_order_release);
    }
    return shard;
}

int64_t coroutine_fn bdrv_stats_begin(void)
{
    return aio_clock_ns(aio_context_current());
}

static unsigned bucket_of(uint64_t ns)
{
    unsigned bucket = ns ? 63 - (unsigned)__builtin_clzll(ns) : 0;

    return MIN(bucket, BDRV_LATENCY_BUCKETS - 1);
}

int coroutine_fn bdrv_stats_end(BdrvStats *stats, BdrvStatKind kind, int64_t bytes, int64_t start, int ret)
{
    Shard *shard = shard_of(stats);
    int64_t ns = bdrv_stats_begin() - start;

    if (shard) {
        add(shard, KIND_COUNTER(kind, requests), 1);
        add(shard, ret < 0 ? KIND_COUNTER(kind, failed) : KIND_COUNTER(kind, bytes), ret < 0 ? 1 : (uint64_t)bytes);
        add(shard, KIND_COUNTER(kind, time_ns), (uint64_t)ns);
        add(shard, KIND_COUNTER(kind, latency) + bucket_of((uint64_t)ns), 1);
    }
    return ret;
}

void bdrv_count_cache(BlockDriverState *bs, bool hit)
{
    BdrvStats *stats = bdrv_stats(bs);
    Shard *shard = G_UNLIKELY(stats != NULL) ? shard_of(stats) : NULL;

    if (shard) {
        add(shard, hit ? COUNTER(cache_hits) : COUNTER(cache_misses), 1);
    }
}

/* Requests that are under way when it is switched off are still counted: the counters stay as long as the node. */
bool bdrv_stats_switch(BlockDriverState *bs, bool on)
{
    BdrvNode *node = bdrv_node(bs);

    if (on && !node->stats_kept) {
        node->stats_kept = g_try_new0(BdrvStats, 1);
    }
    atomic_store_explicit(&node->stats, on ? node->stats_kept : NULL, memory_order_release);
    return !on || node->stats_kept;
}

bool bdrv_stats_read(BlockDriverState *bs, BdrvNodeStats *sums)
{
    BdrvStats *stats = bdrv_node(bs)->stats_kept;
    uint64_t *to = (uint64_t *)sums;

    if (!stats) {
        return false;
    }
    *sums = (BdrvNodeStats){ 0 };
    for (unsigned i = 0; i < AIO_CONTEXT_MAX; i++) {
        Shard *shard = atomic_load_explicit(&stats->shards[i], memory_order_acquire);

        for (size_t counter = 0; shard && counter < G_N_ELEMENTS(shard->counters); counter++) {
            to[counter] += atomic_load_explicit(&shard->counters[counter], memory_order_relaxed);
        }
    }
    return true;
}

void bdrv_stats_free(BdrvStats *stats)
{
    for (unsigned i = 0; stats && i < AIO_CONTEXT_MAX; i++) {
        g_free(atomic_load_explicit(&stats->shards[i], memory_order_acquire));
    }
    g_free(stats);
}
