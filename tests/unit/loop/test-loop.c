/* SPDX-License-Identifier: MIT */
/* A context on its own thread: order, fairness, timers, fds, rings, wake-ups, polling from outside. */

#include "block/loop/loop.h"
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#define MS 1000000LL

typedef struct Log {
    char text[256];
} Log;

typedef struct LogCall {
    AioCall call;
    Log *log;
    char letter;
} LogCall;

static void append(Log *log, char letter)
{
    size_t n = strlen(log->text);

    g_assert_cmpuint(n, <, sizeof(log->text) - 1);
    log->text[n] = letter;
    log->text[n + 1] = '\0';
}

static void log_call(void *opaque)
{
    LogCall *call = opaque;

    append(call->log, call->letter);
}

static LogCall *log_call_init(LogCall *call, Log *log, char letter)
{
    *call = (LogCall){ .call = { .func = log_call, .opaque = call }, .log = log, .letter = letter };
    return call;
}

static AioContext *enter_new(void)
{
    AioContext *ctx = aio_context_new(NULL);

    g_assert_nonnull(ctx);
    aio_context_enter(ctx);
    return ctx;
}

static void leave_free(AioContext *ctx)
{
    aio_context_leave(ctx);
    aio_context_unref(ctx);
}

static void set_flag(void *opaque)
{
    *(bool *)opaque = true;
}

static bool readable(int fd, int timeout_ms)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };

    return poll(&pfd, 1, timeout_ms) == 1;
}

/* Life */

static void test_indices(void)
{
    AioContext *ctx[AIO_CONTEXT_MAX];
    bool seen[AIO_CONTEXT_MAX] = { false };
    GError *err = NULL;
    AioSim *sim = aio_sim_new(1); /* its contexts need no fds until they watch some */

    for (int i = 0; i < AIO_CONTEXT_MAX; i++) {
        ctx[i] = aio_sim_context_new(sim);
        g_assert_nonnull(ctx[i]);
        g_assert_cmpuint(aio_context_index(ctx[i]), <, AIO_CONTEXT_MAX);
        g_assert_false(seen[aio_context_index(ctx[i])]);
        seen[aio_context_index(ctx[i])] = true;
    }
    g_assert_null(aio_context_new(&err));
    g_assert_error(err, BDRV_ERROR, EMFILE);
    g_clear_error(&err);
    g_assert_null(aio_context_current()); /* no private one either */
    for (int i = 0; i < AIO_CONTEXT_MAX; i++) {
        aio_context_unref(ctx[i]);
    }
    aio_sim_free(sim);
}

static void *index_of_private(void *opaque)
{
    AioContext *ctx = aio_context_current();

    g_assert_true(ctx == aio_context_current());
    return GUINT_TO_POINTER(aio_context_index(ctx) + 1);
}

static void test_private_ends_with_thread(void)
{
    void *first = NULL, *second = NULL;
    pthread_t thread;

    pthread_create(&thread, NULL, index_of_private, NULL);
    pthread_join(thread, &first);
    pthread_create(&thread, NULL, index_of_private, NULL);
    pthread_join(thread, &second);
    g_assert_nonnull(first);
    g_assert_true(first == second); /* its index is free again */
}

static void *enter_over_private(void *opaque)
{
    AioContext *own = aio_context_current();
    AioContext *ctx = enter_new();

    g_assert_true(aio_context_current() == ctx);
    leave_free(ctx);
    g_assert_true(aio_context_current() == own);
    return NULL;
}

static void test_enter_over_private(void)
{
    pthread_t thread;

    pthread_create(&thread, NULL, enter_over_private, NULL);
    pthread_join(thread, NULL);
}

/* Context data */

static Log data_log;
static const char key_a, key_b;

static void *make_a(AioContext *ctx)
{
    append(&data_log, 'a');
    return (void *)"x";
}

static void *make_null(AioContext *ctx)
{
    append(&data_log, 'n');
    return NULL;
}

static void destroy_data(void *data)
{
    append(&data_log, *(char *)data);
}

