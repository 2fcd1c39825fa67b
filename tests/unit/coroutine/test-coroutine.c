/* SPDX-License-Identifier: MIT */

/* The life of coroutines: entering, yielding, waking, blocking on them. */

#include <bdrv/coroutine.h>
#include <errno.h>
#include <fenv.h>
#include <stdatomic.h>
#include <string.h>

#include "block/coroutine/coroutine_int.h"
#include "threads.h"

/* Appended to by coroutines in the order they run. */
static GString *trace;

static void trace_start(void)
{
    trace = g_string_new(NULL);
}

#define assert_trace(expected)                                                                               \
    do {                                                                                                     \
        g_assert_cmpstr(trace->str, ==, expected);                                                           \
        g_string_free(trace, TRUE);                                                                          \
    } while (0)

static void coroutine_fn two_steps(void *opaque)
{
    g_string_append(trace, "1");
    co_yield();
    g_string_append(trace, "2");
    *(bool *)opaque = true;
}

static void test_enter_yield(void)
{
    bool done = false;
    Coroutine *co;

    trace_start();
    co = co_new(two_steps, &done);
    g_string_append(trace, "a");
    co_enter(co);
    g_string_append(trace, "b");
    g_assert_false(done);
    co_enter(co);
    g_assert_true(done);
    assert_trace("a1b2");
}

static void coroutine_fn self_entry(void *opaque)
{
    g_assert_true(co_in_coroutine());
    g_assert_true(co_self() == *(Coroutine **)opaque);
    g_assert_true(co_context(co_self()) == aio_context_current());
    co_yield();
    g_assert_true(co_self() == *(Coroutine **)opaque);
}

static void test_self(void)
{
    Coroutine *co = co_new(self_entry, &co);

    g_assert_false(co_in_coroutine());
    g_assert_null(co_self());
    co_enter(co);
    g_assert_null(co_self());
    co_enter(co);
    g_assert_null(co_self());
}

static void coroutine_fn inner_entry(void *opaque)
{
    g_string_append(trace, "i");
    co_yield();
    g_string_append(trace, "I");
}

static void coroutine_fn outer_entry(void *opaque)
{
    Coroutine *self = co_self(), *inner = co_new(inner_entry, NULL);

    g_string_append(trace, "o");
    co_enter(inner);
    g_assert_true(co_self() == self);
    co_yield();
    g_string_append(trace, "O");
    co_enter(inner);
    g_assert_true(co_self() == self);
}

static void test_nested_enter(void)
{
    Coroutine *co = co_new(outer_entry, NULL);

    trace_start();
    co_enter(co);
    g_string_append(trace, "-");
    co_enter(co);
    assert_trace("oi-OI");
}

static void coroutine_fn request_entry(void *opaque)
{
    g_assert_null(co_get_request());
    co_set_request(opaque);
    co_yield();
    g_assert_true(co_get_request() == opaque);
}

static void test_request(void)
{
    int a, b;
    Coroutine *first = co_new(request_entry, &a), *second = co_new(request_entry, &b);

    g_assert_null(co_get_request());
    co_enter(first);
    co_enter(second);
    g_assert_null(co_get_request());
    co_enter(first);
    co_enter(second);
    /* from the pool again, without what the earlier life left */
    first = co_new(request_entry, &a);
    co_enter(first);
    co_enter(first);
}

static void coroutine_fn early_wake_entry(void *opaque)
{
    co_wake(co_self());
    g_string_append(trace, "w");
    co_yield();
    g_string_append(trace, "c");
}

static void test_early_wake(void)
{
    trace_start();
    g_assert_cmpint(co_run_blocking(early_wake_entry, NULL), ==, 0);
    assert_trace("wc");
}

static void coroutine_fn letter_entry(void *opaque)
{
    g_string_append(trace, opaque);
}

