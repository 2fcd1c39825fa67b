/* SPDX-License-Identifier: MIT */
/* Drawing a history from a seed. */

#include <inttypes.h>

#include "tests/lib/conformance.h"
#include "tests/lib/history.h"
#include "tests/lib/test-node.h"

#define YIELD_DEFAULT 20
#define FIRST_BITMAP 264 /* a seed: enabled, of the least granularity */

typedef struct Draw {
    const ConformanceStack *stack;
    const ConformanceRun *run;
    uint64_t random;
    int64_t length; /* of the disk, as it will be */
    int64_t saved;  /* in the snapshot that stays; -1: there is none */
    unsigned unit;
    GArray *ops; /* of the round */
} Draw;

static int64_t below(Draw *d, int64_t limit)
{
    return test_random_below(&d->random, limit);
}

/* Most requests are small and near each other; some are on nice boundaries, some are long. */
static void pick_range(Draw *d, int64_t *offset, int64_t *bytes)
{
    static const int64_t grains[] = { 1, 1, 512, 4096, 65536 };
    int64_t drawn = grains[below(d, G_N_ELEMENTS(grains))], grain = MAX(drawn, (int64_t)d->unit);
    int64_t most = below(d, 8) ? 20000 : 300000;

    if (d->stack->crowded) {
        most = below(d, 8) ? 4000 : 20000;
    }
    *offset = below(d, d->length);
    *bytes = 1 + below(d, most);
    *offset -= *offset % grain;
    *bytes += (grain - *bytes % grain) % grain;
    *bytes = MIN(*bytes, d->length - *offset);
}