static void test_data(void)
{
    AioContext *ctx = aio_context_new(NULL);

    memset(&data_log, 0, sizeof(data_log));
    g_assert_cmpstr(aio_context_data(ctx, &key_a, make_a, destroy_data), ==, "x");
    g_assert_cmpstr(aio_context_data(ctx, &key_a, make_a, destroy_data), ==, "x");
    g_assert_null(aio_context_data(ctx, &key_b, make_null, destroy_data));
    g_assert_null(aio_context_data(ctx, &key_b, make_null, destroy_data));
    aio_context_unref(ctx);
    g_assert_cmpstr(data_log.text, ==, "anx");
}

static void test_data_retry(void)
{
    AioContext *ctx = aio_context_new(NULL);

    memset(&data_log, 0, sizeof(data_log));
    g_assert_null(aio_context_data(ctx, &key_a, make_null, destroy_data));
    aio_context_data_retry(ctx, &key_a);
    g_assert_cmpstr(aio_context_data(ctx, &key_a, make_a, destroy_data), ==, "x");
    aio_context_data_retry(ctx, &key_a);
    g_assert_cmpstr(aio_context_data(ctx, &key_a, make_null, destroy_data), ==, "x");
    aio_context_unref(ctx);
    g_assert_cmpstr(data_log.text, ==, "nax");
}

/* Calls */

static void test_calls_in_order(void)
{
    AioContext *ctx = enter_new();
    LogCall calls[3];
    Log log = { "" };

    for (int i = 0; i < 3; i++) {
        aio_call(ctx, &log_call_init(&calls[i], &log, 'a' + i)->call);
    }
    g_assert_true(aio_context_run(ctx, true));
    g_assert_false(aio_context_run(ctx, false));
    g_assert_cmpstr(log.text, ==, "abc");
    leave_free(ctx);
}

static void *push_three(void *opaque)
{
    LogCall *calls = opaque;

    for (int i = 0; i < 3; i++) {
        aio_call(*(AioContext **)(calls + 3), &calls[i].call);
    }
    return NULL;
}

static void test_foreign_calls_in_order(void)
{
    struct {
        LogCall calls[3];
        AioContext *ctx;
    } arg;
    AioContext *ctx = arg.ctx = enter_new();
    Log log = { "" };
    pthread_t thread;

    for (int i = 0; i < 3; i++) {
        log_call_init(&arg.calls[i], &log, 'a' + i);
    }
    pthread_create(&thread, NULL, push_three, &arg);
    pthread_join(thread, NULL);
    g_assert_false(atomic_load(&ctx->notified)); /* it did not sleep: no system call */
    g_assert_true(aio_context_run(ctx, true));
    g_assert_cmpstr(log.text, ==, "abc");
    leave_free(ctx);
}

typedef struct Sleeper {
    AioContext *ctx;
    AioCall call;
    bool called;
} Sleeper;

static void *wake_the_sleeper(void *opaque)
{
    Sleeper *sleeper = opaque;

    while (!atomic_load(&sleeper->ctx->sleeping)) {
        sched_yield();
    }
    aio_call(sleeper->ctx, &sleeper->call);
    return NULL;
}

static void test_foreign_call_ends_sleep(void)
{
    Sleeper sleeper = { .call = { .func = set_flag, .opaque = &sleeper.called } };
    AioContext *ctx = sleeper.ctx = enter_new();
    pthread_t thread;

    pthread_create(&thread, NULL, wake_the_sleeper, &sleeper);
    g_assert_true(aio_context_run(ctx, true));
    g_assert_true(sleeper.called);
    pthread_join(thread, NULL);
    leave_free(ctx);
}

static void run_nested(void *opaque)
{
    g_assert_true(aio_in_callback());
    g_assert_false(aio_context_run(aio_context_current(), true));
    *(bool *)opaque = true;
}

static void test_no_nesting(void)
{
    bool called = false;
    AioCall call = { .func = run_nested, .opaque = &called };
    AioContext *ctx = enter_new();

    aio_call(ctx, &call);
    aio_context_run(ctx, true);
    g_assert_true(called);
    g_assert_false(aio_in_callback());
    leave_free(ctx);
}

static void coroutine_fn queue_user_call_then_sleep(void *opaque)
{
    aio_call_user(aio_context_current(), opaque);
    co_sleep_until(aio_clock_ns(aio_context_current()) + MS);
}

