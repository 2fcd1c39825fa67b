/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/inflight.h"

#include "drivers/qcow2/meta/meta.h"

#define SHARDS 16u

typedef struct Shard {
    _Alignas(64) pthread_mutex_t lock;
    Qcow2InflightRange *ranges; /* lock */
    CoQueue waiters;            /* lock */
} Shard;

struct Qcow2Inflight {
    Shard shards[SHARDS];
};

Qcow2Inflight *qcow2_inflight_new(void)
{
    Qcow2Inflight *inflight = aligned_alloc(64, sizeof(*inflight));
    for (unsigned i = 0; inflight && i < SHARDS; i++) {
        Shard *shard = &inflight->shards[i];
        pthread_mutex_init(&shard->lock, NULL);
        co_queue_init(&shard->waiters);
        shard->ranges = NULL;
    }
    return inflight;
}

void qcow2_inflight_free(Qcow2Inflight *inflight)
{
    for (unsigned i = 0; inflight && i < SHARDS; i++) {
        pthread_mutex_destroy(&inflight->shards[i].lock);
    }
    free(inflight);
}

static bool overlaps_locked(const Shard *shard, uint64_t begin, uint64_t end)
{
    for (const Qcow2InflightRange *range = shard->ranges; range; range = range->next) {
        if (range->begin < end && begin < range->end) {
            return true;
        }
    }
    return false;
}

bool coroutine_fn qcow2_inflight_begin(BlockDriverState *bs, Qcow2InflightRange *range, uint64_t begin, uint64_t end)
{
    uint64_t slice_end = qcow2_l2_slice_end(bs, begin);
    unsigned index = (unsigned)((slice_end * UINT64_C(0x9e3779b97f4a7c15)) >> 40) % SHARDS;
    Shard *shard = &qcow2_state(bs)->inflight->shards[index];

    pthread_mutex_lock(&shard->lock);
    if (overlaps_locked(shard, begin, end)) {
        co_queue_wait(&shard->waiters, &shard->lock);
        pthread_mutex_unlock(&shard->lock);
        return false;
    }
    *range = (Qcow2InflightRange){ .begin = begin, .end = end, .shard = index };
    range->next = shard->ranges;
    range->link = &shard->ranges;
    if (range->next) {
        range->next->link = &range->next;
    }
    shard->ranges = range;
    pthread_mutex_unlock(&shard->lock);
    return true;
}

void qcow2_inflight_end(BlockDriverState *bs, Qcow2InflightRange *range)
{
    Shard *shard = &qcow2_state(bs)->inflight->shards[range->shard];

    pthread_mutex_lock(&shard->lock);
    *range->link = range->next;
    if (range->next) {
        range->next->link = range->link;
    }
    co_queue_wake_all(&shard->waiters);
    pthread_mutex_unlock(&shard->lock);
}
