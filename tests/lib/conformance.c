/* SPDX-License-Identifier: MIT */
#include "tests/lib/conformance.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/test-node.h"

#define MAX_CONTEXTS 8
#define MAX_REQUESTS 64
#define MAX_VEC 12
#define SECTOR 512

typedef enum OpKind {
    OP_READ,
    OP_WRITE,
    OP_ZERO,
    OP_DISCARD,
    OP_FLUSH,
    OP_STATUS,
    OP_COPY,
} OpKind;

static const char *const op_names[] = { "read", "write", "zero", "discard", "flush", "status", "copy" };

typedef struct Op {
    struct Runner *runner;
    OpKind kind;
    int64_t offset, bytes;
    int64_t source; /* of a copy */
    BdrvRequestFlags flags;
    uint8_t *data; /* what is written, or was read */
    struct iovec vec[MAX_VEC];
    unsigned vec_count;
    BlockExtent extent;
    int ret;
} Op;

typedef struct Worker {
    struct Runner *runner;
    AioContext *ctx;
    GThread *thread;
    unsigned first, last; /* operations of the round */
    unsigned left;        /* coroutines of this worker that still run; its own thread only */
    AioCall call;         /* to start a round, or to quit */
    bool wanted; /* runner's lock; idle threads: start the round, or quit */
    bool quit;
} Worker;

typedef struct Runner {
    const ConformanceStack *stack;
    const ConformanceRun *run;
    uint64_t random;
    char *id, *dir, *options;
    BdrvGraph *graph;
    BlockBackend *blk;
    uint8_t *model;
    int64_t length; /* now */
    unsigned unit, round;
    Op ops[MAX_REQUESTS];
    unsigned count;
    AioSim *sim;
    Worker workers[MAX_CONTEXTS];
    pthread_mutex_t lock;
    pthread_cond_t all_done, start;
    unsigned busy; /* lock: workers whose round is not over */
    uint64_t *boundaries; /* scratch */
} Runner;

static void G_GNUC_NORETURN G_GNUC_PRINTF(2, 3) fail(Runner *r, const char *format, ...)
{
    g_autofree char *what = NULL;
    va_list args;

    va_start(args, format);
    what = g_strdup_vprintf(format, args);
    va_end(args);
    for (unsigned i = 0; i < r->count; i++) {
        const Op *op = &r->ops[i];

        g_test_message("  %-7s %8" PRId64 " +%-7" PRId64 " from %" PRId64 " flags %x: %d", op_names[op->kind],
                       op->offset, op->bytes, op->source, op->flags, op->ret);
    }
    g_error("%s: BDRV_TEST_SEED=%" PRIu64 " round %u: %s", r->stack->name, r->run->seed, r->round, what);
}

char *conformance_expand(const char *text, const char *id, const char *dir)
{
    GString *out = g_string_new(text);

    g_string_replace(out, "%ID%", id, 0);
    g_string_replace(out, "%DIR%", dir, 0);
    return g_string_free(out, FALSE);
}

/* ---- one request ---- */

static BdrvIov op_iov(const Op *op)
{
    return bdrv_iov_init(op->vec, op->vec_count);
}

static int coroutine_fn carry_out(Op *op)
{
    BlockBackend *blk = op->runner->blk;
    BdrvIov iov = op_iov(op);

    switch (op->kind) {
    case OP_READ:
        return blk_co_preadv(blk, op->offset, &iov, 0);
    case OP_WRITE:
        return blk_co_pwritev(blk, op->offset, &iov, op->flags);
    case OP_ZERO:
        return blk_co_pwrite_zeroes(blk, op->offset, op->bytes, op->flags);
    case OP_DISCARD:
        return blk_co_pdiscard(blk, op->offset, op->bytes);
    case OP_FLUSH:
        return blk_co_flush(blk);
    case OP_STATUS:
        return blk_co_block_status_above(blk, op->offset, op->bytes, &op->extent);
    case OP_COPY:
        return blk_co_copy_range(blk, op->source, blk, op->offset, op->bytes, op->flags);
    }
    g_assert_not_reached();
}