static void test_user_calls_wait_for_embedder(void)
{
    bool called = false;
    AioCall call = { .func = set_flag, .opaque = &called };
    AioContext *ctx = enter_new();

    g_assert_cmpint(co_run_blocking(queue_user_call_then_sleep, &call), ==, 0);
    g_assert_false(called);
    g_assert_true(aio_context_run(ctx, false));
    g_assert_true(called);
    leave_free(ctx);
}

/* Fairness */

typedef struct Endless {
    AioContext *ctx;
    AioCall call;
    bool stop;
} Endless;

static void call_again(void *opaque)
{
    Endless *endless = opaque;

    if (!endless->stop) {
        aio_call(endless->ctx, &endless->call);
    }
}

static void coroutine_fn reschedule_for_ever(void *opaque)
{
    Endless *endless = opaque;

    while (!endless->stop) {
        co_reschedule();
    }
}

static void test_nothing_starves(void)
{
    Endless endless = { .ctx = enter_new(), .call = { .func = call_again, .opaque = &endless } };
    bool timer_ran = false, fd_ran = false, user_ran = false;
    AioCall user = { .func = set_flag, .opaque = &user_ran };
    AioTimer *timer = aio_timer_new(endless.ctx, set_flag, &timer_ran);
    int fds[2];

    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    g_assert_cmpint(write(fds[1], "", 1), ==, 1);
    aio_set_fd_handler(endless.ctx, fds[0], set_flag, NULL, &fd_ran);
    aio_timer_arm(timer, 0);
    aio_call(endless.ctx, &endless.call);
    co_enter(co_new(reschedule_for_ever, &endless));
    aio_call_user(endless.ctx, &user);
    for (int i = 0; i <= AIO_ROUNDS_PER_FD_POLL; i++) {
        g_assert_true(aio_context_run(endless.ctx, true));
    }
    g_assert_true(timer_ran && fd_ran && user_ran);
    endless.stop = true;
    while (aio_context_run(endless.ctx, false) && endless.ctx->ready.first) {
    }
    aio_set_fd_handler(endless.ctx, fds[0], NULL, NULL, NULL);
    close(fds[0]);
    close(fds[1]);
    aio_timer_free(timer);
    leave_free(endless.ctx);
}

/* Timers */

typedef struct LogTimer {
    AioTimer timer;
    Log *log;
    char letter;
} LogTimer;

static void log_timer(void *opaque)
{
    LogTimer *timer = opaque;

    append(timer->log, timer->letter);
}

static void test_timer_order(void)
{
    static const struct {
        char letter;
        int64_t deadline;
    } arms[] = { { 'd', 40 }, { 'b', 20 }, { 'c', 20 }, { 'a', 10 }, { 'x', 30 }, { 'e', 40 } };
    AioContext *ctx = enter_new();
    LogTimer timers[G_N_ELEMENTS(arms)];
    Log log = { "" };

    for (size_t i = 0; i < G_N_ELEMENTS(arms); i++) {
        timers[i] = (LogTimer){ .log = &log, .letter = arms[i].letter };
        aio_timer_init(&timers[i].timer, ctx, log_timer, &timers[i]);
        aio_timer_arm(&timers[i].timer, arms[i].deadline);
    }
    aio_timer_cancel(&timers[4].timer);
    aio_timer_arm(&timers[3].timer, 50); /* moves to the end */
    aio_context_run(ctx, true);
    g_assert_cmpstr(log.text, ==, "bcdea");
    for (size_t i = 0; i < G_N_ELEMENTS(arms); i++) {
        aio_timer_destroy(&timers[i].timer);
    }
    leave_free(ctx);
}

typedef struct HeapCheck {
    int64_t last;
    unsigned fired;
} HeapCheck;

static HeapCheck heap_check;

static void check_ascending(void *opaque)
{
    AioTimer *timer = *(AioTimer **)opaque;

    g_assert_cmpint(timer->deadline_ns, >=, heap_check.last);
    heap_check.last = timer->deadline_ns;
    heap_check.fired++;
}

