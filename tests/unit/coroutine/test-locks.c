/* SPDX-License-Identifier: MIT */

/* CoMutex, CoRwLock, CoQueue and CoRangeLock: in one thread, in several, and in deterministic runs. */

#include <bdrv/coroutine.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "threads.h"

#define THREADS 4
#define COROUTINES 8
#define ROUNDS 300

static uint64_t seed_of_run(void)
{
    const char *text = g_getenv("BDRV_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)g_get_real_time();

    g_test_message("BDRV_TEST_SEED=%" G_GUINT64_FORMAT, seed);
    return seed;
}

static uint32_t draw(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 16;
}

/* What a lock protects. Plain fields: the thread sanitiser sees a missing lock. */
typedef struct Account {
    CoMutex mutex;
    CoRwLock rwlock;
    unsigned inside; /* holders of the CoMutex, or writers */
    unsigned balance;
    uint64_t left, right; /* equal unless a writer is at it */
    _Atomic uint32_t seed;
    _Atomic unsigned readers, most_readers, done;
} Account;

static void account_init(Account *account)
{
    *account = (Account){ 0 };
    co_mutex_init(&account->mutex);
    co_rwlock_init(&account->rwlock);
}

static void account_destroy(Account *account)
{
    co_mutex_destroy(&account->mutex);
    co_rwlock_destroy(&account->rwlock);
}

static void coroutine_fn mutex_entry(void *opaque)
{
    Account *account = opaque;
    uint32_t seed = atomic_fetch_add(&account->seed, 7919);

    for (unsigned i = 0; i < ROUNDS; i++) {
        if (draw(&seed) % 8 == 0) {
            if (!co_mutex_trylock(&account->mutex)) {
                co_mutex_lock(&account->mutex);
            }
        } else {
            co_mutex_lock(&account->mutex);
        }
        g_assert_cmpuint(account->inside++, ==, 0);
        account->balance++;
        if (draw(&seed) % 4 == 0) {
            co_reschedule();
        }
        g_assert_cmpuint(--account->inside, ==, 0);
        co_mutex_unlock(&account->mutex);
        if (draw(&seed) % 4 == 0) {
            co_reschedule();
        }
    }
}

static void test_mutex_threads(void)
{
    Account account;

    account_init(&account);
    account.seed = (uint32_t)seed_of_run();
    run_crowd(THREADS, COROUTINES, mutex_entry, &account);
    g_assert_cmpuint(account.balance, ==, THREADS * COROUTINES * ROUNDS);
    account_destroy(&account);
}

static void test_mutex_one_thread(void)
{
    Account account;

    account_init(&account);
    run_crowd(1, COROUTINES, mutex_entry, &account);
    g_assert_cmpuint(account.balance, ==, COROUTINES * ROUNDS);
    account_destroy(&account);
}

static void coroutine_fn trylock_entry(void *opaque)
{
    CoMutex *mutex = opaque;

    g_assert_true(co_mutex_trylock(mutex));
    g_assert_false(co_mutex_trylock(mutex));
    co_mutex_unlock(mutex);
    g_assert_true(co_mutex_trylock(mutex));
    co_mutex_unlock(mutex);
}

static void test_trylock(void)
{
    CoMutex mutex;

    co_mutex_init(&mutex);
    co_enter(co_new(trylock_entry, &mutex));
    co_mutex_destroy(&mutex);
}

/*
 * Starvation: a greedy coroutine takes the mutex again as soon as it has released it, for ever, yielding
 * only while it holds it. The modest ones must get it all the same, after a bounded number of its turns.
 */
typedef struct Greed {
    CoMutex mutex;
    _Atomic bool stop;
    unsigned greedy_turns; /* mutex */
    unsigned waited_turns; /* mutex: most turns of others between a modest one's request and its lock */
    _Atomic unsigned modest_left;
} Greed;

static void coroutine_fn greedy_entry(void *opaque)
{
    Greed *greed = opaque;

    while (!atomic_load(&greed->stop)) {
        co_mutex_lock(&greed->mutex);
        greed->greedy_turns++;
        co_reschedule();
        co_mutex_unlock(&greed->mutex);
    }
}

static void coroutine_fn modest_entry(void *opaque)
{
    Greed *greed = opaque;

    for (unsigned i = 0; i < 20; i++) {
        co_mutex_lock(&greed->mutex);
        co_mutex_unlock(&greed->mutex);
        co_reschedule();
    }
    if (atomic_fetch_sub(&greed->modest_left, 1) == 1) {
        atomic_store(&greed->stop, true);
    }
}

static void *greedy_thread(void *opaque)
{
    g_assert_cmpint(co_run_blocking(greedy_entry, opaque), ==, 0);
    return NULL;
}

static void test_starvation_threads(void)
{
    Greed greed = { .modest_left = 2 * 4 };
    pthread_t thread[2];

    co_mutex_init(&greed.mutex);
    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmpint(pthread_create(&thread[i], NULL, greedy_thread, &greed), ==, 0);
    }
    run_crowd(2, 4, modest_entry, &greed); /* comes to an end only if they get the mutex */
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
    }
    co_mutex_destroy(&greed.mutex);
}

