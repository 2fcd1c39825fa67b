/* SPDX-License-Identifier: MIT */
/*
 * What the image may hold. The model is the content before the round. During and after it each part
 * of a sector holds what one of the requests put there, or what was there before, unless that is
 * overwritten for sure: by a request that began after the other had ended.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/conformance_int.h"

static bool reads(const Op *op)
{
    return op->what.kind == HISTORY_READ || op->what.kind == HISTORY_HANDLE;
}

/* Past the end that the image got in the meantime. */
static bool came_too_late(const Runner *r, const Op *op)
{
    int64_t end = MAX(op->what.offset, op->what.source) + op->what.bytes;

    return r->shrunk && op->ret == -EIO && history_has_range(op->what.kind) && end > r->length;
}

/* Refused before anything was done: cancelled in time, or the image was read-only for the moment. */
static bool had_no_effect(const Op *op)
{
    return (op->ret == -ECANCELED || op->ret == -EPERM) && !op->begun;
}

/* A discard is a hint; what was refused when it had begun, and a zero write, may have done a part. */
static bool is_partial(const Op *op)
{
    return op->what.kind == HISTORY_DISCARD || op->ret == -ENOTSUP || (op->begun && op->ret < 0) ||
           came_too_late(op->runner, op);
}

static bool covers(const Op *op, int64_t offset)
{
    return history_changes(op->what.kind) && !had_no_effect(op) && offset >= op->what.offset &&
           offset < op->what.offset + op->what.bytes;
}

/* Whether @by surely hides from @reader (NULL: who reads after the round) what @op (NULL: before it) put there. */
static bool hides(const Op *by, const Op *op, const Op *reader)
{
    return by != op && !is_partial(by) && (!op || by->began > op->ended) && (!reader || by->ended < reader->began);
}

static bool is_hidden(const Runner *r, const Op *op, int64_t offset, const Op *reader)
{
    for (unsigned i = 0; i < r->count; i++) {
        if (covers(&r->ops[i], offset) && hides(&r->ops[i], op, reader)) {
            return true;
        }
    }
    return false;
}

/* What the segment would hold if @op was last; NULL: zeroes. */
static const uint8_t *result_of(const Runner *r, const Op *op, int64_t offset)
{
    switch (op->what.kind) {
    case HISTORY_WRITE:
        return op->data + (offset - op->what.offset);
    case HISTORY_COPY:
        return r->model + op->what.source + (offset - op->what.offset);
    default:
        return NULL;
    }
}

static bool equals(const uint8_t *found, const uint8_t *expected, int64_t bytes)
{
    return expected ? memcmp(found, expected, bytes) == 0 : bdrv_buffer_is_zero(found, bytes);
}

/*
 * May the segment, in which the same operations are active throughout, hold @found? *@ragged is set
 * if one of them may have left out any part.
 */
static bool is_possible(const Runner *r, int64_t offset, int64_t bytes, const uint8_t *found, const Op *reader,
                        bool *ragged)
{
    *ragged = false;
    for (unsigned i = 0; i < r->count; i++) {
        const Op *op = &r->ops[i];

        if (!covers(op, offset) || (reader && op->began > reader->ended) || is_hidden(r, op, offset, reader)) {
            continue;
        }
        *ragged |= is_partial(op);
        if (equals(found, result_of(r, op, offset), bytes)) {
            return true;
        }
    }
    return !is_hidden(r, NULL, offset, reader) && memcmp(found, r->model + offset, bytes) == 0;
}

static bool segment_is_possible(const Runner *r, int64_t offset, int64_t bytes, const uint8_t *found,
                                const Op *reader)
{
    bool ragged, ignored;

    if (is_possible(r, offset, bytes, found, reader, &ragged)) {
        return true;
    }
    ragged |= reader && r->stack->torn_reads;
    for (int64_t i = 0; ragged && i < bytes; i++) { /* each byte by itself */
        if (!is_possible(r, offset + i, 1, found + i, reader, &ignored)) {
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
        const HistoryOp *what = &r->ops[i].what;
        int64_t ends[] = { what->offset, what->offset + what->bytes };

        for (unsigned e = 0; e < 2; e++) {
            if (history_changes(what->kind) && ends[e] > offset && ends[e] < offset + bytes) {
                r->boundaries[n++] = ends[e];
            }
        }
    }
    qsort(r->boundaries, n, sizeof(uint64_t), compare_u64);
    return n;
}

void conformance_check_content(Runner *r, const char *what, int64_t offset, int64_t bytes, const uint8_t *found,
                               const Op *reader)
{
    unsigned n = find_boundaries(r, offset, bytes);

    for (unsigned i = 0; i + 1 < n; i++) {
        int64_t from = r->boundaries[i], to = r->boundaries[i + 1];

        if (from < to && !segment_is_possible(r, from, to - from, found + (from - offset), reader)) {
            const uint8_t *f = found + (from - offset), *m = r->model + from;
            int64_t at = 0;

            while (at + 1 < to - from && f[at] == m[at]) {
                at++;
            }
            conformance_fail(r, "%s of %" PRId64 " .. %" PRId64 ": wrong from %" PRId64 " to %" PRId64 " (at %" PRId64
                             " found %02x, before the round %02x)",
                             what, offset, offset + bytes, from, to, from + at, f[at], m[at]);
        }
    }
}

void conformance_check_status(Runner *r, const Op *op)
{
    const BlockExtent *extent = &op->extent;
    int64_t offset = op->what.offset;

    if (extent->bytes < 1 || extent->bytes > op->what.bytes) {
        conformance_fail(r, "status of %" PRId64 " +%" PRId64 " covers %" PRId64 " bytes", offset, op->what.bytes,
                         extent->bytes);
    }
    if (extent->kind == EXTENT_BACKING) {
        conformance_fail(r, "status down the chain of %" PRId64 " says that something is below", offset);
    }
    if (extent->at_eof != (offset + extent->bytes == r->length) && !r->resizing) {
        conformance_fail(r, "status of %" PRId64 " +%" PRId64 " is wrong about the end", offset, extent->bytes);
    }
    if (extent->kind != EXTENT_ZERO) {
        return;
    }
    /* Zeroes that were there, or come in this round. */
    g_autofree uint8_t *zeroes = g_malloc0(extent->bytes);
    conformance_check_content(r, "status zero", offset, extent->bytes, zeroes, op);
}

/* ---- after the round ---- */

static void read_now(Runner *r, int64_t offset, int64_t bytes, uint8_t *buf)
{
    int ret = blk_pread(r->blk, offset, bytes, buf, 0);

    if (ret < 0) {
        conformance_fail(r, "reading back %" PRId64 " +%" PRId64 ": %s", offset, bytes, g_strerror(-ret));
    }
}

static bool has_reopen(const Runner *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        if (r->ops[i].what.kind == HISTORY_REOPEN) {
            return true;
        }
    }
    return false;
}