static void test_timer_heap(void)
{
    const char *seed_text = g_getenv("BDRV_TEST_SEED");
    guint32 seed = seed_text ? (guint32)strtoul(seed_text, NULL, 0) : g_random_int();
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    AioContext *ctx = enter_new();
    AioTimer *timers[100];
    unsigned armed = 0;

    g_test_message("BDRV_TEST_SEED=%u", seed);
    for (int i = 0; i < 100; i++) {
        timers[i] = aio_timer_new(ctx, check_ascending, &timers[i]);
    }
    for (int i = 0; i < 2000; i++) {
        AioTimer *timer = timers[g_rand_int_range(rand, 0, 100)];

        if (g_rand_int_range(rand, 0, 3)) {
            aio_timer_arm(timer, g_rand_int_range(rand, 0, 1000));
        } else {
            aio_timer_cancel(timer);
        }
    }
    for (int i = 0; i < 100; i++) {
        armed += timers[i]->slot != 0;
    }
    heap_check = (HeapCheck){ 0 };
    while (aio_timers_run(ctx, 1000, 7)) {
    }
    g_assert_cmpuint(heap_check.fired, ==, armed);
    for (int i = 0; i < 100; i++) {
        aio_timer_free(timers[i]);
    }
    leave_free(ctx);
}

static void free_own_timer(void *opaque)
{
    AioTimer **timer = opaque;

    aio_timer_free(*timer);
    *timer = NULL;
}

static void test_timer_frees_itself(void)
{
    AioContext *ctx = enter_new();
    AioTimer *timer = aio_timer_new(ctx, free_own_timer, &timer);

    aio_timer_arm(timer, aio_clock_ns(ctx) + MS);
    g_assert_true(aio_context_run(ctx, true));
    g_assert_null(timer);
    leave_free(ctx);
}

static void test_sleep_until_deadline(void)
{
    AioContext *ctx = enter_new();

    for (int coarse = 0; coarse < 2; coarse++) {
        bool fired = false;
        AioTimer *timer = aio_timer_new(ctx, set_flag, &fired);
        int64_t deadline = aio_clock_ns(ctx) + 2 * MS;

        ctx->sleep_in_ms = coarse; /* as on a kernel without epoll_pwait2() */
        aio_timer_arm(timer, deadline);
        g_assert_true(aio_context_run(ctx, true));
        g_assert_true(fired);
        g_assert_cmpint(aio_clock_ns(ctx), >=, deadline);
        aio_timer_free(timer);
    }
    leave_free(ctx);
}

/* File descriptors */

typedef struct FdTest {
    AioContext *ctx;
    int fds[2];
    unsigned reads, writes;
    int remove; /* fd whose handler the first call removes; -1: none */
} FdTest;

static void on_readable(void *opaque)
{
    FdTest *test = opaque;

    test->reads++;
    if (test->remove >= 0) {
        aio_set_fd_handler(test->ctx, test->remove, NULL, NULL, NULL);
    }
}

static void on_writable(void *opaque)
{
    ((FdTest *)opaque)->writes++;
}

static void test_fd_level_triggered(void)
{
    FdTest test = { .ctx = enter_new(), .remove = -1 };
    char c;

    g_assert_cmpint(pipe2(test.fds, O_CLOEXEC), ==, 0);
    g_assert_cmpint(aio_set_fd_handler(test.ctx, test.fds[0], on_readable, NULL, &test), ==, 0);
    g_assert_false(aio_context_run(test.ctx, false));
    g_assert_cmpint(write(test.fds[1], "", 1), ==, 1);
    g_assert_true(aio_context_run(test.ctx, true));
    g_assert_true(aio_context_run(test.ctx, true));
    g_assert_cmpuint(test.reads, ==, 2);
    g_assert_cmpint(read(test.fds[0], &c, 1), ==, 1);
    g_assert_false(aio_context_run(test.ctx, false));
    g_assert_cmpint(aio_set_fd_handler(test.ctx, test.fds[1], NULL, on_writable, &test), ==, 0);
    g_assert_true(aio_context_run(test.ctx, true));
    g_assert_cmpuint(test.writes, ==, 1);
    g_assert_cmpint(aio_set_fd_handler(test.ctx, test.fds[1], NULL, NULL, NULL), ==, 0);
    g_assert_false(aio_context_run(test.ctx, false));
    close(test.fds[1]); /* a hang-up reaches the reader */
    g_assert_true(aio_context_run(test.ctx, true));
    g_assert_cmpuint(test.reads, ==, 3);
    aio_set_fd_handler(test.ctx, test.fds[0], NULL, NULL, NULL);
    close(test.fds[0]);
    leave_free(test.ctx);
}

