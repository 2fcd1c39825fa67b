/* SPDX-License-Identifier: MIT */
/* Between rounds: what changes all of the disk at once, or keeps it as it is. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tests/lib/conformance_int.h"
#include "tests/lib/test-node.h"

#define VMSTATE_MAX 20000

/* Formats, and images of qcow2, without it. */
static bool is_unsupported(const GError *error)
{
    return g_error_matches(error, BDRV_ERROR, ENOTSUP);
}

void conformance_forget_saved(Runner *r)
{
    if (r->saved) {
        g_free(r->saved->id);
        g_free(r->saved->model);
        g_clear_pointer(&r->saved, g_free);
    }
}

void conformance_delete_saved(Runner *r)
{
    g_autoptr(GError) error = NULL;

    if (r->saved && !blk_snapshot_delete(r->blk, r->saved->id, NULL, &error)) {
        conformance_fail(r, "deleting the snapshot that was saved: %s", error->message);
    }
    conformance_forget_saved(r);
}

static void save(Runner *r)
{
    BdrvSnapshotInfo info = { .name = (char *)"saved" };
    g_autoptr(GError) error = NULL;

    if (!blk_snapshot_create(r->blk, &info, &error)) {
        if (!is_unsupported(error)) {
            conformance_fail(r, "saving a snapshot: %s", error->message);
        }
        return;
    }
    conformance_delete_saved(r);
    r->saved = g_new(ConformanceSaved, 1);
    *r->saved = (ConformanceSaved){ .id = info.id, .model = g_memdup2(r->model, r->length), .length = r->length };
}

static bool has_bitmaps(const Runner *r)
{
    for (unsigned i = 0; i < CONFORMANCE_BITMAPS; i++) {
        if (r->bitmaps[i].granularity) {
            return true;
        }
    }
    return false;
}

/* Bitmaps would not be right afterwards. */
static void give_up_bitmaps(Runner *r)
{
    g_autoptr(GError) error = NULL;

    if (has_bitmaps(r)) {
        if (blk_snapshot_goto(r->blk, r->saved->id, &error)) {
            conformance_fail(r, "a snapshot was applied to an image with bitmaps");
        }
        conformance_remove_bitmaps(r);
    }
}

static void go_to(Runner *r)
{
    g_autoptr(GError) error = NULL;

    if (!r->saved) {
        return;
    }
    give_up_bitmaps(r);
    if (!blk_snapshot_goto(r->blk, r->saved->id, &error)) {
        conformance_fail(r, "applying a snapshot: %s", error->message);
    }
    memset(r->model, 0, r->stack->length + r->stack->room);
    memcpy(r->model, r->saved->model, r->saved->length);
    r->length = r->saved->length;
    if (blk_length(r->blk) != r->length) {
        conformance_fail(r, "with the snapshot the image is %" PRId64 " bytes long, not %" PRId64, blk_length(r->blk),
                         r->length);
    }
    conformance_compare_all(r);
}

static void make_empty(Runner *r)
{
    g_autoptr(GError) error = NULL;

    if (!blk_make_empty(r->blk, &error)) {
        if (!is_unsupported(error)) {
            conformance_fail(r, "making it empty: %s", error->message);
        }
        return;
    }
    memcpy(r->model, r->below, r->length);
    conformance_bitmaps_note(r, 0, r->length, true);
    conformance_compare_all(r);
}

/* Read-only for the moment: a reopening. */
static bool is_read_only(const GError *error)
{
    return g_error_matches(error, BDRV_ERROR, EACCES) || g_error_matches(error, BDRV_ERROR, EROFS);
}

static void keep_vmstate(Runner *r, uint64_t random)
{
    uint8_t wrote[VMSTATE_MAX], found[VMSTATE_MAX];
    int64_t offset = test_random_below(&random, VMSTATE_MAX), bytes = 1 + test_random_below(&random, VMSTATE_MAX);
    struct iovec out = { .iov_base = wrote, .iov_len = (size_t)bytes };
    struct iovec in = { .iov_base = found, .iov_len = (size_t)bytes };
    BdrvIov from = bdrv_iov_init(&out, 1), to = bdrv_iov_init(&in, 1);

    for (int64_t i = 0; i < bytes; i++) {
        wrote[i] = (uint8_t)test_random(&random);
    }
    int ret = blk_save_vmstate(r->blk, offset, &from);
    if (ret == -ENOTSUP || ret == -EPERM || ret == -EACCES) {
        return; /* unless it is read-only for the moment */
    }
    ret = ret < 0 ? ret : blk_load_vmstate(r->blk, offset, &to);
    if (ret < 0 || memcmp(wrote, found, out.iov_len) != 0) {
        conformance_fail(r, "VM state at %" PRId64 " +%" PRId64 ": %d, or not what was saved", offset, bytes, ret);
    }
}

