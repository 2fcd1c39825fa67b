/* SPDX-License-Identifier: MIT */
/* Each call on the file fails in turn. */
#include "tools/driver-test/kit.h"

/* How calls fail. */
typedef struct Fault {
    const char *name;
    int error;
    int64_t part; /* bytes that take effect nevertheless */
} Fault;

static const Fault faults[] = { { "EIO", EIO, 0 },
                                { "ENOSPC", ENOSPC, 0 },
                                { "EIO after 512 bytes", EIO, 512 } };

/* What is known of each byte. */
enum { KNOWN, EITHER, UNKNOWN };

typedef struct Trial {
    KitDisk *disk;
    uint8_t *state, *other; /* EITHER: the value that the failed request would have given */
    uint8_t *dirty;         /* since the last flush that succeeded */
    int64_t other_length;   /* after a failed resize, else -1 */
    unsigned told;          /* errors that reached the caller */
} Trial;

static void note_result(Trial *trial, int ret)
{
    if (ret == -EDEADLK) {
        kit_hangs("the request");
    }
    if (ret < 0) {
        kit_note("... %s", g_strerror(-ret));
        trial->told++;
    }
}

static void settle(Trial *trial, int ret, int64_t offset, int64_t bytes, const uint8_t *wanted)
{
    KitDisk *disk = trial->disk;

    note_result(trial, ret);
    for (int64_t i = 0; i < bytes; i++) {
        int64_t at = offset + i;
        uint8_t value = wanted ? wanted[i] : 0;

        trial->dirty[at] = 1;
        if (ret >= 0) {
            trial->state[at] = KNOWN;
            disk->model[at] = value;
        } else {
            trial->state[at] = trial->state[at] == KNOWN ? EITHER : UNKNOWN;
            trial->other[at] = value;
        }
    }
}

static void try_write(Trial *trial, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = g_malloc((gsize)bytes);

    kit_fill(trial->disk, buf, bytes);
    kit_note("write %" PRId64 " bytes at %" PRId64 "%s", bytes, offset, flags ? ", FUA" : "");
    settle(trial, blk_pwrite(trial->disk->blk, offset, bytes, buf, flags), offset, bytes, buf);
}

static void try_zero(Trial *trial, int64_t offset, int64_t bytes)
{
    kit_note("zero %" PRId64 " bytes at %" PRId64, bytes, offset);
    settle(trial, blk_pwrite_zeroes(trial->disk->blk, offset, bytes, BDRV_REQ_MAY_UNMAP), offset, bytes,
           NULL);
}

static void try_flush(Trial *trial)
{
    int ret;

    kit_note("flush");
    ret = blk_flush(trial->disk->blk);
    note_result(trial, ret);
    if (ret >= 0) {
        memset(trial->dirty, 0, (size_t)trial->disk->length);
    }
}

static void judge_bytes(Trial *trial, int64_t offset, int64_t bytes, const uint8_t *found)
{
    const uint8_t *expected = trial->disk->model + offset;

    for (int64_t i = kit_differ(found, expected, 0, bytes); i < bytes;
         i = kit_differ(found, expected, i + 1, bytes)) {
        int64_t at = offset + i;
        bool right =
            trial->state[at] == UNKNOWN || (trial->state[at] == EITHER && found[i] == trial->other[at]);

        if (!right) {
            kit_fail("byte %" PRId64 ": expected 0x%02x, which was acknowledged%s, came 0x%02x", at,
                     trial->disk->model[at], trial->state[at] == EITHER ? " before a write that failed" : "",
                     found[i]);
        }
    }
}

static void try_read(Trial *trial, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc0((gsize)bytes);
    int ret;

    kit_note("read %" PRId64 " bytes at %" PRId64, bytes, offset);
    ret = blk_pread(trial->disk->blk, offset, bytes, buf, 0);
    note_result(trial, ret);
    if (ret >= 0) {
        judge_bytes(trial, offset, bytes, buf);
    }
}

static void try_resize(Trial *trial, int64_t length)
{
    g_autoptr(GError) error = NULL;

    kit_note("resize to %" PRId64, length);
    if (!blk_truncate(trial->disk->blk, length, false, BDRV_PREALLOC_OFF, 0, &error)) {
        if (bdrv_error_code(error) != ENOTSUP) {
            note_result(trial, -bdrv_error_code(error));
            trial->other_length = length;
        }
    } else {
        trial->other_length = blk_length(trial->disk->blk);
    }
}

static void try_close(Trial *trial)
{
    GError *error = NULL;

    if (!kit_try_close(trial->disk, &error)) {
        note_result(trial, -bdrv_error_code(error));
        g_error_free(error);
        for (int64_t at = 0; at < trial->disk->length; at++) {
            trial->state[at] = trial->dirty[at] ? UNKNOWN : trial->state[at];
        }
    }
}