static void test_fd_removed_in_batch(void)
{
    FdTest a = { .ctx = enter_new() }, b = { .ctx = a.ctx };

    g_assert_cmpint(pipe2(a.fds, O_CLOEXEC), ==, 0);
    g_assert_cmpint(pipe2(b.fds, O_CLOEXEC), ==, 0);
    a.remove = b.fds[0];
    b.remove = a.fds[0];
    aio_set_fd_handler(a.ctx, a.fds[0], on_readable, NULL, &a);
    aio_set_fd_handler(a.ctx, b.fds[0], on_readable, NULL, &b);
    close(a.fds[1]);
    close(b.fds[1]);
    g_assert_true(aio_context_run(a.ctx, true)); /* both in one batch: who comes first removes the other */
    g_assert_cmpuint(a.reads + b.reads, ==, 1);
    aio_set_fd_handler(a.ctx, a.fds[0], NULL, NULL, NULL);
    aio_set_fd_handler(a.ctx, b.fds[0], NULL, NULL, NULL);
    close(a.fds[0]);
    close(b.fds[0]);
    leave_free(a.ctx);
}

static void test_fd_regular_file(void)
{
    AioContext *ctx = enter_new();
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    g_assert_cmpint(aio_set_fd_handler(ctx, fd, on_readable, NULL, NULL), ==, -EPERM);
    close(fd);
    leave_free(ctx);
}

/* Rings */

typedef struct TestRing {
    AioRing ring;
    unsigned queued, in_flight, submits, done;
} TestRing;

static bool test_ring_poll(AioRing *ring)
{
    TestRing *test = (TestRing *)ring;
    bool any = test->in_flight != 0;

    test->done += test->in_flight;
    test->in_flight = 0;
    return any;
}

static void test_ring_submit(AioRing *ring)
{
    TestRing *test = (TestRing *)ring;

    if (test->queued) {
        test->submits++;
        test->in_flight += test->queued;
        test->queued = 0;
    }
}

static bool test_ring_busy(AioRing *ring)
{
    return ((TestRing *)ring)->in_flight != 0;
}

static void queue_on_ring(void *opaque)
{
    ((TestRing *)opaque)->queued++;
}

static void test_rings(void)
{
    TestRing ring = { .ring = { .poll = test_ring_poll, .submit = test_ring_submit, .busy = test_ring_busy } };
    AioContext *ctx = enter_new();
    AioCall calls[3];

    aio_ring_add(ctx, &ring.ring);
    for (int i = 0; i < 3; i++) {
        calls[i] = (AioCall){ .func = queue_on_ring, .opaque = &ring };
        aio_call(ctx, &calls[i]);
    }
    while (ring.done < 3) {
        g_assert_true(aio_context_run(ctx, true)); /* no fd would ever end a sleep */
    }
    g_assert_cmpuint(ring.submits, ==, 1);
    aio_ring_remove(ctx, &ring.ring);
    leave_free(ctx);
}

/* Polling from outside */

static void test_fd_shows_own_call(void)
{
    bool called = false;
    AioCall call = { .func = set_flag, .opaque = &called };
    AioContext *ctx = enter_new();
    int fd = aio_context_fd(ctx);

    g_assert_false(readable(fd, 0));
    aio_call(ctx, &call);
    g_assert_true(readable(fd, 0));
    while (readable(fd, 0)) {
        aio_context_run(ctx, false);
    }
    g_assert_true(called);

    called = false;
    aio_call_user(ctx, &call);
    g_assert_true(readable(fd, 0));
    while (readable(fd, 0)) {
        aio_context_run(ctx, false);
    }
    g_assert_true(called);
    leave_free(ctx);
}