/* In the worker's thread. */
static void op_done(Worker *worker)
{
    Runner *r = worker->runner;

    if (--worker->left == 0 && !r->sim) {
        pthread_mutex_lock(&r->lock);
        r->busy--;
        pthread_cond_signal(&r->all_done);
        pthread_mutex_unlock(&r->lock);
    }
}

typedef struct OpCoroutine {
    Op *op;
    Worker *worker;
} OpCoroutine;

static void coroutine_fn op_entry(void *opaque)
{
    OpCoroutine *entry = opaque;

    entry->op->ret = carry_out(entry->op);
    op_done(entry->worker);
    g_free(entry);
}

/* ---- drawing a round ---- */

static int64_t pick_below(Runner *r, int64_t limit)
{
    return test_random_below(&r->random, limit);
}

/* Most requests are small and near each other; some are on nice boundaries, some are long. */
static void pick_range(Runner *r, int64_t *offset, int64_t *bytes)
{
    static const int64_t grains[] = { 1, 1, 512, 4096, 65536 };
    int64_t grain = MAX(grains[pick_below(r, G_N_ELEMENTS(grains))], (int64_t)r->unit);
    int64_t most = pick_below(r, 8) ? 20000 : 300000;

    *offset = pick_below(r, r->length);
    *bytes = 1 + pick_below(r, most);
    *offset -= *offset % grain;
    *bytes += (grain - *bytes % grain) % grain;
    *bytes = MIN(*bytes, r->length - *offset);
}