/* What is done while a call fails. */
static void work(Trial *trial)
{
    int64_t length = trial->disk->length, half = length / 2;
    g_autoptr(GError) error = NULL;

    if (!kit_try_open(trial->disk, KIT_RDWR, &error)) {
        note_result(trial, -bdrv_error_code(error));
        return;
    }
    try_read(trial, 0, MIN(length, 5000));
    try_write(trial, half, MIN(length - half, 6000), 0);
    try_write(trial, 100, MIN(length - 100, 900), 0);
    try_flush(trial);
    try_zero(trial, half / 2, MIN(half, 70000));
    try_write(trial, half + 1, MIN(length - half - 1, 3000), BDRV_REQ_FUA);
    try_read(trial, half, MIN(length - half, 70000));
    try_write(trial, length - 513, 513, 0);
    try_flush(trial);
    try_resize(trial, length + 65536);
    try_close(trial);
}

/* Opened anew, all that was acknowledged is there. */
static void judge(Trial *trial)
{
    KitDisk *disk = trial->disk;
    g_autofree uint8_t *found = NULL;
    int64_t length;

    kit_fail_none(disk);
    kit_note("no call fails any more");
    kit_open(disk, KIT_RDWR);
    length = blk_length(disk->blk);
    if (length != disk->length && length != trial->other_length) {
        kit_fail("the disk has %" PRId64 " bytes, expected %" PRId64, length, disk->length);
    }
    found = kit_read_all(disk);
    judge_bytes(trial, 0, disk->length, found);
    kit_expect_sound(disk, true);
}

/* The power goes: of what was not flushed, each byte may be as before or as written. */
static void lose_power(Trial *trial, KitFate fate)
{
    KitDisk *disk = trial->disk;
    g_autoptr(KitCut) cut = kit_cut(disk);
    Trial after = *trial;

    for (int64_t at = 0; at < disk->length; at++) {
        trial->state[at] = trial->dirty[at] ? UNKNOWN : trial->state[at];
    }
    kit_note("lose the power; of what was not flushed %s", fate == KIT_LOST ? "all is lost" : "some is lost");
    after.disk = kit_disk_after(disk, cut, fate, disk->kit->seed);
    judge(&after);
    kit_disk_free(after.disk);
}

/* What happens to a call, and to which. */
typedef struct Plan {
    unsigned kinds; /* that are counted */
    const Fault *faults;
    unsigned n_faults;
    bool for_good; /* all later calls fail too; what a flush should have made durable never is; then the power
                      goes */
} Plan;

static void begin_trial(Trial *trial, const KitDisk *base, const KitSaved *saved)
{
    *trial = (Trial){ .disk = kit_disk_like(base), .other_length = -1 };
    trial->state = g_malloc0((gsize)base->length);
    trial->other = g_malloc0((gsize)base->length);
    trial->dirty = g_malloc0((gsize)base->length);
    kit_restore(trial->disk, saved);
}

static void end_trial(Trial *trial)
{
    kit_disk_free(trial->disk);
    g_free(trial->state);
    g_free(trial->other);
    g_free(trial->dirty);
}

/* Returns how many calls child @file sees if none fails. */
static uint64_t count_calls(const KitDisk *base, const KitSaved *saved, unsigned file, unsigned kinds)
{
    Trial trial;
    uint64_t calls;

    begin_trial(&trial, base, saved);
    work(&trial);
    calls = bdrv_simdisk_count(trial.disk->files[file].sim, kinds);
    judge(&trial);
    end_trial(&trial);
    return calls;
}

/* The @nth call on child @file fails. */
static void attempt(const KitDisk *base, const KitSaved *saved, unsigned file, const Plan *plan,
                    const Fault *fault, unsigned nth)
{
    const char *child = base->kit->children[file].name;
    BdrvSimDisk *sim;
    Trial trial;

    begin_trial(&trial, base, saved);
    sim = trial.disk->files[file].sim;
    kit_note("---- call %u on child %s will fail with %s%s", nth, child, fault->name,
             plan->for_good ? ", and all later ones" : "");
    bdrv_simdisk_set_flush_failure(sim, plan->for_good ? BDRV_SIM_FLUSH_FORGETS : BDRV_SIM_FLUSH_KEEPS);
    bdrv_simdisk_fail_partly(sim, plan->kinds, nth, plan->for_good ? -1 : 1, fault->error, fault->part);
    work(&trial);
    if (plan->kinds == BDRV_SIM_FLUSH && bdrv_simdisk_count(sim, plan->kinds) >= nth && !trial.told) {
        kit_fail("flush %u of child %s failed, and no call told", nth, child);
    }
    if (plan->for_good) {
        lose_power(&trial, KIT_LOST);
        lose_power(&trial, KIT_MIXED);
    } else {
        judge(&trial);
    }
    end_trial(&trial);
}

static void each_call_of(const KitDisk *base, const KitSaved *saved, unsigned file, const Plan *plan)
{
    uint64_t calls = count_calls(base, saved, file, plan->kinds);
    uint64_t step = MAX(base->kit->stride, calls * plan->n_faults / 600 + 1);

    for (unsigned f = 0; f < plan->n_faults; f++) {
        for (uint64_t nth = 1; nth <= calls; nth += step) {
            attempt(base, saved, file, plan, &plan->faults[f], (unsigned)nth);
        }
    }
}