static void test_fd_shows_foreign_call(void)
{
    Sleeper sleeper = { .call = { .func = set_flag, .opaque = &sleeper.called } };
    AioContext *ctx = sleeper.ctx = enter_new();
    int fd = aio_context_fd(ctx);
    pthread_t thread;

    pthread_create(&thread, NULL, wake_the_sleeper, &sleeper);
    g_assert_true(readable(fd, -1));
    g_assert_true(aio_context_run(ctx, false));
    g_assert_true(sleeper.called);
    pthread_join(thread, NULL);
    aio_context_run(ctx, false);
    g_assert_false(readable(fd, 0));
    leave_free(ctx);
}

static void test_fd_shows_timer(void)
{
    AioContext *ctx = enter_new();
    bool fired = false;
    AioTimer *timer = aio_timer_new(ctx, set_flag, &fired);
    int fd = aio_context_fd(ctx);

    aio_timer_arm(timer, aio_clock_ns(ctx) + MS);
    while (!fired) {
        g_assert_true(readable(fd, -1));
        aio_context_run(ctx, false);
    }
    aio_context_run(ctx, false);
    g_assert_false(readable(fd, 0));
    aio_timer_free(timer);
    leave_free(ctx);
}

static void coroutine_fn sleep_a_ms(void *opaque)
{
    co_sleep_until(aio_clock_ns(aio_context_current()) + MS);
    co_reschedule();
    *(bool *)opaque = true;
}

static void test_fd_shows_coroutine(void)
{
    AioContext *ctx = enter_new();
    int fd = aio_context_fd(ctx);
    bool done = false;

    co_enter(co_new(sleep_a_ms, &done)); /* arms a timer outside of a round */
    while (!done) {
        g_assert_true(readable(fd, -1));
        aio_context_run(ctx, false);
    }
    leave_free(ctx);
}

static void test_fd_shows_ring(void)
{
    TestRing ring = { .ring = { .poll = test_ring_poll, .submit = test_ring_submit, .busy = test_ring_busy } };
    AioContext *ctx = enter_new();
    int fd = aio_context_fd(ctx);

    aio_ring_add(ctx, &ring.ring);
    ring.queued++;
    aio_ring_queued(ctx);
    g_assert_true(readable(fd, 0));
    aio_context_run(ctx, false);
    g_assert_cmpuint(ring.submits, ==, 1);
    aio_ring_remove(ctx, &ring.ring);
    leave_free(ctx);
}

static void test_fd_after_blocking_call(void)
{
    bool called = false;
    AioCall call = { .func = set_flag, .opaque = &called };
    AioContext *ctx = enter_new();
    int fd = aio_context_fd(ctx);

    g_assert_cmpint(co_run_blocking(queue_user_call_then_sleep, &call), ==, 0);
    g_assert_false(called);
    g_assert_true(readable(fd, 0)); /* the callback that waits shows */
    aio_context_run(ctx, false);
    g_assert_true(called);
    leave_free(ctx);
}

static void test_source(void)
{
    AioContext *ctx = enter_new();
    GMainContext *main_context = g_main_context_new();
    GSource *source = aio_context_source_new(ctx);
    bool done = false;

    g_source_attach(source, main_context);
    co_enter(co_new(sleep_a_ms, &done));
    while (!done) {
        g_main_context_iteration(main_context, TRUE);
    }
    g_source_destroy(source);
    g_source_unref(source);
    g_main_context_unref(main_context);
    leave_free(ctx);
}

/* ---- memory ---- */

static void test_memory_pieces(void)
{
    AioContext *ctx = aio_context_new(NULL);
    char memory[8];
    unsigned count, generation = aio_context_memory_generation(ctx);

    aio_context_enter(ctx);
    g_assert_cmpint(aio_context_add_memory(ctx, memory + 2, 4), ==, 0);
    g_assert_cmpuint(aio_context_memory_generation(ctx), !=, generation);
    g_assert_cmpint(aio_context_add_memory(ctx, memory, 3), ==, -EEXIST);
    g_assert_cmpint(aio_context_add_memory(ctx, memory + 5, 3), ==, -EEXIST);
    g_assert_cmpint(aio_context_add_memory(ctx, memory, 2), ==, 0);
    g_assert_cmpint(aio_context_add_memory(ctx, memory + 6, 2), ==, 0);
    g_assert_cmpint(aio_context_remove_memory(ctx, memory + 1), ==, -ENOENT);
    g_assert_cmpint(aio_context_remove_memory(ctx, memory + 2), ==, 0);
    g_assert_true(aio_context_memory(ctx, &count)[0].iov_base != memory + 2);
    g_assert_cmpuint(count, ==, 2);
    aio_context_leave(ctx);
    aio_context_unref(ctx);
}