static void repair(Runner *r)
{
    BdrvCheckResult result = { 0 };
    g_autoptr(GError) error = NULL;

    if (!blk_check(r->blk, &result, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS, &error) && !is_unsupported(error) &&
        !is_read_only(error)) {
        conformance_fail(r, "repairing: %s", error->message);
    }
    if (result.corruptions || result.corruptions_fixed || result.check_errors) {
        conformance_fail(r, "a repair finds %" PRId64 " corruptions, mends %" PRId64 ", errors: %" PRId64,
                         result.corruptions, result.corruptions_fixed, result.check_errors);
    }
}

/* Returns false if it was read-only. */
static bool amend_to(Runner *r, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BdrvOptions) options = bdrv_options_parse(text, NULL, NULL);

    if (!blk_amend(r->blk, options, false, NULL, NULL, &error) && !is_unsupported(error) && !is_read_only(error)) {
        conformance_fail(r, "amending to %s: %s", text, error->message);
    }
    return !is_read_only(error);
}

/* It stays version 3: stacks may be opened with what only that has. One bit is not enough for snapshots. */
static void amend(Runner *r, uint64_t random)
{
    static const char *const choices[] = {
        "compat=0.10,refcount_bits=16", "compat=1.1,refcount_bits=8",     "compat=1.1,refcount_bits=16",
        "compat=1.1,refcount_bits=64",  "compat=1.1,lazy_refcounts=on", "compat=1.1,lazy_refcounts=off",
    };

    unsigned choice = (unsigned)test_random_below(&random, G_N_ELEMENTS(choices));
    bool fixed = strstr(r->stack->options, "lazy-refcounts"); /* version 2 cannot be reopened so */

    amend_to(r, choices[choice == 0 && fixed && r->count ? 1 : choice]);
    while (!amend_to(r, "compat=1.1")) {
        conformance_let_others_on(r);
    }
}

static void invalidate(Runner *r)
{
    g_autoptr(GError) error = NULL;

    if (!blk_invalidate_cache(r->blk, &error) && !is_unsupported(error)) {
        conformance_fail(r, "looking at it anew: %s", error->message);
    }
}

void conformance_change_beside(Runner *r, const HistoryOp *op)
{
    switch (op->kind) {
    case HISTORY_VMSTATE:
        keep_vmstate(r, op->seed);
        break;
    case HISTORY_REPAIR:
        repair(r);
        break;
    case HISTORY_INVALIDATE:
        invalidate(r);
        break;
    case HISTORY_AMEND:
        amend(r, op->seed);
        break;
    case HISTORY_KEYS:
        conformance_change_keys(r, op);
        break;
    default:
        g_assert_true(history_is_of_bitmaps(op->kind));
        conformance_change_bitmap(r, op);
    }
}

void conformance_change_state(Runner *r, HistoryKind kind)
{
    switch (kind) {
    case HISTORY_SAVE:
        save(r);
        break;
    case HISTORY_GOTO:
        go_to(r);
        break;
    default: /* HISTORY_EMPTY */
        make_empty(r);
    }
}

void conformance_check_saved(Runner *r)
{
    g_autoptr(GError) error = NULL;

    if (!r->saved) {
        return;
    }
    BlockBackend *blk = blk_open(r->graph, NULL, conformance_options(r), r->stack->flags, &error);
    if (!blk || !blk_snapshot_load_tmp(blk, r->saved->id, NULL, &error)) {
        conformance_fail(r, "showing the snapshot: %s", error->message);
    }
    g_autofree uint8_t *found = g_malloc(r->saved->length);
    int ret = blk_length(blk) == r->saved->length ? blk_pread(blk, 0, r->saved->length, found, 0) : -EINVAL;
    if (ret < 0 || memcmp(found, r->saved->model, r->saved->length) != 0) {
        conformance_fail(r, "the snapshot does not hold what was saved: %d", ret);
    }
    blk_close(blk, &error);
    g_assert_no_error(error);
}