/* In one thread the bound itself can be seen. */
static void coroutine_fn counting_modest_entry(void *opaque)
{
    Greed *greed = opaque;

    for (unsigned i = 0; i < 20; i++) {
        unsigned before = greed->greedy_turns;

        co_mutex_lock(&greed->mutex);
        greed->waited_turns = MAX(greed->waited_turns, greed->greedy_turns - before);
        co_mutex_unlock(&greed->mutex);
    }
    atomic_store(&greed->stop, true);
}

static void coroutine_fn greed_root(void *opaque)
{
    Greed *greed = opaque;

    co_wake(co_new(greedy_entry, greed));
    co_wake(co_new(counting_modest_entry, greed));
    while (!atomic_load(&greed->stop)) {
        co_reschedule();
    }
    co_mutex_lock(&greed->mutex); /* the greedy one is done with it */
    co_mutex_unlock(&greed->mutex);
    co_reschedule();
    co_reschedule();
}

static void test_starvation_bound(void)
{
    Greed greed = { 0 };

    co_mutex_init(&greed.mutex);
    g_assert_cmpint(co_run_blocking(greed_root, &greed), ==, 0);
    g_assert_cmpuint(greed.waited_turns, >=, 1);
    g_assert_cmpuint(greed.waited_turns, <=, 20); /* 16 times barged, and the turns around it */
    co_mutex_destroy(&greed.mutex);
}

/* Whoever has the lock last frees its memory. */
typedef struct Counted {
    CoMutex mutex;
    unsigned refs; /* mutex */
} Counted;

static void coroutine_fn unref_entry(void *opaque)
{
    Counted *counted = opaque;
    bool last;

    co_mutex_lock(&counted->mutex);
    last = --counted->refs == 0;
    if (!last) {
        co_reschedule(); /* lets the others queue up */
    }
    co_mutex_unlock(&counted->mutex);
    if (last) {
        co_mutex_destroy(&counted->mutex);
        g_free(counted);
    }
}

static void test_mutex_freed_by_last(void)
{
    for (unsigned i = 0; i < 30; i++) {
        Counted *counted = g_new0(Counted, 1);

        co_mutex_init(&counted->mutex);
        counted->refs = 2 * 8;
        run_crowd(2, 8, unref_entry, counted);
    }
}