static void coroutine_fn waking_entry(void *opaque)
{
    co_wake(co_new(letter_entry, "a"));
    co_wake(co_new(letter_entry, "b"));
    co_wake(co_new(letter_entry, "c"));
    g_string_append(trace, "-");
    co_reschedule();
    g_string_append(trace, "+");
}

static void test_wake_order(void)
{
    trace_start();
    g_assert_cmpint(co_run_blocking(waking_entry, NULL), ==, 0);
    assert_trace("-abc+");
}

typedef struct PingPong {
    Coroutine *co[2];
    unsigned left;
} PingPong;

static void coroutine_fn pong_entry(void *opaque)
{
    PingPong *game = opaque;

    while (game->left) {
        co_wake(game->co[0]);
        co_yield();
    }
    co_wake(game->co[0]);
}

static void coroutine_fn ping_entry(void *opaque)
{
    PingPong *game = opaque;

    game->co[0] = co_self();
    game->co[1] = co_new(pong_entry, game);
    while (game->left) {
        game->left--;
        co_wake(game->co[1]);
        co_yield();
    }
}

static void test_no_recursion(void)
{
    PingPong game = { .left = 300000 };

    g_assert_cmpint(co_run_blocking(ping_entry, &game), ==, 0);
    g_assert_cmpuint(game.left, ==, 0);
}

static void *waking_thread(void *opaque)
{
    co_wake(opaque);
    return NULL;
}

static void coroutine_fn woken_elsewhere_entry(void *opaque)
{
    pthread_t self = pthread_self();

    for (unsigned i = 0; i < 200; i++) {
        pthread_t thread;

        g_assert_cmpint(pthread_create(&thread, NULL, waking_thread, co_self()), ==, 0);
        if (i & 1) {
            pthread_join(thread, NULL); /* the wake comes before the yield */
            co_yield();
        } else {
            co_yield();
            pthread_join(thread, NULL);
        }
        g_assert_true(pthread_equal(self, pthread_self()));
    }
}

static void test_wake_elsewhere(void)
{
    g_assert_cmpint(co_run_blocking(woken_elsewhere_entry, NULL), ==, 0);
}

/* Two coroutines in different threads wake each other. */
typedef struct Rally {
    AioContext *_Atomic far_ctx;
    Coroutine *near, *far;
    pthread_t near_thread;
    unsigned left;
    _Atomic bool far_done;
} Rally;

static void coroutine_fn far_entry(void *opaque)
{
    Rally *rally = opaque;

    g_assert_false(pthread_equal(rally->near_thread, pthread_self()));
    while (rally->left) {
        rally->left--;
        co_wake(rally->near);
        co_yield();
    }
    co_wake(rally->near);
    atomic_store(&rally->far_done, true);
}

static void *far_thread(void *opaque)
{
    Rally *rally = opaque;
    AioContext *ctx = aio_context_ref(aio_context_current());

    atomic_store(&rally->far_ctx, ctx);
    while (!atomic_load(&rally->far_done)) {
        aio_context_run(ctx, true);
    }
    aio_context_unref(ctx);
    return NULL;
}

static void coroutine_fn near_entry(void *opaque)
{
    Rally *rally = opaque;

    rally->near = co_self();
    rally->far = co_new(far_entry, rally);
    co_start(atomic_load(&rally->far_ctx), rally->far);
    co_yield();
    while (rally->left) {
        rally->left--;
        co_wake(rally->far);
        co_yield();
    }
    co_wake(rally->far);
    co_yield();
}

static void test_start_elsewhere(void)
{
    Rally rally = { .near_thread = pthread_self(), .left = 2001 };
    pthread_t thread;

    g_assert_cmpint(pthread_create(&thread, NULL, far_thread, &rally), ==, 0);
    while (!atomic_load(&rally.far_ctx)) {
        g_usleep(100);
    }
    g_assert_cmpint(co_run_blocking(near_entry, &rally), ==, 0);
    pthread_join(thread, NULL);
    g_assert_cmpuint(rally.left, ==, 0);
}