/* Another handle's filter keeps the length that it was opened with: past a new end it reads zeroes. */
static int64_t bytes_read(const Runner *r, const HistoryOp *what)
{
    return r->shrunk && what->kind == HISTORY_HANDLE ? CLAMP(r->length - what->offset, 0, what->bytes) : what->bytes;
}

static void check_op(Runner *r, const Op *op)
{
    const HistoryOp *what = &op->what;
    bool refused = (op->ret == -ENOTSUP && what->kind == HISTORY_ZERO && (what->flags & BDRV_REQ_NO_FALLBACK)) ||
                   (op->ret == -ECANCELED && what->cancel) ||
                   (op->ret == -EPERM && history_changes(what->kind) && has_reopen(r)) || came_too_late(r, op);

    if (op->ret != 0 && !refused) {
        conformance_fail(r, "%s of %" PRId64 " +%" PRId64 ": %s", history_kind_name(what->kind), what->offset,
                         what->bytes, g_strerror(-op->ret));
    }
    if (op->ret == 0 && reads(op)) {
        conformance_check_content(r, "read", what->offset, bytes_read(r, what), op->data, op);
    } else if (op->ret == 0 && what->kind == HISTORY_STATUS) {
        conformance_check_status(r, op);
    }
}

static void mix(uint64_t *hash, const void *data, size_t bytes)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < bytes; i++) {
        *hash = (*hash ^ p[i]) * 0x100000001b3u; /* FNV-1a */
    }
}

static void count_op(Runner *r, const Op *op)
{
    r->result.requests++;
    if (r->sim) {
        mix(&r->result.trace, &op->ret, sizeof(op->ret));
        mix(&r->result.trace, &op->began, sizeof(op->began));
        mix(&r->result.trace, &op->ended, sizeof(op->ended));
        mix(&r->result.trace, op->data, reads(op) ? op->what.bytes : 0);
    }
}

/* Copies are read from the model as it was. */
void blocking_fn conformance_learn(Runner *r)
{
    uint8_t *found[CONFORMANCE_MAX_REQUESTS] = { NULL };
    int64_t bytes[CONFORMANCE_MAX_REQUESTS];

    for (unsigned i = 0; i < r->count; i++) {
        check_op(r, &r->ops[i]);
    }
    conformance_bitmaps_learn(r);
    for (unsigned i = 0; i < r->count; i++) {
        const HistoryOp *what = &r->ops[i].what;

        bytes[i] = MIN(what->bytes, r->length - what->offset); /* what is past a new end is gone */
        if (history_changes(what->kind) && bytes[i] > 0) {
            found[i] = g_malloc(bytes[i]);
            read_now(r, what->offset, bytes[i], found[i]);
            conformance_check_content(r, "content after", what->offset, bytes[i], found[i], NULL);
        }
    }
    for (unsigned i = 0; i < r->count; i++) {
        if (found[i]) {
            int64_t at = r->ops[i].what.offset;

            conformance_bitmaps_learn_change(r, at, bytes[i], r->model + at, found[i]);
            memcpy(r->model + at, found[i], bytes[i]);
        }
        g_free(found[i]);
        count_op(r, &r->ops[i]);
        conformance_clear_op(&r->ops[i]);
    }
    r->count = 0;
}

static void walk_status(Runner *r)
{
    for (int64_t at = 0; at < r->length;) {
        Op op = { .runner = r, .what = { .kind = HISTORY_STATUS, .offset = at, .bytes = r->length - at } };

        if (blk_block_status_above(r->blk, at, op.what.bytes, &op.extent) < 0) {
            conformance_fail(r, "status of %" PRId64 " failed", at);
        }
        conformance_check_status(r, &op);
        at += op.extent.bytes;
    }
}

void blocking_fn conformance_compare_all(Runner *r)
{
    int64_t step = 1 << 20;
    g_autofree uint8_t *buf = g_malloc(step);

    for (int64_t at = 0; at < r->length; at += step) {
        int64_t n = MIN(step, r->length - at);

        read_now(r, at, n, buf);
        conformance_check_content(r, "comparison", at, n, buf, NULL);
    }
    walk_status(r);
}