static void coroutine_fn read_locked(Account *account, uint32_t *seed)
{
    unsigned readers = atomic_fetch_add(&account->readers, 1) + 1;

    if (readers > atomic_load(&account->most_readers)) {
        atomic_store(&account->most_readers, readers);
    }
    g_assert_cmpuint(account->inside, ==, 0);
    g_assert_cmpuint(account->left, ==, account->right);
    if (draw(seed) % 2 == 0) {
        co_reschedule();
    }
    g_assert_cmpuint(account->left, ==, account->right);
    atomic_fetch_sub(&account->readers, 1);
}

static void coroutine_fn rwlock_entry(void *opaque)
{
    Account *account = opaque;
    uint32_t seed = atomic_fetch_add(&account->seed, 7919);

    for (unsigned i = 0; i < ROUNDS; i++) {
        if (draw(&seed) % 4) {
            co_rwlock_rdlock(&account->rwlock);
            read_locked(account, &seed);
        } else {
            co_rwlock_wrlock(&account->rwlock);
            g_assert_cmpuint(account->inside++, ==, 0);
            g_assert_cmpuint(atomic_load(&account->readers), ==, 0);
            account->left++;
            if (draw(&seed) % 2 == 0) {
                co_reschedule();
            }
            account->right++;
            account->inside--;
            if (draw(&seed) % 2 == 0) {
                co_rwlock_downgrade(&account->rwlock);
                read_locked(account, &seed);
            }
        }
        co_rwlock_unlock(&account->rwlock);
    }
}

static void test_rwlock_threads(void)
{
    Account account;

    account_init(&account);
    account.seed = (uint32_t)seed_of_run();
    run_crowd(THREADS, COROUTINES, rwlock_entry, &account);
    g_assert_cmpuint(account.left, ==, account.right);
    g_assert_cmpuint(account.most_readers, >, 1);
    account_destroy(&account);
}

static GString *trace;

/* Each letter: r or w takes the lock so, writes itself, yields twice, writes itself in upper case. */
typedef struct LetterCase {
    const char *what, *order, *expected;
} LetterCase;

typedef struct LetterRun {
    CoRwLock lock;
    const char *order;
    unsigned next, ended;
} LetterRun;

static void coroutine_fn letter_entry(void *opaque)
{
    LetterRun *run = opaque;
    char letter = run->order[run->next++];

    if (letter == 'r') {
        co_rwlock_rdlock(&run->lock);
    } else {
        co_rwlock_wrlock(&run->lock);
    }
    g_string_append_c(trace, letter);
    co_reschedule();
    co_reschedule();
    g_string_append_c(trace, letter == 'd' ? 'D' : g_ascii_toupper(letter));
    if (letter == 'd') {
        co_rwlock_downgrade(&run->lock);
        co_reschedule();
        co_reschedule();
    }
    co_rwlock_unlock(&run->lock);
    run->ended++;
}

static void coroutine_fn letter_root(void *opaque)
{
    LetterRun *run = opaque;

    for (const char *c = run->order; *c; c++) {
        co_wake(co_new(letter_entry, run));
    }
    while (run->order[run->ended]) {
        co_reschedule();
    }
}

static void test_rwlock_order(gconstpointer opaque)
{
    const LetterCase *letters = opaque;
    LetterRun run = { .order = letters->order };

    trace = g_string_new(NULL);
    co_rwlock_init(&run.lock);
    g_assert_cmpint(co_run_blocking(letter_root, &run), ==, 0);
    g_assert_cmpstr(trace->str, ==, letters->expected);
    co_rwlock_destroy(&run.lock);
    g_string_free(trace, TRUE);
}

static const LetterCase letter_cases[] = {
    { "/rwlock/readers share", "rrr", "rrrRRR" },
    { "/rwlock/writers take turns", "www", "wWwWwW" },
    { "/rwlock/a waiting writer is not starved by readers", "rrwrr", "rrRRwWrrRR" },
    { "/rwlock/a waiting reader is not starved by writers", "wwrww", "wWwWrRwWwW" },
    { "/rwlock/a downgrade lets the readers in that come next", "drrw", "dDrrRRwW" },
};