static void each_call(const Kit *kit, const Plan *plan)
{
    KitDisk *base;
    g_autoptr(KitSaved) saved = NULL;

    kit_need_file(kit);
    base = kit_disk_new(kit);
    kit_write(base, 0, base->length / 3, 0);
    kit_write(base, base->length / 2 - 5000, MIN(base->length / 2, 30000), 0);
    kit_close(base);
    saved = kit_save(base);
    for (unsigned file = 0; file < kit->n_children; file++) {
        each_call_of(base, saved, file, plan);
    }
    kit_disk_free(base);
}

static void reads(const Kit *kit)
{
    each_call(kit, &(Plan){ BDRV_SIM_READ, faults, 1, false });
}

static void writes(const Kit *kit)
{
    each_call(kit,
              &(Plan){ BDRV_SIM_WRITE | BDRV_SIM_ZERO | BDRV_SIM_DISCARD | BDRV_SIM_TRUNCATE | BDRV_SIM_COPY,
                       faults, G_N_ELEMENTS(faults), false });
}

static void flushes(const Kit *kit)
{
    each_call(kit, &(Plan){ BDRV_SIM_FLUSH, faults, 1, false });
}

/* As fsync(2) of Linux: what it could not write it takes for clean. */
static void flushes_and_power(const Kit *kit)
{
    kit_need_crash_safety(kit);
    each_call(kit, &(Plan){ BDRV_SIM_FLUSH, faults, 1, true });
}

/* ---- making an image ---- */

/* What was made, or is said to be, is whole. */
static void judge_new(KitDisk *disk)
{
    kit_note("it is said to be made: no call fails any more");
    kit_open(disk, KIT_RDWR);
    kit_first_model(disk);
    kit_expect_all(disk);
    kit_expect_sound(disk, false);
    kit_write(disk, 0, MIN(disk->length, 5000), 0);
    kit_again(disk);
    kit_expect_all(disk);
}

/* Make an image while something goes wrong; once that is over, the same file takes a new image. */
static void try_creation(KitDisk *disk)
{
    g_autoptr(GError) error = NULL;
    bool made = kit_create(disk, &error);

    kit_fail_none(disk);
    if (!made) {
        kit_note("... %s", error->message);
        if (bdrv_error_code(error) == EDEADLK) {
            kit_hangs("making the image");
        }
        g_clear_error(&error);
        if (!kit_create(disk, &error)) {
            kit_fail("after a failure no image can be made in the same file: %s", error->message);
        }
    }
    judge_new(disk);
    kit_disk_free(disk);
}

/* The fault is a capacity that ends at each page in turn. */
static void creation_without_space(const Kit *kit)
{
    KitDisk *disk;
    int64_t needed;

    kit_need_creation(kit);
    disk = kit_disk_make(kit, NULL);
    needed = bdrv_simdisk_allocated(disk->files[0].sim);
    kit_disk_free(disk);
    for (int64_t capacity = 0; capacity <= needed; capacity += 4096) {
        kit_note("---- make an image where there is room for %" PRId64 " bytes", capacity);
        disk = kit_disk_blank(kit);
        bdrv_simdisk_set_capacity(disk->files[0].sim, capacity);
        try_creation(disk);
    }
}

/* Fail each call that creation makes on child @file. */
static void creation_with_fault(const Kit *kit, unsigned file, const Fault *fault)
{
    KitDisk *disk = kit_disk_make(kit, NULL);
    uint64_t calls = bdrv_simdisk_count(disk->files[file].sim, BDRV_SIM_ANY);

    kit_disk_free(disk);
    for (uint64_t nth = 1; nth <= calls; nth += kit->stride) {
        kit_note("---- make an image: call %" PRIu64 " on child %s will fail with %s", nth,
                 kit->children[file].name, fault->name);
        disk = kit_disk_blank(kit);
        bdrv_simdisk_fail_partly(disk->files[file].sim, BDRV_SIM_ANY, (unsigned)nth, 1, fault->error,
                                 fault->part);
        try_creation(disk);
    }
}

static void creation_with_faults(const Kit *kit)
{
    kit_need_creation(kit);
    for (unsigned file = 0; file < kit->n_children; file++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(faults); i++) {
            creation_with_fault(kit, file, &faults[i]);
        }
    }
}

const KitTest faults_tests[] = {
    { "faults/reads", "a read that fails is told, nothing acknowledged is lost", reads },
    { "faults/writes", "a write, zero, discard or resize that fails costs nothing that was acknowledged",
      writes },
    { "faults/flushes", "a flush that fails is told", flushes },
    { "faults/flushes-lost",
      "flushes fail until the power goes: what was flushed before is there, nothing is corrupt",
      flushes_and_power },
    { "faults/create", "each call of creating fails: no image is made, or it is whole",
      creation_with_faults },
    { "faults/create-space", "an image that does not fit is not made, or is whole", creation_without_space },
    { NULL },
};