static bool overlaps(int64_t a, int64_t a_bytes, int64_t b, int64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

static bool touches_others(const Runner *r, const Op *op)
{
    for (unsigned i = 0; i < r->count; i++) {
        const Op *other = &r->ops[i];

        if (other->kind == OP_FLUSH) {
            continue;
        }
        if (overlaps(op->offset, op->bytes, other->offset, other->bytes) ||
            (op->kind == OP_COPY && overlaps(op->source, op->bytes, other->offset, other->bytes)) ||
            (other->kind == OP_COPY && overlaps(op->offset, op->bytes, other->source, other->bytes)) ||
            (op->kind == OP_COPY && other->kind == OP_COPY &&
             overlaps(op->source, op->bytes, other->source, other->bytes))) {
            return true;
        }
    }
    return false;
}

static void scatter(Runner *r, Op *op)
{
    int64_t done = 0;

    op->vec_count = 0;
    while (done < op->bytes) {
        int64_t left = op->bytes - done, part = left;

        if (op->vec_count + 1 < MAX_VEC && pick_below(r, 3)) {
            part = 1 + pick_below(r, left);
            part += (r->unit - part % r->unit) % r->unit;
            part = MIN(part, left);
        }
        op->vec[op->vec_count++] = (struct iovec){ .iov_base = op->data + done, .iov_len = part };
        done += part;
    }
}

static OpKind pick_kind(Runner *r)
{
    static const OpKind kinds[] = { OP_READ, OP_READ, OP_READ,    OP_WRITE, OP_WRITE,  OP_WRITE, OP_WRITE,
                                    OP_ZERO, OP_ZERO, OP_DISCARD, OP_FLUSH, OP_STATUS, OP_COPY };
    OpKind kind = kinds[pick_below(r, G_N_ELEMENTS(kinds))];

    return kind == OP_DISCARD && r->stack->no_discard ? OP_ZERO : kind;
}

static bool pick_op(Runner *r, Op *op)
{
    *op = (Op){ .runner = r, .kind = pick_kind(r), .ret = 1 };
    pick_range(r, &op->offset, &op->bytes);
    if (op->kind == OP_COPY) {
        int64_t ignored;

        pick_range(r, &op->source, &ignored);
        op->bytes = MIN(op->bytes, r->length - op->source);
        /* What a concurrent write does to the source of a copy is nobody's promise: always apart. */
        if (overlaps(op->source, op->bytes, op->offset, op->bytes) || touches_others(r, op)) {
            return false;
        }
    } else if (!r->run->overlap && touches_others(r, op)) {
        return false;
    } else {
        for (unsigned i = 0; i < r->count; i++) {
            if (r->ops[i].kind == OP_COPY && op->kind != OP_FLUSH &&
                (overlaps(op->offset, op->bytes, r->ops[i].source, r->ops[i].bytes) ||
                 overlaps(op->offset, op->bytes, r->ops[i].offset, r->ops[i].bytes))) {
                return false;
            }
        }
    }
    if (op->kind == OP_WRITE || op->kind == OP_ZERO || op->kind == OP_COPY) {
        op->flags |= pick_below(r, 8) ? 0 : BDRV_REQ_FUA;
    }
    if (op->kind == OP_ZERO) {
        op->flags |= pick_below(r, 2) ? BDRV_REQ_MAY_UNMAP : 0;
        op->flags |= pick_below(r, 6) ? 0 : BDRV_REQ_NO_FALLBACK;
    }
    op->data = g_malloc(op->bytes);
    if (op->kind == OP_WRITE) {
        for (int64_t i = 0; i < op->bytes; i += 8) {
            uint64_t word = test_random(&r->random);

            memcpy(op->data + i, &word, MIN(8, op->bytes - i));
        }
    } else {
        memset(op->data, 0xa5, op->bytes);
    }
    scatter(r, op);
    return true;
}

static void draw_round(Runner *r)
{
    unsigned wanted = 1 + pick_below(r, r->run->concurrency);

    r->count = 0;
    for (unsigned tries = 0; r->count < wanted && tries < 4 * wanted; tries++) {
        if (pick_op(r, &r->ops[r->count])) {
            r->count++;
        }
    }
}

/* ---- carrying a round out ---- */

static void start_ops(Worker *worker)
{
    Runner *r = worker->runner;

    worker->left = worker->last - worker->first;
    for (unsigned i = worker->first; i < worker->last; i++) {
        OpCoroutine *entry = g_new(OpCoroutine, 1);

        *entry = (OpCoroutine){ .op = &r->ops[i], .worker = worker };
        co_start(worker->ctx, co_new(op_entry, entry));
    }
}

static void start_round(void *opaque)
{
    start_ops(opaque);
}

static void quit_thread(void *opaque)
{
    ((Worker *)opaque)->quit = true;
}

/* The context is run only while requests of its own are under way: others must not need it in between. */
static void run_when_wanted(Worker *worker)
{
    Runner *r = worker->runner;

    for (;;) {
        pthread_mutex_lock(&r->lock);
        while (!worker->wanted) {
            pthread_cond_wait(&r->start, &r->lock);
        }
        worker->wanted = false;
        pthread_mutex_unlock(&r->lock);
        if (worker->quit) {
            return;
        }
        start_ops(worker);
        while (worker->left > 0) {
            aio_context_run(worker->ctx, true);
        }
    }
}

static void *worker_thread(void *opaque)
{
    Worker *worker = opaque;

    aio_context_enter(worker->ctx);
    if (worker->runner->run->idle) {
        run_when_wanted(worker);
    }
    while (!worker->quit) {
        aio_context_run(worker->ctx, true);
    }
    aio_context_leave(worker->ctx);
    return NULL;
}

static void call_worker(Worker *worker, void (*func)(void *opaque))
{
    Runner *r = worker->runner;

    if (r->run->idle) {
        pthread_mutex_lock(&r->lock);
        worker->quit = func == quit_thread;
        worker->wanted = true;
        pthread_cond_broadcast(&r->start);
        pthread_mutex_unlock(&r->lock);
        return;
    }
    worker->call = (AioCall){ .func = func, .opaque = worker };
    aio_call(worker->ctx, &worker->call);
}

static void run_round_in_threads(Runner *r)
{
    for (unsigned i = 0; i < r->run->contexts; i++) {
        r->busy += r->workers[i].first < r->workers[i].last;
    }
    for (unsigned i = 0; i < r->run->contexts; i++) {
        if (r->workers[i].first < r->workers[i].last) {
            call_worker(&r->workers[i], start_round);
        }
    }
    pthread_mutex_lock(&r->lock);
    while (r->busy) {
        pthread_cond_wait(&r->all_done, &r->lock);
    }
    pthread_mutex_unlock(&r->lock);
}

static void run_round(Runner *r)
{
    unsigned contexts = r->run->contexts;

    for (unsigned i = 0; i < contexts; i++) {
        r->workers[i].first = r->count * i / contexts;
        r->workers[i].last = r->count * (i + 1) / contexts;
    }
    if (r->sim) {
        bool busy = true;

        for (unsigned i = 0; i < contexts; i++) {
            start_ops(&r->workers[i]);
        }
        while (busy) {
            busy = false;
            for (unsigned i = 0; i < contexts; i++) {
                busy |= r->workers[i].left > 0;
            }
            if (busy && !aio_sim_step(r->sim)) {
                fail(r, "requests hang: nothing is left to do");
            }
        }
    } else {
        run_round_in_threads(r);
    }
}

/* ---- what the round may have done ---- */

static bool changes(const Op *op)
{
    return op->kind == OP_WRITE || op->kind == OP_ZERO || op->kind == OP_DISCARD || op->kind == OP_COPY;
}

/* What the segment would hold if @op was last; NULL: zeroes. */
static const uint8_t *result_of(const Runner *r, const Op *op, int64_t offset)
{
    switch (op->kind) {
    case OP_WRITE:
        return op->data + (offset - op->offset);
    case OP_COPY:
        return r->model + op->source + (offset - op->offset);
    default:
        return NULL;
    }
}

static bool equals(const uint8_t *found, const uint8_t *expected, int64_t bytes)
{
    return expected ? memcmp(found, expected, bytes) == 0 : bdrv_buffer_is_zero(found, bytes);
}

/*
 * May the segment, in which the same operations are active throughout, hold @found? @reading: during the
 * round. *@ragged is set if a discard is among them: it may leave out any part.
 */
static bool is_possible(Runner *r, int64_t offset, int64_t bytes, const uint8_t *found, bool reading,
                        bool *ragged)
{
    bool old_possible = true;

    *ragged = false;
    for (unsigned i = 0; i < r->count; i++) {
        const Op *op = &r->ops[i];

        if (!changes(op) || offset < op->offset || offset >= op->offset + op->bytes) {
            continue;
        }
        /* A discard is a hint, and a zero write that was refused may have done a part. */
        old_possible &= reading || op->kind == OP_DISCARD || op->ret == -ENOTSUP;
        *ragged |= op->kind == OP_DISCARD || op->ret == -ENOTSUP;
        if (equals(found, result_of(r, op, offset), bytes)) {
            return true;
        }
    }
    return old_possible && memcmp(found, r->model + offset, bytes) == 0;
}

static bool segment_is_possible(Runner *r, int64_t offset, int64_t bytes, const uint8_t *found, bool reading)
{
    bool ragged, ignored;

    if (is_possible(r, offset, bytes, found, reading, &ragged)) {
        return true;
    }
    ragged |= reading && r->stack->torn_reads;
    for (int64_t i = 0; ragged && i < bytes; i++) { /* each byte by itself */
        if (!is_possible(r, offset + i, 1, found + i, reading, &ignored)) {
            return false;
        }
    }
    return ragged;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Sector boundaries and ends of operations inside [offset, offset + bytes], sorted. */
static unsigned find_boundaries(Runner *r, int64_t offset, int64_t bytes)
{
    unsigned n = 0;

    for (int64_t at = offset; at < offset + bytes; at += SECTOR - (at + r->stack->skew) % SECTOR) {
        r->boundaries[n++] = at;
    }
    r->boundaries[n++] = offset + bytes;
    for (unsigned i = 0; i < r->count; i++) {
        int64_t ends[] = { r->ops[i].offset, r->ops[i].offset + r->ops[i].bytes };

        for (unsigned e = 0; e < 2; e++) {
            if (changes(&r->ops[i]) && ends[e] > offset && ends[e] < offset + bytes) {
                r->boundaries[n++] = ends[e];
            }
        }
    }
    qsort(r->boundaries, n, sizeof(uint64_t), compare_u64);
    return n;
}

static void check_content(Runner *r, const char *what, int64_t offset, int64_t bytes, const uint8_t *found,
                          bool reading)
{
    unsigned n = find_boundaries(r, offset, bytes);

    for (unsigned i = 0; i + 1 < n; i++) {
        int64_t from = r->boundaries[i], to = r->boundaries[i + 1];

        if (from < to && !segment_is_possible(r, from, to - from, found + (from - offset), reading)) {
            const uint8_t *f = found + (from - offset), *m = r->model + from;
            int64_t at = 0;

            while (at + 1 < to - from && f[at] == m[at]) {
                at++;
            }
            fail(r,
                 "%s of %" PRId64 " .. %" PRId64 ": wrong from %" PRId64 " to %" PRId64 " (at %" PRId64
                 " found %02x, before the round %02x)",
                 what, offset, offset + bytes, from, to, from + at, f[at], m[at]);
        }
    }
}

static void read_now(Runner *r, int64_t offset, int64_t bytes, uint8_t *buf)
{
    int ret = blk_pread(r->blk, offset, bytes, buf, 0);

    if (ret < 0) {
        fail(r, "reading back %" PRId64 " +%" PRId64 ": %s", offset, bytes, g_strerror(-ret));
    }
}

static void check_status(Runner *r, const Op *op)
{
    const BlockExtent *extent = &op->extent;

    if (extent->bytes < 1 || extent->bytes > op->bytes) {
        fail(r, "status of %" PRId64 " +%" PRId64 " covers %" PRId64 " bytes", op->offset, op->bytes,
             extent->bytes);
    }
    if (extent->kind == EXTENT_BACKING) {
        fail(r, "status down the chain of %" PRId64 " says that something is below", op->offset);
    }
    if (extent->at_eof != (op->offset + extent->bytes == r->length)) {
        fail(r, "status of %" PRId64 " +%" PRId64 " is wrong about the end", op->offset, extent->bytes);
    }
    if (extent->kind != EXTENT_ZERO) {
        return;
    }
    /* Zeroes that were there, or come in this round. */
    g_autofree uint8_t *zeroes = g_malloc0(extent->bytes);
    check_content(r, "status zero", op->offset, extent->bytes, zeroes, true);
}

static void check_op(Runner *r, const Op *op)
{
    bool refused = op->ret == -ENOTSUP && op->kind == OP_ZERO && (op->flags & BDRV_REQ_NO_FALLBACK);

    if (op->ret != 0 && !refused) {
        fail(r, "%s of %" PRId64 " +%" PRId64 ": %s", op_names[op->kind], op->offset, op->bytes,
             g_strerror(-op->ret));
    }
    if (op->kind == OP_READ) {
        check_content(r, "read", op->offset, op->bytes, op->data, true);
    } else if (op->kind == OP_STATUS) {
        check_status(r, op);
    }
}

/* What the image holds now is checked and becomes the model. Copies are read from the model as it was. */
static void learn(Runner *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        check_op(r, &r->ops[i]);
    }
    uint8_t *found[MAX_REQUESTS] = { NULL };
    for (unsigned i = 0; i < r->count; i++) {
        Op *op = &r->ops[i];

        if (changes(op)) {
            found[i] = g_malloc(op->bytes);
            read_now(r, op->offset, op->bytes, found[i]);
            check_content(r, "content after", op->offset, op->bytes, found[i], false);
        }
    }
    for (unsigned i = 0; i < r->count; i++) {
        if (found[i]) {
            memcpy(r->model + r->ops[i].offset, found[i], r->ops[i].bytes);
        }
        g_free(found[i]);
        g_clear_pointer(&r->ops[i].data, g_free);
    }
    r->count = 0;
}

/* ---- between rounds ---- */

static bool can_resize(const ConformanceStack *stack)
{
    return stack->resize || stack->room;
}

static void open_image(Runner *r)
{
    GError *error = NULL;
    BdrvOptions *options = bdrv_options_parse(r->options, NULL, &error);
    BdrvOpenFlags flags =
        BDRV_O_RDWR | BDRV_O_UNMAP | r->stack->flags | (can_resize(r->stack) ? BDRV_O_RESIZE : 0);

    g_assert_no_error(error);
    r->blk = blk_open(r->graph, NULL, options, flags, &error);
    g_assert_no_error(error);
    if (blk_length(r->blk) != r->length) {
        fail(r, "the image is %" PRId64 " bytes long, not %" PRId64, blk_length(r->blk), r->length);
    }
}

static void close_image(Runner *r)
{
    GError *error = NULL;

    blk_close(r->blk, &error);
    g_assert_no_error(error);
    r->blk = NULL;
    if (r->stack->inspect) {
        r->stack->inspect(r->stack, r->graph, r->id, r->dir);
    }
}

static void reopen_in_place(Runner *r)
{
    BdrvOpenFlags flags =
        BDRV_O_RDWR | BDRV_O_UNMAP | r->stack->flags | (can_resize(r->stack) ? BDRV_O_RESIZE : 0);
    GError *error = NULL;

    blk_reopen(r->blk, NULL, flags, &error);
    g_assert_no_error(error);
}

static void compare_all(Runner *r)
{
    int64_t step = 1 << 20;
    g_autofree uint8_t *buf = g_malloc(step);

    for (int64_t at = 0; at < r->length; at += step) {
        int64_t n = MIN(step, r->length - at);

        read_now(r, at, n, buf);
        check_content(r, "comparison", at, n, buf, false);
    }
}

static void walk_status(Runner *r)
{
    for (int64_t at = 0; at < r->length;) {
        BlockExtent extent;
        Op op = { .runner = r, .kind = OP_STATUS, .offset = at, .bytes = r->length - at };

        if (blk_block_status_above(r->blk, at, op.bytes, &extent) < 0) {
            fail(r, "status of %" PRId64 " failed", at);
        }
        op.extent = extent;
        check_status(r, &op);
        at += extent.bytes;
    }
}

static void resize(Runner *r)
{
    int64_t length = r->stack->length / 2 + pick_below(r, r->stack->length / 2);
    GError *error = NULL;

    if (r->stack->room) {
        length = r->length + pick_below(r, MIN(r->stack->length + r->stack->room - r->length, 100000));
    }
    length -= length % MAX(r->unit, SECTOR);
    if (r->stack->room && length <= r->length) {
        return;
    }
    blk_truncate(r->blk, length, true, BDRV_PREALLOC_OFF, 0, &error);
    g_assert_no_error(error);
    if (length < r->length) {
        memset(r->model + length, 0, r->length - length);
    }
    r->length = length;
    if (blk_length(r->blk) != length) {
        fail(r, "resized to %" PRId64 ", but the image is %" PRId64 " bytes long", length,
             blk_length(r->blk));
    }
}

static void between_rounds(Runner *r)
{
    const ConformanceRun *run = r->run;

    if (run->reopen_every && !r->stack->volatile_names && pick_below(r, run->reopen_every) == 0) {
        close_image(r);
        open_image(r);
    }
    if (run->reopen_every && !r->stack->no_reopen && pick_below(r, run->reopen_every) == 0) {
        reopen_in_place(r);
    }
    if (can_resize(r->stack) && pick_below(r, 30) == 0) {
        resize(r);
    }
    if (pick_below(r, 50) == 0) {
        compare_all(r);
        walk_status(r);
    }
}

/* ---- a run ---- */

static void make_contexts(Runner *r)
{
    GError *error = NULL;

    if (r->run->mode == CONFORMANCE_SIM) {
        r->sim = aio_sim_new(r->run->seed);
        aio_sim_set_yield_chance(r->sim, 20);
    } else {
        pthread_mutex_init(&r->lock, NULL);
        pthread_cond_init(&r->all_done, NULL);
        pthread_cond_init(&r->start, NULL);
    }
    for (unsigned i = 0; i < r->run->contexts; i++) {
        Worker *worker = &r->workers[i];

        worker->runner = r;
        worker->ctx = r->sim ? aio_sim_context_new(r->sim) : aio_context_new(&error);
        g_assert_no_error(error);
        if (!r->sim) {
            worker->thread = g_thread_new("conformance", worker_thread, worker);
        }
    }
    if (r->sim) {
        aio_context_enter(r->workers[0].ctx); /* where blocking calls of this thread run */
    }
}

static void free_contexts(Runner *r)
{
    if (r->sim) {
        aio_context_leave(r->workers[0].ctx);
    }
    for (unsigned i = 0; i < r->run->contexts; i++) {
        if (!r->sim) {
            call_worker(&r->workers[i], quit_thread);
            g_thread_join(r->workers[i].thread);
        }
        aio_context_unref(r->workers[i].ctx);
    }
    if (r->sim) {
        aio_sim_free(r->sim);
    } else {
        pthread_cond_destroy(&r->all_done);
        pthread_cond_destroy(&r->start);
        pthread_mutex_destroy(&r->lock);
    }
}

void conformance_run(const ConformanceStack *stack, const ConformanceRun *run)
{
    static _Atomic unsigned last_id;
    Runner *r = g_new0(Runner, 1);

    g_test_message("%s: BDRV_TEST_SEED=%" PRIu64 ", %u contexts%s, %u requests%s", stack->name, run->seed,
                   run->contexts, run->mode == CONFORMANCE_SIM ? " (simulated)" : "", run->concurrency,
                   run->overlap ? " that may overlap" : "");
    g_assert_cmpuint(run->contexts, <=, MAX_CONTEXTS);
    g_assert_cmpuint(run->concurrency, <=, MAX_REQUESTS);
    r->stack = stack;
    r->run = run;
    r->random = run->seed;
    r->unit = MAX(stack->unit, 1);
    r->length = stack->length;
    r->model = g_malloc0(stack->length + stack->room);
    r->boundaries = g_new(uint64_t, (stack->length + stack->room) / SECTOR + 2 * MAX_REQUESTS + 4);
    r->id = g_strdup_printf("c%d-%u", (int)getpid(), atomic_fetch_add(&last_id, 1));
    r->dir = g_dir_make_tmp("bdrv-conformance-XXXXXX", NULL);
    g_assert_nonnull(r->dir);
    r->options = conformance_expand(stack->options, r->id, r->dir);
    r->graph = bdrv_graph_new();
    bdrv_graph_set_opener_gate(r->graph, bdrv_gate_any, NULL);

    make_contexts(r);
    if (stack->setup) {
        stack->setup(stack, r->graph, r->id, r->dir, r->model);
    }
    open_image(r);
    for (r->round = 0; r->round < run->rounds; r->round++) {
        draw_round(r);
        run_round(r);
        learn(r);
        between_rounds(r);
    }
    compare_all(r);
    walk_status(r);
    close_image(r);
    free_contexts(r);

    bdrv_graph_unref(r->graph);
    if (stack->teardown) {
        stack->teardown(stack, r->id, r->dir);
    }
    g_rmdir(r->dir);
    g_free(r->options);
    g_free(r->dir);
    g_free(r->id);
    g_free(r->boundaries);
    g_free(r->model);
    g_free(r);
}
