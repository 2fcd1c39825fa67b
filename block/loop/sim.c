/* SPDX-License-Identifier: MIT */
/*
 * Deterministic runs. All contexts of a simulation live on one OS thread; a step draws which of them
 * does which one thing that is due. Time is virtual: it creeps with each step, so that timers fire
 * amid other work too, and jumps to the next deadline when nothing else is due. A worker's job is
 * carried out at one drawn moment and completes at another.
 *
 * Real file descriptors and rings work in a simulation but are of course not determined by the seed.
 */

#include "block/loop/loop.h"

struct AioSim {
    uint64_t state[4];
    uint64_t trace; /* of all draws: what there was to choose from, and what was chosen */
    int64_t now_ns;
    unsigned yield_percent;
    AioContext *contexts; /* in the order they were made */
    AioJob *jobs;         /* not carried out yet */
    unsigned n_jobs;
    AioJob *done; /* carried out, completion not delivered yet */
    unsigned n_done;
};

#define STEP_NS_MAX 2048   /* time creeps by less than this a step */
#define RING_WAIT_NS 1000000

/* splitmix64, to fill the generator's state from a seed */
static uint64_t split_mix(uint64_t *x)
{
    uint64_t z = (*x += 0x9e3779b97f4a7c15ULL);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static void note(AioSim *sim, uint64_t what)
{
    sim->trace = (rotl(sim->trace, 23) ^ what) * 0x9e3779b97f4a7c15ULL;
}

uint64_t aio_sim_trace(const AioSim *sim)
{
    return sim->trace;
}

/* xoshiro256** of Blackman and Vigna (public domain algorithm) */
uint64_t aio_sim_random(AioSim *sim)
{
    uint64_t *s = sim->state;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    note(sim, result);
    return result;
}

/* 0 .. n - 1; the bias of the multiplication is below n / 2^32 */
static unsigned draw(AioSim *sim, unsigned n)
{
    note(sim, n);
    return (unsigned)(((aio_sim_random(sim) >> 32) * n) >> 32);
}

bool aio_sim_draw_yield(AioSim *sim)
{
    return sim->yield_percent && draw(sim, 100) < sim->yield_percent;
}

AioSim *aio_sim_new(uint64_t seed)
{
    AioSim *sim = g_new0(AioSim, 1);

    for (int i = 0; i < 4; i++) {
        sim->state[i] = split_mix(&seed);
    }
    return sim;
}

void aio_sim_free(AioSim *sim)
{
    if (sim) {
        g_return_if_fail(!sim->contexts);
        g_free(sim);
    }
}

void aio_sim_set_yield_chance(AioSim *sim, unsigned percent)
{
    sim->yield_percent = MIN(percent, 100);
}

void aio_sim_attach(AioSim *sim, AioContext *ctx)
{
    AioContext **p = &sim->contexts;

    while (*p) {
        p = &(*p)->next_in_sim;
    }
    *p = ctx;
}

void aio_sim_detach(AioSim *sim, AioContext *ctx)
{
    for (AioContext **p = &sim->contexts; *p; p = &(*p)->next_in_sim) {
        if (*p == ctx) {
            *p = ctx->next_in_sim;
            return;
        }
    }
}

static void sim_start_job(AioContext *ctx, AioJob *job)
{
    AioSim *sim = ctx->sim;

    job->next = sim->jobs;
    sim->jobs = job;
    sim->n_jobs++;
}

static AioJob *take_drawn_job(AioSim *sim, AioJob **list, unsigned *n)
{
    unsigned i = draw(sim, *n);
    AioJob *job;

    for (; i; i--) {
        list = &(*list)->next;
    }
    job = *list;
    *list = job->next;
    (*n)--;
    return job;
}

/* As in a worker thread: outside of all contexts of the simulation, and no blocking calls. */
static void run_job(AioSim *sim)
{
    AioJob *job = take_drawn_job(sim, &sim->jobs, &sim->n_jobs);
    AioContext *current = aio_thread.current;

    aio_thread.current = aio_thread.own;
    job->result = job->func(job->opaque);
    aio_thread.current = current;
    job->next = sim->done;
    sim->done = job;
    sim->n_done++;
}

static void complete_job(AioSim *sim)
{
    co_wake(take_drawn_job(sim, &sim->done, &sim->n_done)->co);
}

static void run_drawn_ready(AioSim *sim, AioContext *ctx)
{
    CoReady **p = &ctx->ready.first;
    CoReady *ready;
    unsigned n = 0;

    for (ready = *p; ready; ready = ready->next) {
        n++;
    }
    for (n = draw(sim, n); n; n--) {
        p = &(*p)->next;
    }
    ready = *p;
    *p = ready->next;
    if (!*p) {
        ctx->ready.last = p;
    }
    co_resume(ready);
}

static void run_drawn_call(AioSim *sim, AioContext *ctx)
{
    AioCall **p = &ctx->calls.first;
    AioCall *call;
    unsigned n = 0;

    for (call = *p; call; call = call->next) {
        n++;
    }
    for (n = draw(sim, n); n; n--) {
        p = &(*p)->next;
    }
    call = *p;
    *p = call->next;
    if (!*p) {
        ctx->calls.last = p;
    }
    call->func(call->opaque);
}

enum {
    DUE_READY = 1,
    DUE_CALL = 2,
    DUE_TIMER = 4,
    DUE_USER = 8,
};

/* @blocked: the context inside a blocking call, whose user callbacks wait; or NULL */
static unsigned what_is_due(AioSim *sim, AioContext *ctx, AioContext *blocked)
{
    aio_inbox_collect(ctx);
    return (ctx->ready.first ? DUE_READY : 0) | (ctx->calls.first ? DUE_CALL : 0) |
           (aio_timers_next(ctx) <= sim->now_ns ? DUE_TIMER : 0) |
           (ctx->user_calls.first && ctx != blocked ? DUE_USER : 0);
}

static unsigned draw_bit(AioSim *sim, unsigned bits)
{
    for (unsigned i = draw(sim, __builtin_popcount(bits)); i; i--) {
        bits &= bits - 1;
    }
    return bits & -bits;
}

/* A step of one context, during which this OS thread is that context's thread. */
typedef struct SimTurn {
    AioContext *ctx;
    AioContext *current; /* who it was before */
    bool running;
} SimTurn;

static SimTurn turn_begin(AioContext *ctx)
{
    SimTurn turn = { .ctx = aio_context_ref(ctx), .current = aio_thread.current, .running = ctx->running };

    aio_thread.current = ctx;
    ctx->running = true;
    return turn;
}

static void turn_end(const SimTurn *turn)
{
    AioContext *ctx = turn->ctx;

    ctx->running = turn->running;
    if (ctx->external && !ctx->running) {
        aio_external_publish(ctx);
    }
    aio_thread.current = turn->current;
    aio_context_unref(ctx); /* what ran may have dropped all others */
}

static void run_one(AioSim *sim, AioContext *ctx, unsigned due)
{
    SimTurn turn = turn_begin(ctx);

    switch (draw_bit(sim, due)) {
    case DUE_READY:
        run_drawn_ready(sim, ctx);
        break;
    case DUE_CALL:
        run_drawn_call(sim, ctx);
        break;
    case DUE_TIMER:
        aio_timers_run(ctx, sim->now_ns, 1);
        break;
    case DUE_USER:
        aio_user_calls_run(ctx, 1);
        break;
    }
    aio_context_submit(ctx);
    turn_end(&turn);
}

/* Draw one of the things that are due and do it; false if there is none. */
static bool run_something(AioSim *sim, AioContext *blocked)
{
    unsigned choices = (sim->n_jobs > 0) + (sim->n_done > 0);
    unsigned choice;

    for (AioContext *ctx = sim->contexts; ctx; ctx = ctx->next_in_sim) {
        choices += what_is_due(sim, ctx, blocked) != 0;
    }
    if (!choices) {
        return false;
    }
    sim->now_ns += draw(sim, STEP_NS_MAX);
    choice = draw(sim, choices);
    if (sim->n_jobs && choice-- == 0) {
        run_job(sim);
        return true;
    }
    if (sim->n_done && choice-- == 0) {
        complete_job(sim);
        return true;
    }
    for (AioContext *ctx = sim->contexts; ctx; ctx = ctx->next_in_sim) {
        unsigned due = what_is_due(sim, ctx, blocked);

        if (due && choice-- == 0) {
            run_one(sim, ctx, due);
            return true;
        }
    }
    g_assert_not_reached();
}

/* Look at real rings and fds. */
static bool poll_outside(AioSim *sim, int64_t timeout_ns)
{
    bool any = false;

    for (AioContext *next, *ctx = sim->contexts; ctx; ctx = next) {
        SimTurn turn = turn_begin(ctx);

        aio_context_submit(ctx);
        any |= aio_rings_poll(ctx);
        if (ctx->epoll_fd >= 0) {
            any |= aio_fds_poll(ctx, aio_rings_busy(ctx) && !any ? timeout_ns : 0);
        }
        next = ctx->next_in_sim;
        turn_end(&turn);
    }
    return any;
}

static bool any_ring_busy(AioSim *sim)
{
    for (AioContext *ctx = sim->contexts; ctx; ctx = ctx->next_in_sim) {
        if (aio_rings_busy(ctx)) {
            return true;
        }
    }
    return false;
}

/* Nothing is due: let time jump to the first deadline. False if no timer is armed. */
static bool jump_to_timer(AioSim *sim)
{
    int64_t first = INT64_MAX;

    for (AioContext *ctx = sim->contexts; ctx; ctx = ctx->next_in_sim) {
        first = MIN(first, aio_timers_next(ctx));
    }
    if (first == INT64_MAX) {
        return false;
    }
    sim->now_ns = MAX(sim->now_ns, first);
    note(sim, (uint64_t)sim->now_ns);
    return true;
}

static bool sim_step(AioSim *sim, bool may_jump, AioContext *blocked)
{
    while (!run_something(sim, blocked)) {
        if (poll_outside(sim, may_jump ? RING_WAIT_NS : 0)) {
            return true;
        }
        if (!may_jump) {
            return false;
        }
        if (!any_ring_busy(sim) && !jump_to_timer(sim)) {
            return false;
        }
    }
    return true;
}

bool blocking_fn aio_sim_step(AioSim *sim)
{
    bool any;

    if (aio_thread.in_callback || co_in_coroutine()) {
        return false;
    }
    aio_thread.in_callback = true;
    any = sim_step(sim, true, NULL);
    aio_thread.in_callback = false;
    return any;
}

static bool sim_run(AioContext *ctx, bool may_block, AioCaller caller)
{
    /* Who polls from outside sleeps there instead of here. */
    return sim_step(ctx->sim, may_block || ctx->external, caller == AIO_CALLER_LIBRARY ? ctx : NULL);
}

static int64_t sim_clock_ns(AioContext *ctx)
{
    return ctx->sim->now_ns;
}

const AioSchedule aio_schedule_sim = {
    .clock_ns = sim_clock_ns,
    .run = sim_run,
    .start_job = sim_start_job,
};
