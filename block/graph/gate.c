/* SPDX-License-Identifier: MIT */
/*
 * The gate: who is inside, and how to keep others out.
 *
 * One word a thread (a slot) holds the number of requests inside and two flags. Only the slot's own
 * thread changes the number; closers set CLOSED in every slot. So one atomic operation tells an
 * entering request that the gate is open and counts it, and one tells a leaving request whether it
 * was the last that a closer waits for: there is no second variable that could be read too early
 * or too late, or that is gone when a leaver comes back to look at it.
 *
 * A closer counts the slots that were not empty when it set CLOSED ("busy"). The last leaver of such
 * a slot takes the lock and counts it off; the wait ends at zero. Nobody enters a closed slot (a
 * nested entry finds the number above zero), so each busy slot is counted off once.
 */
#include "block/graph/graph_int.h"

#include <errno.h>
#include <stdatomic.h>

#define SLOT_CLOSED (1u << 31)
#define SLOT_PARKED (1u << 30) /* requests wait in the slot: newcomers go behind them */
#define SLOT_COUNT (SLOT_PARKED - 1)
#define SLOT_BYTES 64

typedef struct BdrvSlot {
    _Atomic uint32_t word;
    BdrvGate *gate;
    BdrvGateWait *first, **last; /* gate->lock: parked, in order */
    char pad[SLOT_BYTES - 32];   /* one cache line a thread */
} BdrvSlot;

G_STATIC_ASSERT(sizeof(BdrvSlot) == SLOT_BYTES);

struct BdrvGate {
    BdrvSlot *slots; /* AIO_CONTEXT_MAX, aligned to SLOT_BYTES inside @memory */
    void *memory;
    _Atomic unsigned refs;
    pthread_mutex_t lock;
    unsigned closed;        /* lock: closers */
    unsigned busy;          /* lock: slots to be counted off, and @shutting */
    unsigned shutting;      /* lock: 1 from bdrv_gate_shut() to bdrv_gate_gone(): the handle itself is inside */
    unsigned parked;        /* lock: in all slots */
    CoQueue empty_waiters;  /* lock: until busy is 0, or only @shutting is left */
    CoQueue idle_waiters;   /* lock: until it is open and nobody is parked */
};

BdrvGate *bdrv_gate_new(void)
{
    BdrvGate *gate = g_new0(BdrvGate, 1);

    gate->memory = g_malloc0((AIO_CONTEXT_MAX + 1) * SLOT_BYTES);
    gate->slots = (BdrvSlot *)(((uintptr_t)gate->memory + SLOT_BYTES - 1) & ~(uintptr_t)(SLOT_BYTES - 1));
    for (unsigned i = 0; i < AIO_CONTEXT_MAX; i++) {
        atomic_init(&gate->slots[i].word, 0);
        gate->slots[i].gate = gate;
        gate->slots[i].last = &gate->slots[i].first;
    }
    atomic_init(&gate->refs, 1);
    pthread_mutex_init(&gate->lock, NULL);
    co_queue_init(&gate->empty_waiters);
    co_queue_init(&gate->idle_waiters);
    return gate;
}

BdrvGate *bdrv_gate_ref(BdrvGate *gate)
{
    atomic_fetch_add_explicit(&gate->refs, 1, memory_order_relaxed);
    return gate;
}