static bool overlaps(int64_t a, int64_t a_bytes, int64_t b, int64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

/* Whether @op and @other meet anywhere; what both only read counts too. */
static bool meet(const HistoryOp *op, const HistoryOp *other)
{
    const HistoryOp *pair[2] = { op, other };
    int64_t at[2][2];

    if (!history_has_range(op->kind) || !history_has_range(other->kind)) {
        return false;
    }
    for (unsigned i = 0; i < 2; i++) {
        at[i][0] = pair[i]->offset;
        at[i][1] = pair[i]->kind == HISTORY_COPY ? pair[i]->source : pair[i]->offset;
    }
    for (unsigned i = 0; i < 4; i++) {
        if (overlaps(at[0][i & 1], op->bytes, at[1][i >> 1], other->bytes)) {
            return true;
        }
    }
    return false;
}

/* What a concurrent write does to the source of a copy is nobody's promise: copies are always apart. */
static bool may_join(const Draw *d, const HistoryOp *op)
{
    if (op->kind == HISTORY_COPY && overlaps(op->source, op->bytes, op->offset, op->bytes)) {
        return false;
    }
    for (unsigned i = 0; i < d->ops->len; i++) {
        const HistoryOp *other = &g_array_index(d->ops, HistoryOp, i);
        bool apart = !d->run->overlap || op->kind == HISTORY_COPY || other->kind == HISTORY_COPY;

        if (apart && meet(op, other)) {
            return false;
        }
    }
    return true;
}

static HistoryKind pick_kind(Draw *d)
{
    static const HistoryKind kinds[] = {
        HISTORY_READ,  HISTORY_READ,  HISTORY_READ, HISTORY_WRITE,   HISTORY_WRITE, HISTORY_WRITE,  HISTORY_WRITE,
        HISTORY_ZERO,  HISTORY_ZERO,  HISTORY_DISCARD, HISTORY_FLUSH, HISTORY_STATUS, HISTORY_COPY,
    };
    /* Clusters come and go all the time. */
    static const HistoryKind crowded[] = {
        HISTORY_READ,    HISTORY_READ,    HISTORY_READ,  HISTORY_WRITE, HISTORY_WRITE,  HISTORY_WRITE,
        HISTORY_DISCARD, HISTORY_DISCARD, HISTORY_ZERO,  HISTORY_FLUSH, HISTORY_STATUS, HISTORY_COPY,
    };
    static const HistoryKind races[] = { HISTORY_DRAIN, HISTORY_REOPEN, HISTORY_HANDLE };
    HistoryKind kind;

    if (d->run->races && below(d, 12) == 0) {
        kind = races[below(d, G_N_ELEMENTS(races))];
        return kind == HISTORY_REOPEN && d->stack->no_reopen ? HISTORY_DRAIN : kind;
    }
    kind = d->stack->crowded ? crowded[below(d, G_N_ELEMENTS(crowded))] : kinds[below(d, G_N_ELEMENTS(kinds))];
    return kind == HISTORY_DISCARD && d->stack->no_discard ? HISTORY_ZERO : kind;
}

static void pick_flags(Draw *d, HistoryOp *op)
{
    if (op->kind == HISTORY_WRITE || op->kind == HISTORY_ZERO || op->kind == HISTORY_COPY) {
        op->flags |= below(d, 8) ? 0 : BDRV_REQ_FUA;
    }
    if (op->kind == HISTORY_ZERO) {
        op->flags |= below(d, 2) ? BDRV_REQ_MAY_UNMAP : 0;
        op->flags |= below(d, 6) ? 0 : BDRV_REQ_NO_FALLBACK;
    }
}

static bool pick_op(Draw *d, HistoryOp *op)
{
    *op = (HistoryOp){ .kind = pick_kind(d) };
    if (history_has_range(op->kind)) {
        pick_range(d, &op->offset, &op->bytes);
    }
    if (op->kind == HISTORY_COPY) {
        int64_t ignored;

        pick_range(d, &op->source, &ignored);
        op->bytes = MIN(op->bytes, d->length - op->source);
    }
    if (!may_join(d, op)) {
        return false;
    }
    pick_flags(d, op);
    op->seed = test_random(&d->random);
    op->lane = d->run->lanes ? (unsigned)below(d, d->run->lanes) : d->ops->len;
    if (op->kind == HISTORY_DRAIN || op->kind == HISTORY_REOPEN) {
        op->turns = (unsigned)below(d, 6);
    } else if (d->run->races && op->kind <= HISTORY_FLUSH && below(d, 10) == 0) {
        op->cancel = true;
        op->turns = (unsigned)below(d, 4);
    } else if (op->kind == HISTORY_WRITE && op->seed % 5 == 0) {
        op->flags |= BDRV_REQ_COMPRESSED;
    }
    return true;
}

/* A length to change to, or 0. */
static int64_t pick_length(Draw *d, HistoryKind kind)
{
    int64_t least = d->stack->length / 2, most = d->stack->length + d->stack->room, length;

    switch (kind) {
    case HISTORY_SHRINK:
        length = least + below(d, d->length - least);
        break;
    case HISTORY_GROW:
        length = d->length + below(d, MIN(most - d->length, 100000));
        break;
    default:
        length = least + below(d, most - least);
    }
    length -= length % MAX(d->unit, 512);
    return length == d->length ? 0 : length;
}

/* Often clear: soon all bits are set, and nothing more is seen. */
static HistoryKind pick_bitmap_change(Draw *d)
{
    static const HistoryKind kinds[] = {
        HISTORY_BITMAP_ADD,     HISTORY_BITMAP_ADD,   HISTORY_BITMAP_ADD,   HISTORY_BITMAP_REMOVE, HISTORY_BITMAP_ENABLE,
        HISTORY_BITMAP_ENABLE,  HISTORY_BITMAP_CLEAR, HISTORY_BITMAP_CLEAR, HISTORY_BITMAP_CLEAR,  HISTORY_BITMAP_CLEAR,
        HISTORY_BITMAP_DISABLE, HISTORY_BITMAP_MERGE, HISTORY_BITMAP_MERGE, HISTORY_BITMAP_READ,   HISTORY_BITMAP_READ,
        HISTORY_BITMAP_READ,
    };

    return kinds[below(d, G_N_ELEMENTS(kinds))];
}

/* What leaves the content as it is. */
static HistoryKind pick_neutral(Draw *d)
{
    static const HistoryKind kinds[] = { HISTORY_VMSTATE, HISTORY_REPAIR, HISTORY_AMEND, HISTORY_INVALIDATE };

    if (d->stack->bitmaps && below(d, 2)) {
        return pick_bitmap_change(d);
    }
    if (d->stack->keys && below(d, 2)) {
        return HISTORY_KEYS;
    }
    return d->stack->states ? kinds[below(d, G_N_ELEMENTS(kinds))] : HISTORY_CHECK;
}

/* What the thread of the run does beside the requests. */
static void draw_beside(Draw *d)
{
    static const HistoryKind kinds[] = { HISTORY_GROW, HISTORY_SHRINK, HISTORY_CHECK, HISTORY_SNAPSHOT, HISTORY_KINDS };
    HistoryOp op = { .kind = kinds[below(d, G_N_ELEMENTS(kinds))] };

    if (op.kind == HISTORY_KINDS) {
        op.kind = pick_neutral(d);
    }
    if (history_resizes(op.kind)) {
        op.offset = conformance_can_resize(d->stack) ? pick_length(d, op.kind) : 0;
        if (!op.offset) {
            return;
        }
        d->length = op.offset;
    }
    op.seed = test_random(&d->random);
    g_array_append_val(d->ops, op);
}

static void draw_requests(Draw *d, History *history)
{
    unsigned wanted = 1 + (unsigned)below(d, d->run->concurrency);
    HistoryOp op;

    d->ops = history_add_round(history)->ops;
    for (unsigned tries = 0; d->ops->len < wanted && tries < 4 * wanted; tries++) {
        if (pick_op(d, &op)) {
            g_array_append_val(d->ops, op);
        }
    }
    if (d->run->races && below(d, 6) == 0) {
        draw_beside(d);
    }
}

static void draw_alone(History *history, HistoryKind kind, int64_t length, uint64_t seed)
{
    HistoryOp op = { .kind = kind, .offset = length, .seed = seed };

    g_array_append_val(history_add_round(history)->ops, op);
}

/* What changes all of the disk at once. */
static void draw_state(Draw *d, History *history)
{
    static const HistoryKind kinds[] = {
        HISTORY_SAVE, HISTORY_SAVE, HISTORY_GOTO, HISTORY_GOTO, HISTORY_EMPTY, HISTORY_VMSTATE, HISTORY_REPAIR,
        HISTORY_AMEND, HISTORY_INVALIDATE,
    };
    static const HistoryKind chain[] = { HISTORY_COMMIT, HISTORY_REBASE, HISTORY_BACKING };
    HistoryKind kind = kinds[below(d, G_N_ELEMENTS(kinds))];

    if (d->stack->bases && below(d, 3) == 0) {
        kind = chain[below(d, G_N_ELEMENTS(chain))];
        d->saved = -1;
    } else if (d->stack->no_snapshots && (kind == HISTORY_SAVE || kind == HISTORY_GOTO)) {
        kind = HISTORY_EMPTY;
    } else if (kind == HISTORY_SAVE) {
        d->saved = d->length;
    } else if (kind == HISTORY_GOTO && d->saved >= 0) {
        d->length = d->saved;
    }
    draw_alone(history, kind, 0, test_random(&d->random));
}

static void draw_between(Draw *d, History *history)
{
    const ConformanceRun *run = d->run;

    if (run->reopen_every && !d->stack->volatile_names && below(d, run->reopen_every) == 0) {
        draw_alone(history, HISTORY_CLOSE, 0, 0);
    }
    if (run->reopen_every && !d->stack->no_reopen && below(d, run->reopen_every) == 0) {
        draw_alone(history, HISTORY_REOPEN_ALONE, 0, 0);
    }
    if (conformance_can_resize(d->stack) && below(d, 30) == 0) {
        int64_t length = pick_length(d, HISTORY_RESIZE);

        if (length) {
            draw_alone(history, d->stack->states && below(d, 3) == 0 ? HISTORY_AMEND_SIZE : HISTORY_RESIZE, length, 0);
            d->length = length;
        }
    }
    if (below(d, 50) == 0) {
        draw_alone(history, HISTORY_COMPARE, 0, 0);
    }
    if (d->stack->states && below(d, 6) == 0) {
        draw_state(d, history);
    }
    if (d->stack->bitmaps && below(d, 2) == 0) {
        draw_alone(history, pick_bitmap_change(d), 0, test_random(&d->random));
    }
    if (d->stack->keys && below(d, 8) == 0) {
        draw_alone(history, HISTORY_KEYS, 0, test_random(&d->random));
    }
}

static char *origin(const ConformanceStack *stack, const ConformanceRun *run, unsigned yield)
{
    return g_strdup_printf("--stack '%s' --contexts %u --seed %" PRIu64 " --steps %u --requests %u --lanes %u "
                           "--reopen-every %u --yield %u%s%s%s%s",
                           stack->name, run->contexts, run->seed, run->rounds, run->concurrency, run->lanes,
                           run->reopen_every, yield, run->overlap ? "" : " --apart", run->races ? " --races" : "",
                           run->mode == CONFORMANCE_THREADS ? " --threads" : "", run->idle ? " --idle" : "");
}

History *history_draw(const ConformanceStack *stack, const ConformanceRun *run)
{
    History *history = history_new(stack->name);
    Draw d = { .stack = stack, .run = run, .random = run->seed, .length = stack->length, .saved = -1,
               .unit = MAX(stack->unit, 1) };

    history->contexts = run->contexts;
    history->threads = run->mode == CONFORMANCE_THREADS;
    history->idle = run->idle;
    history->yield = run->yield ? (unsigned)MAX(run->yield, 0) : YIELD_DEFAULT;
    history->schedule = run->seed;
    history->origin = origin(stack, run, history->yield);
    if (stack->bitmaps) {
        draw_alone(history, HISTORY_BITMAP_ADD, 0, FIRST_BITMAP);
    }
    for (unsigned i = 0; i < run->rounds; i++) {
        draw_requests(&d, history);
        draw_between(&d, history);
    }
    return history;
}