/* A bounded buffer between producers and consumers in different threads. */
typedef struct Buffer {
    pthread_mutex_t mutex;
    CoQueue not_full, not_empty;
    unsigned filled; /* mutex */
    unsigned taken;  /* mutex */
    _Atomic unsigned role;
} Buffer;

static void coroutine_fn buffer_entry(void *opaque)
{
    Buffer *buffer = opaque;
    bool producer = atomic_fetch_add(&buffer->role, 1) % 2 == 0;

    for (unsigned i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&buffer->mutex);
        if (producer) {
            while (buffer->filled == 3) {
                co_queue_wait(&buffer->not_full, &buffer->mutex);
            }
            buffer->filled++;
            co_queue_wake_one(&buffer->not_empty);
        } else {
            while (buffer->filled == 0) {
                co_queue_wait(&buffer->not_empty, &buffer->mutex);
            }
            buffer->filled--;
            buffer->taken++;
            co_queue_wake_one(&buffer->not_full);
        }
        pthread_mutex_unlock(&buffer->mutex);
    }
}

static void test_queue_threads(void)
{
    Buffer buffer = { .mutex = PTHREAD_MUTEX_INITIALIZER };

    co_queue_init(&buffer.not_full);
    co_queue_init(&buffer.not_empty);
    run_crowd(THREADS, COROUTINES, buffer_entry, &buffer);
    g_assert_cmpuint(buffer.taken, ==, THREADS * COROUTINES / 2 * ROUNDS);
    g_assert_cmpuint(buffer.filled, ==, 0);
    g_assert_true(co_queue_empty(&buffer.not_full));
    g_assert_true(co_queue_empty(&buffer.not_empty));
}

typedef struct Order {
    pthread_mutex_t mutex;
    CoQueue queue;
    unsigned arrived, left;
    bool in_order;
} Order;

static void coroutine_fn order_entry(void *opaque)
{
    Order *order = opaque;
    unsigned place;

    pthread_mutex_lock(&order->mutex);
    place = order->arrived++;
    co_queue_wait(&order->queue, &order->mutex);
    order->in_order &= place == order->left++;
    pthread_mutex_unlock(&order->mutex);
}

static void coroutine_fn order_root(void *opaque)
{
    Order *order = opaque;

    for (unsigned i = 0; i < 5; i++) {
        co_wake(co_new(order_entry, order));
    }
    co_reschedule();
    pthread_mutex_lock(&order->mutex);
    g_assert_false(co_queue_empty(&order->queue));
    g_assert_true(co_queue_wake_one(&order->queue));
    pthread_mutex_unlock(&order->mutex);
    co_reschedule();
    pthread_mutex_lock(&order->mutex);
    g_assert_cmpuint(order->left, ==, 1);
    co_queue_wake_all(&order->queue);
    g_assert_true(co_queue_empty(&order->queue));
    g_assert_false(co_queue_wake_one(&order->queue));
    pthread_mutex_unlock(&order->mutex);
    co_reschedule();
}

static void test_queue_order(void)
{
    Order order = { .mutex = PTHREAD_MUTEX_INITIALIZER, .in_order = true };

    co_queue_init(&order.queue);
    g_assert_cmpint(co_run_blocking(order_root, &order), ==, 0);
    g_assert_cmpuint(order.left, ==, 5);
    g_assert_true(order.in_order);
}

/* ---- ranges ---- */

#define RANGE_CELLS 64

typedef struct Field {
    CoRangeLock lock;
    uint64_t cell[RANGE_CELLS][2]; /* plain: both equal unless somebody is alone there */
    _Atomic uint32_t seed;
} Field;