/* More values than there are registers, live across yields on both sides. */
static __attribute__((noinline)) uint64_t mix(uint64_t seed, void (*pause)(void *opaque), void *opaque)
{
    uint64_t a = seed * 3, b = seed * 5, c = seed * 7, d = seed * 11;
    uint64_t e = seed * 13, f = seed * 17, g = seed * 19;
    double x = (double)seed * 0.5;

    for (unsigned i = 0; i < 100; i++) {
        pause(opaque);
        a += b ^ c, b += c ^ d, c += d ^ e, d += e ^ f, e += f ^ g, f += g ^ a, g += a ^ i;
        x = x * 0.75 + 1;
    }
    return a ^ b ^ c ^ d ^ e ^ f ^ g ^ (uint64_t)(x * 1000);
}

static void pause_not(void *opaque)
{
}

static void pause_yield(void *opaque)
{
    co_yield();
}

static void pause_enter(void *opaque)
{
    co_enter(opaque);
}

static void coroutine_fn mix_entry(void *opaque)
{
    uint64_t *result = opaque;

    *result = mix(4711, pause_yield, NULL);
}

static void test_registers(void)
{
    uint64_t inside = 0, outside;
    Coroutine *co = co_new(mix_entry, &inside);

    outside = mix(42, pause_enter, co);
    co_enter(co); /* its last step */
    g_assert_cmpuint(outside, ==, mix(42, pause_not, NULL));
    g_assert_cmpuint(inside, ==, mix(4711, pause_not, NULL));
}

static void coroutine_fn rounding_entry(void *opaque)
{
    g_assert_cmpint(fegetround(), ==, FE_DOWNWARD);
    co_yield();
    fesetround(FE_UPWARD);
    fesetround(FE_DOWNWARD); /* put back before yielding */
    co_yield();
}

static void test_floating_point_control(void)
{
    Coroutine *co = co_new(rounding_entry, NULL);

    fesetround(FE_DOWNWARD);
    for (unsigned i = 0; i < 3; i++) {
        co_enter(co);
        g_assert_cmpint(fegetround(), ==, FE_DOWNWARD);
    }
    fesetround(FE_TONEAREST);
}

static void coroutine_fn aligned_entry(void *opaque)
{
    _Alignas(16) volatile char buffer[16];

    buffer[0] = 0;
    g_assert_cmpuint((uintptr_t)buffer % 16, ==, 0);
    g_assert_cmpuint((uintptr_t)__builtin_frame_address(0) % 16, ==, 0);
}

static void test_alignment(void)
{
    for (unsigned i = 0; i < 64; i++) {
        co_enter(co_new(aligned_entry, NULL));
    }
}

static void coroutine_fn blocking_inside_entry(void *opaque)
{
    bool done = false;

    g_assert_cmpint(co_run_blocking(two_steps, &done), ==, -EDEADLK);
    g_assert_false(done);
    *(bool *)opaque = true;
}

static void test_blocking_in_coroutine(void)
{
    bool done = false;

    co_enter(co_new(blocking_inside_entry, &done));
    g_assert_true(done);
}

static void blocking_callback(void *opaque)
{
    bool never = false;

    g_assert_true(aio_in_callback());
    g_assert_cmpint(co_run_blocking(two_steps, &never), ==, -EDEADLK);
    g_assert_false(never);
    *(bool *)opaque = true;
}

static void test_blocking_in_callback(void)
{
    bool done = false;
    AioCall call = { .func = blocking_callback, .opaque = &done };

    aio_call(aio_context_current(), &call);
    while (!done) {
        aio_context_run(aio_context_current(), true);
    }
}

static void coroutine_fn sleep_entry(void *opaque)
{
    AioContext *ctx = co_context(co_self());
    int64_t deadline = aio_clock_ns(ctx) + 2000000;

    co_sleep_until(deadline);
    g_assert_cmpint(aio_clock_ns(ctx), >=, deadline);
    co_sleep_until(deadline - 1000000); /* already past */
    *(bool *)opaque = true;
}