static void test_memory_refused(void)
{
    AioContext *ctx = aio_context_current();
    static char memory[AIO_MEMORY_MAX + 1];

    g_assert_cmpint(aio_context_add_memory(ctx, NULL, 1), ==, -EINVAL);
    g_assert_cmpint(aio_context_add_memory(ctx, memory, 0), ==, -EINVAL);
    g_assert_cmpint(aio_context_add_memory(ctx, memory, SIZE_MAX), ==, -EINVAL);
    for (unsigned i = 0; i < AIO_MEMORY_MAX; i++) {
        g_assert_cmpint(aio_context_add_memory(ctx, memory + i, 1), ==, 0);
    }
    g_assert_cmpint(aio_context_add_memory(ctx, memory + AIO_MEMORY_MAX, 1), ==, -ENOSPC);
    for (unsigned i = 0; i < AIO_MEMORY_MAX; i++) {
        g_assert_cmpint(aio_context_remove_memory(ctx, memory + i), ==, 0);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/loop/indices are unique and the last context is refused", test_indices);
    g_test_add_func("/loop/a private context ends with its thread", test_private_ends_with_thread);
    g_test_add_func("/loop/a private context gives way to an entered one", test_enter_over_private);
    g_test_add_func("/loop/context data is made once and destroyed with the context", test_data);
    g_test_add_func("/loop/context data that could not be made is tried again when asked", test_data_retry);
    g_test_add_func("/loop/memory/pieces may touch, not overlap", test_memory_pieces);
    g_test_add_func("/loop/memory/no more than there is room for, and no nonsense", test_memory_refused);
    g_test_add_func("/loop/calls run once and in order", test_calls_in_order);
    g_test_add_func("/loop/calls of another thread run in order without a system call", test_foreign_calls_in_order);
    g_test_add_func("/loop/a call of another thread ends a sleep", test_foreign_call_ends_sleep);
    g_test_add_func("/loop/a round inside a callback is refused", test_no_nesting);
    g_test_add_func("/loop/user callbacks wait for the embedder's run", test_user_calls_wait_for_embedder);
    g_test_add_func("/loop/endless ready work starves nothing", test_nothing_starves);
    g_test_add_func("/loop/timer/fire by deadline, then by arming order", test_timer_order);
    g_test_add_func("/loop/timer/random arming keeps the order", test_timer_heap);
    g_test_add_func("/loop/timer/may free itself", test_timer_frees_itself);
    g_test_add_func("/loop/timer/a sleep lasts until the deadline", test_sleep_until_deadline);
    g_test_add_func("/loop/fd/handlers are level-triggered", test_fd_level_triggered);
    g_test_add_func("/loop/fd/a handler removed in a batch is not called", test_fd_removed_in_batch);
    g_test_add_func("/loop/fd/a regular file is refused", test_fd_regular_file);
    g_test_add_func("/loop/ring/one submission a round, polled before sleeping", test_rings);
    g_test_add_func("/loop/outside/the fd shows a call of the own thread", test_fd_shows_own_call);
    g_test_add_func("/loop/outside/the fd shows a call of another thread", test_fd_shows_foreign_call);
    g_test_add_func("/loop/outside/the fd shows a timer", test_fd_shows_timer);
    g_test_add_func("/loop/outside/the fd shows a ready coroutine", test_fd_shows_coroutine);
    g_test_add_func("/loop/outside/the fd shows a queued ring request", test_fd_shows_ring);
    g_test_add_func("/loop/outside/the fd shows callbacks left by a blocking call", test_fd_after_blocking_call);
    g_test_add_func("/loop/outside/a GSource runs the context", test_source);
    return g_test_run();
}