static void coroutine_fn field_entry(void *opaque)
{
    Field *field = opaque;
    uint32_t seed = atomic_fetch_add(&field->seed, 7919);

    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned from = draw(&seed) % RANGE_CELLS, to = from + 1 + draw(&seed) % (RANGE_CELLS - from);
        bool alone = draw(&seed) % 3 == 0;
        CoRange range;

        co_range_lock(&field->lock, &range, from, to, alone);
        for (unsigned n = from; n < to; n++) {
            g_assert_cmpuint(field->cell[n][0], ==, field->cell[n][1]);
            if (alone) {
                field->cell[n][0]++;
            }
        }
        if (draw(&seed) % 4 == 0) {
            co_reschedule();
        }
        for (unsigned n = from; alone && n < to; n++) {
            field->cell[n][1]++;
        }
        co_range_unlock(&field->lock, &range);
    }
}

static void test_range_threads(void)
{
    Field field = { .seed = (uint32_t)seed_of_run() };

    co_range_lock_init(&field.lock);
    run_crowd(THREADS, COROUTINES, field_entry, &field);
    g_assert_null(field.lock.newest);
    co_range_lock_destroy(&field.lock);
}

typedef struct Taker {
    CoRangeLock *lock;
    int64_t from, to;
    bool alone, has;
    CoRange range;
} Taker;

static void coroutine_fn taker_entry(void *opaque)
{
    Taker *taker = opaque;

    co_range_lock(taker->lock, &taker->range, taker->from, taker->to, taker->alone);
    taker->has = true;
}

static void coroutine_fn range_order_root(void *opaque)
{
    CoRangeLock *lock = opaque;
    Taker takers[] = { { lock, 0, 10, false },  { lock, 5, 15, false }, { lock, 8, 12, true },
                       { lock, 9, 10, false },  { lock, 15, 20, true }, { lock, 0, 5, false } };
    static const bool first[] = { true, true, false, false, true, true };

    for (unsigned i = 0; i < G_N_ELEMENTS(takers); i++) {
        co_wake(co_new(taker_entry, &takers[i]));
        co_reschedule();
        g_assert_cmpint(takers[i].has, ==, first[i]);
    }
    co_range_unlock(lock, &takers[0].range);
    co_reschedule();
    g_assert_false(takers[2].has);
    co_range_unlock(lock, &takers[1].range);
    co_reschedule();
    g_assert_true(takers[2].has);
    g_assert_false(takers[3].has); /* younger than who is alone */
    co_range_unlock(lock, &takers[2].range);
    co_reschedule();
    g_assert_true(takers[3].has);
    for (unsigned i = 3; i < G_N_ELEMENTS(takers); i++) {
        co_range_unlock(lock, &takers[i].range);
    }
}

static void test_range_order(void)
{
    CoRangeLock lock;

    co_range_lock_init(&lock);
    g_assert_cmpint(co_run_blocking(range_order_root, &lock), ==, 0);
    g_assert_null(lock.newest);
    co_range_lock_destroy(&lock);
}

/* Deterministic runs: several contexts, yields drawn at each lock, many seeds. */
#define SIM_CONTEXTS 3
#define SIM_COROUTINES 4

typedef struct SimRun {
    Account account;
    unsigned ended;
} SimRun;

static void coroutine_fn sim_entry(void *opaque)
{
    SimRun *run = opaque;
    Account *account = &run->account;
    uint32_t seed = atomic_fetch_add(&account->seed, 7919);

    for (unsigned i = 0; i < 10; i++) {
        co_mutex_lock(&account->mutex);
        g_assert_cmpuint(account->balance++ % 2, ==, 0);
        co_maybe_yield();
        g_assert_cmpuint(account->balance++ % 2, ==, 1);
        co_mutex_unlock(&account->mutex);

        if (draw(&seed) % 3) {
            co_rwlock_rdlock(&account->rwlock);
            read_locked(account, &seed);
        } else {
            co_rwlock_wrlock(&account->rwlock);
            account->left++;
            co_maybe_yield();
            account->right++;
        }
        co_rwlock_unlock(&account->rwlock);
    }
    run->ended++;
}