static void test_sleep(void)
{
    bool done = false;

    g_assert_cmpint(co_run_blocking(sleep_entry, &done), ==, 0);
    g_assert_true(done);
}

static void coroutine_fn long_sleep_entry(void *opaque)
{
    AioContext *ctx = co_context(co_self());
    int64_t deadline = aio_clock_ns(ctx) + INT64_C(86400) * 1000000000;

    co_sleep_until(deadline);
    g_assert_cmpint(aio_clock_ns(ctx), >=, deadline);
    g_assert_cmpint(aio_clock_ns(ctx), <, deadline + 1000000000);
    *(bool *)opaque = true;
}

static void test_sleep_simulated(void)
{
    AioSim *sim = aio_sim_new(1);
    AioContext *ctx = aio_sim_context_new(sim);
    bool done = false;

    co_start(ctx, co_new(long_sleep_entry, &done));
    while (aio_sim_step(sim)) {
    }
    g_assert_true(done);
    aio_context_unref(ctx);
    aio_sim_free(sim);
}

typedef struct YieldCount {
    unsigned others; /* steps of the other coroutine */
    unsigned yields; /* of the first one, seen by the other one's progress */
    bool done;
} YieldCount;

static void coroutine_fn counting_entry(void *opaque)
{
    YieldCount *count = opaque;

    for (unsigned i = 0; i < 100; i++) {
        unsigned before = count->others;

        co_maybe_yield();
        count->yields += count->others != before;
    }
    count->done = true;
}

static void coroutine_fn other_entry(void *opaque)
{
    YieldCount *count = opaque;

    while (!count->done) {
        count->others++;
        co_reschedule();
    }
}

static void test_maybe_yield_simulated(gconstpointer opaque)
{
    unsigned percent = GPOINTER_TO_UINT(opaque);
    AioSim *sim = aio_sim_new(7);
    AioContext *ctx = aio_sim_context_new(sim);
    YieldCount count = { 0 };

    aio_sim_set_yield_chance(sim, percent);
    co_start(ctx, co_new(counting_entry, &count));
    co_start(ctx, co_new(other_entry, &count));
    while (aio_sim_step(sim)) {
    }
    g_assert_true(count.done);
    g_assert_true((count.yields > 0) == (percent > 0));
    g_assert_cmpuint(count.yields, <=, percent == 50 ? 90 : 100);
    aio_context_unref(ctx);
    aio_sim_free(sim);
}

static void coroutine_fn reschedule_entry(void *opaque)
{
    for (unsigned i = 0; i < 3; i++) {
        g_string_append(trace, opaque);
        co_reschedule();
    }
}

static void coroutine_fn reschedule_root(void *opaque)
{
    co_wake(co_new(reschedule_entry, "a"));
    co_wake(co_new(reschedule_entry, "b"));
    for (unsigned i = 0; i < 5; i++) {
        co_reschedule();
    }
}

static void test_reschedule(void)
{
    trace_start();
    g_assert_cmpint(co_run_blocking(reschedule_root, NULL), ==, 0);
    assert_trace("ababab");
}

static void coroutine_fn maybe_root(void *opaque)
{
    co_wake(co_new(letter_entry, "a"));
    co_maybe_yield();
    g_string_append(trace, "-");
    co_reschedule();
}

static void test_maybe_yield_is_quiet(void)
{
    trace_start();
    g_assert_cmpint(co_run_blocking(maybe_root, NULL), ==, 0);
    assert_trace("-a");
}

static void coroutine_fn idle_entry(void *opaque)
{
    co_yield();
}

/* Misuse would corrupt memory later; it stops the program where it happens. */
static void misuse_wake_twice(void)
{
    Coroutine *co = co_new(idle_entry, NULL);

    co_wake(co);
    co_wake(co);
}