void bdrv_gate_free(BdrvGate *gate)
{
    if (!gate || atomic_fetch_sub_explicit(&gate->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    pthread_mutex_destroy(&gate->lock);
    g_free(gate->memory);
    g_free(gate);
}

static BdrvSlot *gate_my_slot(BdrvGate *gate)
{
    return &gate->slots[aio_context_index(aio_context_current())];
}

/* Fails if the gate is closed or others wait in front. */
static inline bool slot_try_enter(BdrvSlot *slot)
{
    uint32_t word = atomic_load_explicit(&slot->word, memory_order_relaxed);

    while (!(word & (SLOT_CLOSED | SLOT_PARKED))) {
        if (atomic_compare_exchange_weak_explicit(&slot->word, &word, word + 1, memory_order_acquire,
                                                  memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

static void gate_count_off_locked(BdrvGate *gate)
{
    if (--gate->busy <= gate->shutting) {
        co_queue_wake_all(&gate->empty_waiters);
    }
}

static void slot_count_off(BdrvSlot *slot)
{
    BdrvGate *gate = slot->gate;

    pthread_mutex_lock(&gate->lock);
    gate_count_off_locked(gate);
    pthread_mutex_unlock(&gate->lock);
}

static void gate_wake_if_idle_locked(BdrvGate *gate)
{
    if (gate->closed == 0 && gate->parked == 0) {
        co_queue_wake_all(&gate->idle_waiters);
    }
}

static inline void slot_leave(BdrvSlot *slot)
{
    uint32_t old = atomic_fetch_sub_explicit(&slot->word, 1, memory_order_acq_rel);

    /* From here on an open gate may be freed: only a busy slot's closer is known to wait for us. */
    if (G_UNLIKELY((old & SLOT_CLOSED) && (old & SLOT_COUNT) == 1)) {
        slot_count_off(slot);
    }
}

static void wait_wake(BdrvGateWait *wait) /* lock held */
{
    if (wait && !wait->woken) {
        wait->woken = true;
        co_wake(wait->co);
    }
}

static void slot_unpark(BdrvSlot *slot, BdrvGateWait *wait) /* lock held */
{
    BdrvGate *gate = slot->gate;
    BdrvGateWait **link = &slot->first;

    while (*link != wait) {
        link = &(*link)->next;
    }
    *link = wait->next;
    if (slot->last == &wait->next) {
        slot->last = link;
    }
    wait->parked = false;
    if (!slot->first) {
        atomic_fetch_and_explicit(&slot->word, ~SLOT_PARKED, memory_order_relaxed);
    } else if (!gate->closed) {
        wait_wake(slot->first);
    }
    gate->parked--;
    gate_wake_if_idle_locked(gate);
}

/* Wait behind those who came before; they wake one another in order once the gate is open. */
static int coroutine_fn slot_park(BdrvSlot *slot, BdrvGateWait *wait)
{
    BdrvGate *gate = slot->gate;
    int ret = 0;

    pthread_mutex_lock(&gate->lock);
    wait->co = co_self();
    wait->next = NULL;
    wait->parked = true;
    wait->woken = false;
    *slot->last = wait;
    slot->last = &wait->next;
    atomic_fetch_or_explicit(&slot->word, SLOT_PARKED, memory_order_relaxed);
    gate->parked++;

    while (!wait->cancelled && (gate->closed || slot->first != wait)) {
        pthread_mutex_unlock(&gate->lock);
        co_yield_reason("closed gate");
        pthread_mutex_lock(&gate->lock);
        wait->woken = false;
    }
    if (wait->cancelled) {
        ret = -ECANCELED;
    } else {
        atomic_fetch_add_explicit(&slot->word, 1, memory_order_acquire);
    }
    slot_unpark(slot, wait);
    pthread_mutex_unlock(&gate->lock);
    return ret;
}

static int coroutine_fn gate_enter(BdrvGate *gate, BdrvGateWait *wait, void **outer)
{
    BdrvSlot *slot = co_get_request();

    *outer = slot;
    if (slot && slot->gate == gate) {
        atomic_fetch_add_explicit(&slot->word, 1, memory_order_relaxed);
        return 0;
    }
    slot = gate_my_slot(gate);
    if (G_UNLIKELY(!slot_try_enter(slot))) {
        BdrvGateWait here = { 0 };
        int ret = slot_park(slot, wait ? wait : &here);

        if (ret < 0) {
            return ret;
        }
    }
    co_set_request(slot);
    return 0;
}

void *coroutine_fn bdrv_gate_enter(BdrvGate *gate)
{
    void *outer;

    gate_enter(gate, NULL, &outer);
    return outer;
}

int coroutine_fn bdrv_gate_enter_or_cancel(BdrvGate *gate, BdrvGateWait *wait, void **outer)
{
    return G_UNLIKELY(wait->cancelled) ? -ECANCELED : gate_enter(gate, wait, outer);
}

bool bdrv_gate_cancel(BdrvGate *gate, BdrvGateWait *wait)
{
    bool parked;

    pthread_mutex_lock(&gate->lock);
    parked = wait->parked;
    if (parked) {
        wait->cancelled = true;
        wait_wake(wait);
    }
    pthread_mutex_unlock(&gate->lock);
    return parked;
}

void coroutine_fn bdrv_gate_leave(BdrvGate *gate, void *outer)
{
    BdrvSlot *slot = co_get_request();

    co_set_request(outer);
    slot_leave(slot);
}

void *bdrv_gate_try_enter(BdrvGate *gate)
{
    BdrvSlot *slot = gate_my_slot(gate);

    return slot_try_enter(slot) ? slot : NULL;
}

void coroutine_fn bdrv_gate_adopt(void *entered)
{
    co_set_request(entered);
}

void bdrv_gate_leave_entered(void *entered)
{
    slot_leave(entered);
}

void *coroutine_fn bdrv_gate_enter_both(BdrvGate *a, BdrvGate *b)
{
    /* Waiting for one gate inside the other could wait for a drain that waits for us. */
    for (;;) {
        void *outer = bdrv_gate_enter(a);
        BdrvGate *swap = a;

        if (a == b || slot_try_enter(gate_my_slot(b))) {
            return outer;
        }
        bdrv_gate_leave(a, outer);
        a = b;
        b = swap;
    }
}

void coroutine_fn bdrv_gate_leave_both(BdrvGate *a, BdrvGate *b, void *outer)
{
    co_set_request(outer);
    slot_leave(gate_my_slot(a));
    if (a != b) {
        slot_leave(gate_my_slot(b));
    }
}

static void gate_close_locked(BdrvGate *gate)
{
    if (gate->closed++ > 0) {
        return;
    }
    for (unsigned i = 0; i < AIO_CONTEXT_MAX; i++) {
        uint32_t old = atomic_fetch_or_explicit(&gate->slots[i].word, SLOT_CLOSED, memory_order_acq_rel);

        gate->busy += (old & SLOT_COUNT) > 0;
    }
}

/* @but: 1 leaves out the handle that is being closed */
static void coroutine_fn gate_wait_empty_locked(BdrvGate *gate, unsigned but)
{
    while (gate->busy > but) {
        co_queue_wait(&gate->empty_waiters, &gate->lock);
    }
}

void bdrv_gate_close(BdrvGate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate_close_locked(gate);
    pthread_mutex_unlock(&gate->lock);
}

void bdrv_gate_open(BdrvGate *gate)
{
    pthread_mutex_lock(&gate->lock);
    if (--gate->closed == 0) {
        for (unsigned i = 0; i < AIO_CONTEXT_MAX; i++) {
            BdrvSlot *slot = &gate->slots[i];
            uint32_t old = atomic_fetch_and_explicit(&slot->word, ~SLOT_CLOSED, memory_order_acq_rel);

            /* What is left in busy then are leavers who saw CLOSED and wait for the lock. */
            gate->busy -= (old & SLOT_COUNT) > 0;
            wait_wake(slot->first);
        }
        gate_wake_if_idle_locked(gate);
    }
    pthread_mutex_unlock(&gate->lock);
}

void coroutine_fn bdrv_gate_wait_empty(BdrvGate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate_wait_empty_locked(gate, 0);
    pthread_mutex_unlock(&gate->lock);
}

/*
 * What closing a handle writes (a flush, the caches of nodes that go with it) is like a request: not
 * inside of somebody's drain, and a drain that comes meanwhile waits for it.
 */
void coroutine_fn bdrv_gate_shut(BdrvGate *gate)
{
    pthread_mutex_lock(&gate->lock);
    while (gate->closed > 0 || gate->parked > 0) {
        co_queue_wait(&gate->idle_waiters, &gate->lock);
    }
    gate->shutting = 1;
    gate->busy++;
    gate_close_locked(gate);
    gate_wait_empty_locked(gate, gate->shutting);
    pthread_mutex_unlock(&gate->lock);
}

void bdrv_gate_gone(BdrvGate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->shutting = 0;
    gate_count_off_locked(gate);
    pthread_mutex_unlock(&gate->lock);
}

bool bdrv_gate_is_empty(BdrvGate *gate)
{
    for (unsigned i = 0; i < AIO_CONTEXT_MAX; i++) {
        if (atomic_load(&gate->slots[i].word) & SLOT_COUNT) {
            return false;
        }
    }
    return true;
}