static void run_seed(uint64_t seed)
{
    AioSim *sim = aio_sim_new(seed);
    AioContext *ctx[SIM_CONTEXTS];
    SimRun run = { 0 };

    account_init(&run.account);
    run.account.seed = (uint32_t)seed;
    aio_sim_set_yield_chance(sim, 50);
    for (unsigned i = 0; i < SIM_CONTEXTS; i++) {
        ctx[i] = aio_sim_context_new(sim);
        for (unsigned n = 0; n < SIM_COROUTINES; n++) {
            co_start(ctx[i], co_new(sim_entry, &run));
        }
    }
    while (aio_sim_step(sim)) {
    }
    g_assert_cmpuint(run.ended, ==, SIM_CONTEXTS * SIM_COROUTINES);
    g_assert_cmpuint(run.account.balance, ==, SIM_CONTEXTS * SIM_COROUTINES * 20);
    account_destroy(&run.account);
    for (unsigned i = 0; i < SIM_CONTEXTS; i++) {
        aio_context_unref(ctx[i]);
    }
    aio_sim_free(sim);
}

static void test_sim(void)
{
    uint64_t seed = seed_of_run();

    for (unsigned i = 0; i < 200; i++) {
        run_seed(seed + i);
    }
}

static void coroutine_fn destroy_held_entry(void *opaque)
{
    CoMutex mutex;

    co_mutex_init(&mutex);
    co_mutex_lock(&mutex);
    co_mutex_destroy(&mutex);
}

static void coroutine_fn unlock_free_entry(void *opaque)
{
    CoMutex mutex;

    co_mutex_init(&mutex);
    co_mutex_unlock(&mutex);
}

static void coroutine_fn rwunlock_free_entry(void *opaque)
{
    CoRwLock lock;

    co_rwlock_init(&lock);
    co_rwlock_unlock(&lock);
}

static const struct {
    const char *path;
    CoroutineEntry *entry;
} misuses[] = {
    { "/mutex/destroying one that is held aborts", destroy_held_entry },
    { "/mutex/unlocking a free one aborts", unlock_free_entry },
    { "/rwlock/unlocking a free one aborts", rwunlock_free_entry },
};

static void test_misuse(gconstpointer opaque)
{
    if (g_test_subprocess()) {
        co_enter(co_new(misuses[GPOINTER_TO_UINT(opaque)].entry, NULL));
        return;
    }
    g_test_trap_subprocess(NULL, 20000000, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*misused*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mutex/one holder at a time in one thread", test_mutex_one_thread);
    g_test_add_func("/mutex/one holder at a time over threads", test_mutex_threads);
    g_test_add_func("/mutex/trylock takes only a free one", test_trylock);
    g_test_add_func("/mutex/nobody starves over threads", test_starvation_threads);
    g_test_add_func("/mutex/barging is bounded", test_starvation_bound);
    g_test_add_func("/mutex/the last holder may free it", test_mutex_freed_by_last);
    g_test_add_func("/rwlock/writers exclude all others over threads", test_rwlock_threads);
    for (unsigned i = 0; i < G_N_ELEMENTS(letter_cases); i++) {
        g_test_add_data_func(letter_cases[i].what, &letter_cases[i], test_rwlock_order);
    }
    g_test_add_func("/queue/a bounded buffer works over threads", test_queue_threads);
    g_test_add_func("/queue/waiters leave in order", test_queue_order);
    g_test_add_func("/range/who is alone excludes all who overlap over threads", test_range_threads);
    g_test_add_func("/range/one waits for older ones that overlap only", test_range_order);
    g_test_add_func("/locks/deterministic runs of many seeds", test_sim);
    for (unsigned i = 0; i < G_N_ELEMENTS(misuses); i++) {
        g_test_add_data_func(misuses[i].path, GUINT_TO_POINTER(i), test_misuse);
    }
    return g_test_run();
}
