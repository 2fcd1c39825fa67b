/* SPDX-License-Identifier: MIT */
#include "tests/faults/search.h"

#include <errno.h>
#include <string.h>

#include "tests/faults/hooks.h"

#define CHANGES (BDRV_SIM_WRITE | BDRV_SIM_ZERO | BDRV_SIM_TRUNCATE | BDRV_SIM_COPY)

const Fault sim_faults[] = {
    { LEVEL_LIGHT, "EIO", .disk = BDRV_SIM_ANY, .error = EIO, .count = 1 },
    { LEVEL_FULL, "EIO twice", .disk = BDRV_SIM_ANY, .error = EIO, .count = 2 },
    { LEVEL_SHORT, "EIO for good", .disk = BDRV_SIM_ANY, .error = EIO, .count = -1 },
    { LEVEL_FULL, "no read", .disk = BDRV_SIM_READ, .error = EIO, .count = -1 },
    { LEVEL_FULL, "no write", .disk = BDRV_SIM_WRITE, .error = EIO, .count = -1 },
    { LEVEL_FULL, "no flush", .disk = BDRV_SIM_FLUSH, .error = EIO, .count = -1 },
    { LEVEL_SHORT, "short", .disk = BDRV_SIM_ANY, .error = EIO, .count = 1, .part = 512 },
    { LEVEL_FULL, "done, but EIO", .disk = CHANGES | BDRV_SIM_DISCARD, .error = EIO, .count = 1, .part = INT64_MAX },
    { LEVEL_SHORT, "ENOSPC", .disk = CHANGES, .error = ENOSPC, .count = 1 },
    { LEVEL_SHORT, "ENOSPC for good", .disk = CHANGES, .error = ENOSPC, .count = -1 },
    { LEVEL_SHORT, "EIO below", .disk = BDRV_SIM_ANY, .below = true, .error = EIO, .count = 1 },
    { LEVEL_FULL, "short below", .disk = BDRV_SIM_ANY, .below = true, .error = EIO, .count = 1, .part = 512 },
    { LEVEL_FULL, "ENOSPC below", .disk = CHANGES, .below = true, .error = ENOSPC, .count = 1 },
    { LEVEL_FULL, "no flush below", .disk = BDRV_SIM_FLUSH, .below = true, .error = EIO, .count = -1 },
    { LEVEL_LIGHT, "no memory", .hooks = HOOK_ALLOC, .error = ENOMEM, .count = 1 },
    { LEVEL_FULL, "no memory twice", .hooks = HOOK_ALLOC, .error = ENOMEM, .count = 2 },
    { LEVEL_SHORT, "no coroutine", .hooks = HOOK_COROUTINE, .error = ENOMEM, .count = 1 },
};
const unsigned sim_fault_count = G_N_ELEMENTS(sim_faults);

const Fault file_faults[] = {
    { LEVEL_LIGHT, "EIO", .hooks = HOOK_CALLS, .error = EIO, .count = 1 },
    { LEVEL_FULL, "ENOSPC", .hooks = HOOK_WRITE | HOOK_SPACE | HOOK_COPY | HOOK_SYNC, .error = ENOSPC, .count = 1 },
    { LEVEL_SHORT, "EINTR", .hooks = HOOK_CALLS, .error = EINTR, .count = 1, .absorbed = true },
    { LEVEL_FULL, "short", .hooks = HOOK_CALLS, .error = HOOK_SHORT, .count = 1, .absorbed = true },
    { LEVEL_SHORT, "short, always", .hooks = HOOK_CALLS, .error = HOOK_SHORT, .count = -1, .absorbed = true },
    { LEVEL_FULL, "no memory", .hooks = HOOK_ALLOC, .error = ENOMEM, .count = 1 },
    { LEVEL_FULL, "no coroutine", .hooks = HOOK_COROUTINE, .error = ENOMEM, .count = 1 },
    { LEVEL_SHORT, "no thread", .hooks = HOOK_THREAD, .error = EAGAIN, .count = 1 },
    { LEVEL_FULL, "no threads", .hooks = HOOK_THREAD, .error = EAGAIN, .count = -1 },
    { LEVEL_SHORT, "ring ENOSYS", .hooks = HOOK_RING_SETUP, .error = ENOSYS, .count = -1 },
    { LEVEL_FULL, "ring EPERM", .hooks = HOOK_RING_SETUP, .error = EPERM, .count = -1 },
    { LEVEL_FULL, "ring EAGAIN", .hooks = HOOK_RING_SETUP, .error = EAGAIN, .count = 1 },
    { LEVEL_FULL, "ring ENOMEM", .hooks = HOOK_RING_SETUP, .error = ENOMEM, .count = 1 },
    { LEVEL_FULL, "ring EMFILE", .hooks = HOOK_POLL, .error = EMFILE, .count = 1 },
    { LEVEL_FULL, "ring is full", .hooks = HOOK_RING_SUBMIT, .error = EAGAIN, .count = 1, .absorbed = true },
    { LEVEL_SHORT, "ring EINTR", .hooks = HOOK_RING_SUBMIT, .error = EINTR, .count = 1, .absorbed = true },
    { LEVEL_FULL, "open EMFILE", .hooks = HOOK_OPEN | HOOK_STAT, .error = EMFILE, .count = 1 },
};
const unsigned file_fault_count = G_N_ELEMENTS(file_faults);

