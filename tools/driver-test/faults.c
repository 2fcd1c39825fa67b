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
        kit_fail("the request hangs");
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
    for (int64_t i = 0; i < bytes; i++) {
        int64_t at = offset + i;
        bool right = trial->state[at] == UNKNOWN || found[i] == trial->disk->model[at] ||
                     (trial->state[at] == EITHER && found[i] == trial->other[at]);

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

    bdrv_simdisk_fail_none(disk->sim);
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

/* One trial; returns how many calls there were. @nth 0: none fails. */
static uint64_t attempt(const Kit *kit, const KitDisk *base, const BdrvSimSaved *saved, const Fault *fault,
                        unsigned kinds, unsigned nth)
{
    char *name = kit_sim_name();
    KitDisk *disk = kit_disk_on(base, bdrv_simdisk_new(name, 0), name);
    Trial trial = { .disk = disk, .other_length = -1 };
    uint64_t calls;

    trial.state = g_malloc0((gsize)disk->length);
    trial.other = g_malloc0((gsize)disk->length);
    trial.dirty = g_malloc0((gsize)disk->length);
    bdrv_simdisk_restore(disk->sim, saved);
    if (nth) {
        kit_note("---- call %u on the file will fail with %s", nth, fault->name);
        bdrv_simdisk_fail_partly(disk->sim, kinds, nth, 1, fault->error, fault->part);
    }
    work(&trial);
    calls = bdrv_simdisk_count(disk->sim, kinds);
    if (kinds == BDRV_SIM_FLUSH && nth && calls >= nth && !trial.told) {
        kit_fail("flush %u of the file failed, and no call told", nth);
    }
    judge(&trial);
    kit_disk_free(disk);
    g_free(trial.state);
    g_free(trial.other);
    g_free(trial.dirty);
    return calls;
}

static void each_call(const Kit *kit, unsigned kinds, unsigned n_faults)
{
    KitDisk *base = kit_disk_new(kit);
    g_autoptr(BdrvSimSaved) saved = NULL;
    uint64_t calls, step;

    kit_write(base, 0, base->length / 3, 0);
    kit_write(base, base->length / 2 - 5000, MIN(base->length / 2, 30000), 0);
    kit_close(base);
    saved = bdrv_simdisk_save(base->sim);
    calls = attempt(kit, base, saved, NULL, kinds, 0);
    step = MAX(kit->stride, calls * n_faults / 600 + 1);
    for (unsigned f = 0; f < n_faults; f++) {
        for (uint64_t nth = 1; nth <= calls; nth += step) {
            attempt(kit, base, saved, &faults[f], kinds, (unsigned)nth);
        }
    }
    kit_disk_free(base);
}

static void reads(const Kit *kit)
{
    each_call(kit, BDRV_SIM_READ, 1);
}

static void writes(const Kit *kit)
{
    each_call(kit, BDRV_SIM_WRITE | BDRV_SIM_ZERO | BDRV_SIM_DISCARD | BDRV_SIM_TRUNCATE,
              G_N_ELEMENTS(faults));
}

static void flushes(const Kit *kit)
{
    each_call(kit, BDRV_SIM_FLUSH, 1);
}

/* ---- making an image ---- */

/* The file does not exist before, so the fault is a capacity that ends at each page in turn. */
static void creation(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);
    int64_t needed = bdrv_simdisk_allocated(disk->sim);

    if (kit->image) {
        kit_skip("the image is given, not made");
    }
    kit_disk_free(disk);
    for (int64_t capacity = 0; capacity <= needed; capacity += 4096) {
        GError *error = NULL;
        char *name = kit_sim_name();
        BdrvSimDisk *sim = bdrv_simdisk_new(name, 0);
        g_autofree char *filename = g_strconcat("simdisk:", name, NULL);
        KitDisk like = { .kit = kit };
        BdrvOptions *options = bdrv_options_parse(kit->create ? kit->create : "", NULL, NULL);
        bool made;

        kit_note("make an image where there is room for %" PRId64 " bytes", capacity);
        disk = kit_disk_on(&like, sim, name);
        bdrv_simdisk_set_capacity(sim, capacity);
        bdrv_options_set_int(options, "size", kit->size);
        made = bdrv_create_image(disk->graph, kit->driver, filename, options, &error);
        bdrv_simdisk_set_capacity(sim, -1);
        if (made) {
            kit_open(disk, KIT_RDWR);
            disk->length = blk_length(disk->blk);
            disk->model = blk_has_zero_init(disk->blk) ? g_malloc0((gsize)disk->length) : kit_read_all(disk);
            kit_expect_all(disk);
        } else if (bdrv_error_code(error) == EDEADLK) {
            kit_fail("making the image hangs");
        }
        g_clear_error(&error);
        kit_disk_free(disk);
    }
}

const KitTest faults_tests[] = {
    { "faults/reads", "a read that fails is told, nothing acknowledged is lost", reads },
    { "faults/writes", "a write, zero, discard or resize that fails costs nothing that was acknowledged",
      writes },
    { "faults/flushes", "a flush that fails is told", flushes },
    { "faults/create", "an image that does not fit is not made, or is whole", creation },
    { NULL },
};