static void coroutine_fn enter_self_entry(void *opaque)
{
    co_enter(co_self());
}

static void misuse_enter_self(void)
{
    co_enter(co_new(enter_self_entry, NULL));
}

static void coroutine_fn wake_self_entry(void *opaque)
{
    co_wake(co_self());
}

static void misuse_end_woken(void)
{
    co_enter(co_new(wake_self_entry, NULL));
}

static void misuse_yield_outside(void)
{
    co_yield();
}

#ifdef CO_DEBUG
static void coroutine_fn changes_rounding_entry(void *opaque)
{
    fesetround(FE_UPWARD);
    co_yield();
}

static void misuse_changed_rounding(void)
{
    co_enter(co_new(changes_rounding_entry, NULL));
}
#endif

static const struct {
    const char *path;
    void (*func)(void);
    const char *message;
} misuses[] = {
#ifdef CO_DEBUG
    { "/coroutine/yielding with another rounding mode aborts", misuse_changed_rounding, "*floating-point control*" },
#endif
    { "/coroutine/waking twice for one yield aborts", misuse_wake_twice, "*woken twice*" },
    { "/coroutine/entering what runs aborts", misuse_enter_self, "*entered while it runs*" },
    { "/coroutine/ending with a wake-up pending aborts", misuse_end_woken, "*wake-up pending*" },
    { "/coroutine/yielding outside of a coroutine aborts", misuse_yield_outside, "*outside of a coroutine*" },
};

static void test_misuse(gconstpointer opaque)
{
    unsigned i = GPOINTER_TO_UINT(opaque);

    if (g_test_subprocess()) {
        misuses[i].func();
        return;
    }
    g_test_trap_subprocess(NULL, 20000000, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr(misuses[i].message);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/coroutine/entering runs to the yield, then on to the end", test_enter_yield);
    g_test_add_func("/coroutine/self is known inside and NULL outside", test_self);
    g_test_add_func("/coroutine/a coroutine may enter another", test_nested_enter);
    g_test_add_func("/coroutine/each has its own request pointer", test_request);
    g_test_add_func("/coroutine/a wake before the yield is not lost", test_early_wake);
    g_test_add_func("/coroutine/waking runs nothing, then all in order", test_wake_order);
    g_test_add_func("/coroutine/wake-ups do not recurse", test_no_recursion);
    g_test_add_func("/coroutine/a wake from another thread runs in the own one", test_wake_elsewhere);
    g_test_add_func("/coroutine/one can be started in another thread", test_start_elsewhere);
    g_test_add_func("/coroutine/registers survive the switch", test_registers);
    g_test_add_func("/coroutine/the rounding mode is the thread's on both sides", test_floating_point_control);
    g_test_add_func("/coroutine/stacks are aligned", test_alignment);
    g_test_add_func("/coroutine/blocking in a coroutine is refused", test_blocking_in_coroutine);
    g_test_add_func("/coroutine/blocking in a callback is refused", test_blocking_in_callback);
    g_test_add_func("/coroutine/sleeping lasts until the deadline", test_sleep);
    g_test_add_func("/coroutine/sleeping in a simulation takes its time only", test_sleep_simulated);
    g_test_add_data_func("/coroutine/maybe-yield never yields at 0 percent", GUINT_TO_POINTER(0),
                         test_maybe_yield_simulated);
    g_test_add_data_func("/coroutine/maybe-yield yields sometimes at 50 percent", GUINT_TO_POINTER(50),
                         test_maybe_yield_simulated);
    g_test_add_func("/coroutine/rescheduling lets the others run", test_reschedule);
    g_test_add_func("/coroutine/maybe-yield does nothing outside of simulations", test_maybe_yield_is_quiet);
    for (unsigned i = 0; i < G_N_ELEMENTS(misuses); i++) {
        g_test_add_data_func(misuses[i].path, GUINT_TO_POINTER(i), test_misuse);
    }
    return g_test_run();
}