const Fault *search_faults(const FaultPlace *place, unsigned *count)
{
    *count = place->sim ? sim_fault_count : file_fault_count;
    return place->sim ? sim_faults : file_faults;
}

bool search_applies(const Fault *fault, const FaultImage *image, const Op *op)
{
    return !fault->below || image->backing || image->data_file;
}

/* ---- arming ---- */

typedef struct Armed {
    const Fault *fault;
    BdrvSimDisk *disk;
    uint64_t before;
    unsigned nth;
} Armed;

static BdrvSimDisk *disk_of(const Stand *stand, const Fault *fault)
{
    return !fault->below ? stand->disk : stand->data ? stand->data : stand->below;
}

static Armed arm(Stand *stand, const Fault *fault, unsigned nth)
{
    Armed armed = { fault, disk_of(stand, fault), 0, nth };
    if (fault->hooks) {
        hooks_end_idle_workers(fault->hooks & HOOK_THREAD);
        hooks_arm(fault->hooks, nth, fault->count, fault->error);
    } else {
        armed.before = bdrv_simdisk_count(armed.disk, fault->disk);
        bdrv_simdisk_fail_partly(armed.disk, fault->disk, nth, fault->count, fault->error, fault->part);
    }
    return armed;
}

/* Returns whether a call failed. */
static bool disarm(const Armed *armed)
{
    if (armed->fault->hooks) {
        hooks_disarm();
        hooks_end_idle_workers(false);
        return hooks_failed() > 0;
    }
    bdrv_simdisk_fail_none(armed->disk);
    return bdrv_simdisk_count(armed->disk, armed->fault->disk) - armed->before >= armed->nth;
}

/* ---- afterwards ---- */

static void must(int ret, const char *what)
{
    if (ret < 0) {
        stand_fail("%s: %s", what, g_strerror(-ret));
    }
}

static bool makes_image(const Op *op)
{
    return op->steps[0].kind == STEP_CREATE;
}

/* A new image that could not be made: there is none, or the old one, or it is as it should be. */
static void look_at_half_made(Stand *stand)
{
    int error;
    if (!stand_open(stand, false, &error)) {
        return;
    }
    g_autofree uint8_t *content = g_malloc0(DISK_GROWN), *new = stand_new_content(stand);
    int64_t length = blk_length(stand->blk);
    if (length > DISK_GROWN) {
        stand_fail("a half-made image is %" G_GINT64_FORMAT " bytes long", length);
    }
    must(blk_pread(stand->blk, 0, length, content, 0), "reading a half-made image");
    bool is_old = length == DISK_BYTES && model_wrong_sector(stand->model, content, length, false) < 0;
    /* Raw has no header that says that it is whole: it may be as short as it got. */
    bool is_new = memcmp(content, new, (size_t)MIN(length, DISK_BYTES)) == 0 &&
                  (length == DISK_BYTES || strcmp(stand->image->driver, "raw") == 0);
    if (!is_old && !is_new) {
        stand_fail("a half-made image opens and reads neither as the old one nor as the new one");
    }
    must(stand_close(stand), "closing a half-made image");
    stand_check(stand);
}

static void open_again(Stand *stand)
{
    static const Step look[] = { { STEP_INVALIDATE }, { STEP_END } };
    int error;
    if (stand->blk && stand->blind) {
        must(op_take_steps(stand, look), "looking at the image anew again");
    }
    stand->blind = false;
    if (!stand->blk && !stand_open(stand, true, &error)) {
        must(error, "opening again");
    }
}

/* The kernel told once that pages were lost, and will not again: no flush may succeed before the file is closed. */
static void must_keep_failing(Stand *stand)
{
    static const Step again[] = { { STEP_WRITE, AT_ONES + 512, 512, .value = 6 }, { STEP_END } };
    static const Step close[] = { { STEP_CLOSE }, { STEP_END } };

    op_take_steps(stand, again); /* may fail: metadata cannot be committed */
    for (unsigned i = 0; i < 2; i++) {
        if (blk_flush(stand->blk) >= 0) {
            stand_fail("a flush succeeds after a failed one");
        }
    }
    stand_compare(stand);
    if (op_take_steps(stand, close) >= 0) {
        stand_fail("closing succeeds after a failed flush");
    }
}

static bool flush_failed_for_good(const Stand *stand, const Fault *fault)
{
    return stand->place->cached && stand->blk && !blk_is_read_only(stand->blk) && fault->hooks && !fault->absorbed &&
           (hooks_failed_kinds() & HOOK_SYNC);
}

/* What an embedder does next. */
static const Step follow_up[] = {
    { STEP_WRITE, AT_NOTHING + 50 * KIB + 700, 12 * KIB, .value = 5 },
    { STEP_FLUSH },
    { STEP_DISCARD, AT_TWOS + 8 * KIB, 8 * KIB },
    { STEP_ZERO_UNMAP, AT_ONES, 3 * KIB },
    { STEP_FLUSH },
    { STEP_WRITE, AT_TWOS + 10 * KIB, 4 * KIB, .value = 6 },
    { STEP_FLUSH },
    { STEP_END },
};
static const Step writable[] = { { STEP_REOPEN }, { STEP_END } };

static void make_writable(Stand *stand)
{
    open_again(stand);
    if (blk_is_read_only(stand->blk)) {
        must(op_take_steps(stand, writable), "making it writable");
    }
}

static void finish(Stand *stand)
{
    must(stand_close(stand), "closing");
    model_flushed(stand->model);
    stand_check(stand);
    open_again(stand);
    stand_compare(stand);
    must(stand_close(stand), "closing again");
}

static void carry_on(Stand *stand, const Op *op, const Fault *fault, int ret)
{
    if (ret < 0 && makes_image(op)) {
        look_at_half_made(stand);
    } else {
        if (flush_failed_for_good(stand, fault)) {
            must_keep_failing(stand);
        }
        open_again(stand);
        stand_compare(stand);
        stand_check_loss(stand);
    }
    if (stand->blk && !op->read_only && !op->closed) {
        make_writable(stand);
    }
    must(op_take_steps(stand, op->steps), "trying again");
    make_writable(stand);
    stand_compare(stand);
    must(op_take_steps(stand, follow_up), "going on");
    stand_compare(stand);
    stand_check_loss(stand);
    finish(stand);
}

/* ---- the search ---- */

static void begin(Stand *stand, const Op *op, const FaultImage *image, const FaultPlace *place, const Fault *fault)
{
    int error;
    stand_begin(stand, image, place, fault->hooks & (HOOK_RING_SETUP | HOOK_POLL));
    if (!op->closed && !stand_open(stand, !op->read_only, &error)) {
        must(error, "opening");
    }
    must(op_take_steps(stand, op->before), "preparing");
}

static bool is_expected(const Fault *fault, int ret)
{
    return ret == -fault->error || ret == -EIO || (fault->hooks && ret != -EINTR);
}

/* Returns whether a call failed. */
static bool fail_nth(const Op *op, const FaultImage *image, const FaultPlace *place, const Fault *fault, unsigned nth,
                     Found *found)
{
    Stand stand;
    begin(&stand, op, image, place, fault);
    Armed armed = arm(&stand, fault, nth);
    int ret = op_take_steps(&stand, op->steps);
    bool failed = disarm(&armed);
    if (ret < 0 && (!failed || fault->absorbed || !is_expected(fault, ret))) {
        stand_fail("the answer is '%s', and %s", g_strerror(-ret), failed ? "that should not be" : "nothing failed");
    }
    carry_on(&stand, op, fault, ret);
    found->failed += failed;
    found->absorbed += failed && ret >= 0;
    found->leaks += (uint64_t)MAX(stand.leaks, 0);
    stand_end(&stand);
    return failed;
}

Found search_calls(const Op *op, const FaultImage *image, const FaultPlace *place, const Fault *fault, Calls calls)
{
    Found found = { 0 };
    for (unsigned n = calls.only ? calls.only : calls.first + 1;; n += calls.every) {
        g_autofree char *text = g_strdup_printf("--op '%s' --image '%s' --place '%s' --fault '%s' --nth %u", op->name,
                                                image->name, place->name, fault->name, n);
        stand_where(text);
        bool failed = fail_nth(op, image, place, fault, n, &found);
        stand_where("");
        if (!failed || calls.only) {
            return found;
        }
    }
}
